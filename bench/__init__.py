"""What imm promises under load, measured."""
