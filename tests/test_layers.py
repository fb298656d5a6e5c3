"""The arrows of the design, read from the imports: cli → deploy → effects → engine, sidecar → values."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from immutable_local import labels
from immutable_local.sidecar import program

PACKAGE = "immutable_local"
ROOT = Path(__file__).resolve().parent.parent / PACKAGE
# From the bottom to the top: a module imports what is in its own layer or below. Every module has its place.
HANDS = (
    "apps",
    "builds",
    "configuration",
    "counts",
    "ground",
    "health",
    "ledger",
    "live",
    "locks",
    "logs",
    "park",
    "proxy",
    "secrets",
    "start",
)
LAYERS = {
    "values": {"", "app", "errors", "events", "labels", "listed", "live", "release", "routes"},
    "tools": {"dockerfile", "dockerignore", "guard", "tunnel", "unbroken", "undo", "wait", "who"},
    "reading": {
        "config",
        "config.contradictions",
        "config.env_file",
        "config.findings",
        "config.keys",
        "config.kinds",
        "config.lines",
        "config.schema",
        "config.tables",
        "config.units",
        "config.values",
        "init",
    },
    "engine": {"engine"},
    "hands": {f"sidecar.hands.{each}" for each in HANDS} | {"sidecar", "sidecar.hands"},
    "sidecar": {"early", "lock", "sidecar.page", "sidecar.parking", "sidecar.program", "sidecar.session"},
    "proxy": {"proxy", "proxy.nginx", "proxy.traefik"},
    "effects": {
        "cache",
        "containers",
        "deployment",
        "doctor",
        "drain",
        "explain",
        "flip",
        "health",
        "hold",
        "host",
        "image",
        "instance",
        "ledger",
        "logs",
        "making",
        "network",
        "observed",
        "parking",
        "plan",
        "prune",
        "recovery",
        "seal",
        "secret",
        "start",
        "status",
        "structure",
        "sweep",
        "volume",
        "watch",
    },
    "deploy": {"deploy"},
    "cli": {
        "__main__",
        "cli",
        "cli.commands",
        "cli.ending",
        "cli.options",
        "cli.proxy",
        "cli.running",
        "cli.secret",
        "render",
    },
}
RUNS_IN_THE_SIDECAR = {"sidecar.page", "sidecar.parking", "sidecar.program"} | LAYERS["hands"]
MODULES = sorted(set().union(*LAYERS.values()))
# Where a proxy is chosen, started or told to people; nobody else may know one from another.
KNOWS_A_PROXY = {"proxy", "proxy.nginx", "proxy.traefik", "host", "making", "cli.proxy", "init"}


def path_of(module: str) -> Path:
    folder = ROOT.joinpath(*module.split(".")) if module else ROOT
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(path_of(module).read_text())


def imports(module: str, late: bool = True) -> Iterator[str]:
    """The full names that a module imports; `late` includes those inside of functions."""
    for node in ast.walk(tree(module)) if late else at_import(tree(module)):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide the arrow"
            assert node.module is not None
            for each in node.names:
                yield f"{node.module}.{each.name}"


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported: no function's body, and nothing that is there for types alone."""
    for child in ast.iter_child_nodes(node):
        typing = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not typing and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from at_import(child)


def ours(module: str, late: bool = True) -> set[str]:
    """The modules of the package that a module imports."""
    found = set()
    for name in imports(module, late):
        if name.split(".")[0] == PACKAGE:
            parts = name.split(".")[1:]
            longest = (".".join(parts[:end]) for end in range(len(parts), -1, -1))
            found.add(next(each for each in longest if each in MODULES))
    return found - {module}


def layer_of(module: str) -> int:
    return next(rank for rank, modules in enumerate(LAYERS.values()) if module in modules)


def test_every_module_has_one_place():
    """A new one is put where it belongs, here, before it can be imported from elsewhere."""
    files = {path.relative_to(ROOT).with_suffix("") for path in ROOT.rglob("*.py")}
    there = {".".join(part for part in each.parts if part != "__init__") for each in files}
    assert there == set(MODULES)
    assert sum(map(len, LAYERS.values())) == len(MODULES)


@pytest.mark.parametrize("layer", LAYERS)
def test_who_reads_the_code_finds_every_module_in_its_layer(layer: str):
    """`sidecar.hands.*` stands for all that is in there, and packages for themselves."""
    page = (ROOT.parent / "docs" / "reading-the-code.md").read_text()
    [row] = [line for line in page.splitlines() if line.startswith(f"| {layer} |")]
    named = re.findall(r"`([a-z_.*]+)`", row.split("|")[2])
    patterns = [re.compile(name.replace(".*", r"(\..*)?")) for name in named]
    missing = [each for each in LAYERS[layer] if not any(known.fullmatch(each) for known in patterns)]
    assert [each for each in missing if each not in ("", "sidecar")] == []
    assert [known.pattern for known in patterns if not any(map(known.fullmatch, LAYERS[layer]))] == []


@pytest.mark.parametrize("module", MODULES)
def test_arrows_point_downwards(module: str):
    allowed = set().union(*list(LAYERS.values())[: layer_of(module) + 1])
    assert ours(module) <= allowed


@pytest.mark.parametrize("module", MODULES)
def test_what_a_text_names_is_no_arrow_upwards_either(module: str):
    """A program in a string imports what no import statement shows."""
    names = re.compile(rf"\b{PACKAGE}\.([a-z_.]+)")
    texts = [node.value for node in ast.walk(tree(module)) if isinstance(node, ast.Constant)]
    named = {name for text in texts if isinstance(text, str) for name in names.findall(text)}
    assert [name for name in named if name in MODULES and layer_of(name) > layer_of(module)] == []


def test_nothing_imports_in_a_circle():
    order = graphlib.TopologicalSorter({each: ours(each, late=False) for each in MODULES})
    assert len(list(order.static_order())) == len(MODULES)


def test_values_import_only_values_and_the_standard_library():
    for module in LAYERS["values"]:
        outside = {name.split(".")[0] for name in imports(module)} - {PACKAGE}
        assert outside <= sys.stdlib_module_names, module


def test_only_engine_imports_the_docker_sdk():
    """And requests with it, whose errors it translates."""
    for module in MODULES:
        foreign = {name.split(".")[0] for name in imports(module)} & {"docker", "requests", "urllib3"}
        assert not foreign or module == "engine", module


def test_what_runs_in_the_sidecar_needs_nothing_but_the_standard_library():
    """It is sent there: nothing is installed but a Python."""
    for module in RUNS_IN_THE_SIDECAR:
        foreign = {name for name in imports(module) if name.split(".")[0] not in sys.stdlib_module_names}
        assert all(name.startswith("immutable_local.sidecar.hands.") for name in foreign), module


@pytest.mark.parametrize("module", sorted(set(MODULES) - KNOWS_A_PROXY))
def test_no_proxy_is_named_but_where_one_is_chosen(module: str):
    """The story of a deployment is the same for every kind."""
    text = path_of(module).read_text().lower()
    assert "nginx" not in text and "traefik" not in text


@pytest.mark.parametrize("module", sorted(set(MODULES) - LAYERS["cli"] - RUNS_IN_THE_SIDECAR))
def test_only_the_command_line_prints_and_exits(module: str):
    """`render` prints for it. A module that is a program of its own may, where it is run as one."""
    told = {
        ast.unparse(node) for node in ast.walk(tree(module)) if isinstance(node, ast.Name | ast.Attribute)
    }
    mine = {
        "print",
        "exit",
        "quit",
        "sys.exit",
        "os._exit",
        "SystemExit",
        "typer.Exit",
        "sys.stdout",
        "sys.stderr",
    }
    run_as_program = {"config.schema": {"sys.stdout"}}.get(module, set())
    assert told & mine <= run_as_program


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"labels"}))
def test_each_label_key_stands_in_one_place(module: str):
    keys = {value for name, value in vars(labels).items() if name.isupper() and name != "PREFIX"}
    texts = {node.value for node in ast.walk(tree(module)) if isinstance(node, ast.Constant)}
    assert not keys & {text for text in texts if isinstance(text, str)}


def test_help_loads_nothing_that_only_a_deployment_needs():
    """The Docker SDK alone would take longer than all the rest."""
    heavy = {"docker", "requests", "tenacity", "rich"}
    look = f"import sys, immutable_local.cli; print({heavy} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert told.stdout == "set()\n"


def test_whatever_the_sidecar_is_asked_it_can_do():
    """Asked by name from here, and found by name there: nothing else would notice a wrong one."""
    for module, names in program.ASKED.items():
        defined = {node.name for node in tree(f"sidecar.{module}").body if isinstance(node, ast.FunctionDef)}
        assert set(names) <= defined, module
    asked = set()
    for node in (node for module in MODULES for node in ast.walk(tree(module)) if isinstance(node, ast.Call)):
        asking = isinstance(node.func, ast.Attribute) and node.func.attr in ("ask", "tell")
        if asking and node.args and isinstance(node.args[0], ast.Constant):
            asked.add(node.args[0].value)
    assert len(asked) > 30
    assert asked <= set(program.DOES)
    assert set(program.AT_ONCE) <= asked
