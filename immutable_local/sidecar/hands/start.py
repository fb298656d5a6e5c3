"""How a program of imm's begins in the sidecar: it comes through standard input, module by module.

Nothing of it stands in an argument list or on the host's disk. All of it would take longer to compile than
Python takes to start, and most sessions need little of it: a module is compiled when it is first imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

# Reads the length of what follows: the program's name, and every module's source by its name.
START = """
import json, sys
from importlib import import_module
from importlib.machinery import ModuleSpec

program, sources = json.loads(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))

class Sent:
    def find_spec(name, path=None, target=None):
        return ModuleSpec(name, Sent, is_package=True) if name in sources else None

    def create_module(spec):
        return None

    def exec_module(module):
        exec(compile(sources[module.__name__], module.__name__, "exec"), module.__dict__)

sys.meta_path.insert(0, Sent)
import_module(program).main()
"""


def packed(program: str, sources: Mapping[str, str]) -> bytes:
    """The program's name, and the modules that it may import, as START reads them."""
    told = json.dumps([program, sources]).encode()
    return b"%d\n%s" % (len(told), told)
