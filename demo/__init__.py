"""What imm does, shown on this machine: `python -m demo`."""
