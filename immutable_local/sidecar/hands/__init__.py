"""imm's hands on the host, a module for each thing they do. Standard library only."""
