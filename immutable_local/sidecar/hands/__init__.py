"""imm's hands on the host, a module for each thing they do. Standard library only.

`TYPE_CHECKING = False` is how typing itself spells it, without the milliseconds that importing it costs each
session.
"""
