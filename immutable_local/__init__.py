"""imm: a local, Docker-based immutable deployment runtime."""

__version__ = "0.1.0"
