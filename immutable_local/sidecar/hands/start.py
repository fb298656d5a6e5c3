"""How a program of imm's begins in the sidecar: it comes through standard input, a module after the other.

Nothing of it stands in an argument list or on the host's disk.
"""

from __future__ import annotations

import json

# Reads the length of what follows, then names and sources; the last of the modules is the program.
START = """
import json, sys, types
for name, source in json.loads(sys.stdin.buffer.read(int(sys.stdin.buffer.readline()))):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = []
    exec(compile(source, name, "exec"), module.__dict__)
module.main()
"""


def packed(modules: list[tuple[str, str]]) -> bytes:
    """Names and sources, in an order in which each finds what it imports, as START reads them."""
    told = json.dumps(modules).encode()
    return b"%d\n%s" % (len(told), told)
