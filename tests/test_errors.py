"""Every error has a code, a hint and a line in docs/errors.md; and no traceback reaches a user."""

from __future__ import annotations

import ast
import contextlib
import io
import itertools
import json
import os
import pty
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from immutable_local import cli, errors
from immutable_local.cli.ending import ENDING
from immutable_local.cli.options import Globals, asked
from immutable_local.sidecar.session import Session, _refused
from immutable_local.wait import until
from tests.host import HEALTHCHECK, ROOT, Host, Project

PAGE = (ROOT / "docs" / "errors.md").read_text()
KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.ImmError)
}
SOURCES = {path: ast.parse(path.read_text()) for path in sorted((ROOT / "immutable_local").rglob("*.py"))}
TESTS = [ast.parse(path.read_text()) for path in sorted((ROOT / "tests").rglob("*.py"))]


def calls(tree: ast.AST) -> Iterator[tuple[str, dict[str, ast.expr]]]:
    """Every call by a plain name, with its keywords."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, {each.arg: each.value for each in node.keywords if each.arg}


def raised() -> dict[str, set[int]]:
    """Every code that the source can raise, with its exit codes."""
    found: dict[str, set[int]] = {}
    for tree in SOURCES.values():
        for name, keywords in calls(tree):
            kind = KINDS.get(name, errors.ConfigError if name == "Finding" else None)
            if kind is None:
                continue
            told = keywords.get("code")
            code = ast.literal_eval(told) if isinstance(told, ast.Constant) else kind.code
            found.setdefault(code, set()).add(kind.exit_code)
    return found


RAISED = raised()


# The page


def test_the_page_and_the_source_have_the_same_codes_and_exit_codes():
    """An error that isn't documented is a defect; so is one that can't happen."""
    rows = re.findall(r"^\| `([a-z_]+)` \| (\d) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
    assert len(rows) == len([line for line in PAGE.splitlines() if line.startswith("| `")])
    assert {code: {int(exit_code)} for code, exit_code, *_ in rows} == RAISED
    assert [code for code, *_ in rows] == sorted(RAISED)


def test_each_code_is_asserted_by_a_test():
    """By one that meets the error and compares its code, not by this page."""
    asserted = {
        constant.value
        for tree in TESTS
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
        for compared in ast.walk(node)
        if isinstance(compared, ast.Compare) and any(is_code(each) for each in ast.walk(compared))
        for constant in ast.walk(compared)
        if isinstance(constant, ast.Constant)
    }
    assert set(RAISED) - asserted == set()


def is_code(node: ast.AST) -> bool:
    """Whether it is an error's code: `error["code"]` or `refused.code`."""
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value == "code"
    return isinstance(node, ast.Attribute) and node.attr == "code"


def test_each_error_says_what_to_do_next():
    """A hint where it is raised, or where its kind is made."""
    own = {"EngineRefused", "Finding"}
    silent = [
        f"{path.name}: {name}"
        for path, tree in SOURCES.items()
        for name, keywords in calls(tree)
        if name in KINDS and name not in own and "hint" not in keywords
    ]
    assert silent == []
    assert errors.EngineRefused("no").hint


def test_each_error_of_the_trees_root_names_its_code():
    nameless = [
        path.name
        for path, tree in SOURCES.items()
        for name, keywords in calls(tree)
        if name == "ImmError" and "code" not in keywords
    ]
    assert nameless == []


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_each_kind_of_error_says_what_is_still_true(kind: type[errors.ImmError]):
    assert kind("it failed").stands


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ({"kind": "disk_full", "path": "/imm/state/data/ledger"}, "disk_full"),
        ({"kind": "broken_file", "path": "/imm/state/data/x", "reason": "half"}, "broken_state"),
        ({"kind": "not_locked", "name": "app-shop"}, "session_lost"),
        ({"kind": "bug", "reason": "KeyError: 'x'"}, "sidecar_refused"),
        ({"kind": "os", "reason": "[Errno 5] Input/output error", "path": "/imm"}, "sidecar_refused"),
        ({"kind": "not_parked", "app": "shop", "service": "web"}, "sidecar_refused"),
        ({"kind": "bad_name", "name": "../x"}, "sidecar_refused"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_the_sidecar_refuses_is_told_as_an_error(told: dict[str, str], code: str):
    refused = _refused(told)
    assert (refused.code, bool(refused.hint)) == (code, True)
    assert "{" not in refused.message and told.get("service", "") in refused.message


# No traceback

# Something happens while a module is being imported: to a command that imports late, in its middle.
HAPPENS = """
import runpy, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            {what}
sys.meta_path.insert(0, Finder())
sys.argv = ["imm", *{words!r}]
runpy.run_module("immutable_local", run_name="__main__", alter_sys=True)
"""
NOWHERE = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}


def happens(what: str, module: str, words: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    program = HAPPENS.format(module=module, words=list(words), what=what)
    return imm([], folder, program=["-c", program])


def imm(
    words: Sequence[str], folder: Path, program: Sequence[str] = ("-m", "immutable_local"), **how: Any
) -> subprocess.CompletedProcess[str]:
    settled = {"capture_output": True, "text": True, "timeout": 60, "stdin": subprocess.DEVNULL, **how}
    return subprocess.run(
        [*settled.pop("prefix", []), sys.executable, *program, *words],
        cwd=folder,
        env={**os.environ, **NOWHERE, **settled.pop("environment", {})},
        check=False,
        **settled,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "imm.toml").write_text('name = "shop"\n[services.web]\nport = 8000\n')
    return tmp_path


@pytest.mark.parametrize("module", ["typer", "immutable_local.errors", "immutable_local.host", "docker"])
def test_an_interruption_while_imm_is_loaded_is_told_like_any_other(module: str, folder: Path):
    """Before the command line is there, and in a command that imports what it needs."""
    done = happens("signal.raise_signal(signal.SIGINT)", module, ["up"], folder)
    assert done.returncode == 1, done
    assert "error: interrupted" in done.stderr and "next: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["up", "revert", "down"])
def test_a_mistake_in_imm_toml_is_told_before_an_engine_that_cannot_be_reached(command: str, folder: Path):
    """Whoever reaches for the engine first, to lose no time, still tells first what the user can correct."""
    (folder / "imm.toml").write_text('name = "shop"\n[services.web]\nprot = 8000\n')
    done = imm([command, "--json"], folder)
    told = json.loads(done.stdout)
    assert (done.returncode, told["error"]["code"]) == (2, "config")
    (folder / "imm.toml").write_text('name = "shop"\n[services.web]\nport = 8000\n')
    done = imm([command, "--json"], folder)
    told = json.loads(done.stdout)
    assert (done.returncode, told["error"]["code"], told["app"]) == (4, "engine_unreachable", "shop")


def listens_to(process: int, which: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal."""
    told = Path(f"/proc/{process}/status").read_text()
    caught = int(re.search(r"^SigCgt:\t([0-9a-f]+)$", told, re.MULTILINE)[1], 16)
    return bool(caught >> (which - 1) & 1)


@contextlib.contextmanager
def waiting(folder: Path, *prefix: str) -> Iterator[subprocess.Popen[str]]:
    """`imm up --json` that waits for an engine which accepts, and says nothing. It doesn't outlive the test."""
    with socket.create_server(("127.0.0.1", 0)) as engine:
        running = subprocess.Popen(
            [*prefix, sys.executable, "-m", "immutable_local", "up", "--json"],
            cwd=folder,
            env={**os.environ, "DOCKER_HOST": f"tcp://127.0.0.1:{engine.getsockname()[1]}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            asked, _ = engine.accept()
            with asked:
                assert until(partial(listens_to, running.pid, signal.SIGTERM), 60.0, pause=0.01)
                yield running
        finally:
            running.kill()
            running.wait()


@pytest.mark.usefixtures("hangups_are_heeded")
@pytest.mark.parametrize(
    "which", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda which: which.name
)
def test_an_interruption_while_an_engine_keeps_silent_is_told_like_any_other(
    which: signal.Signals, folder: Path
):
    """It accepts, and says nothing: imm waits for it."""
    with waiting(folder) as running:
        running.send_signal(which)
        stdout, stderr = running.communicate(timeout=60)
    told = json.loads(stdout)
    assert (running.returncode, told["error"]["code"]) == (1, "interrupted"), stderr
    assert "Traceback" not in stderr


def test_a_command_that_nohup_began_goes_on_when_its_terminal_ends(folder: Path):
    """The signal is ignored already when it begins."""
    with waiting(folder, "nohup") as running:
        assert not listens_to(running.pid, signal.SIGHUP)
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=60)


def test_what_imm_does_not_know_is_a_bug_with_a_hint_and_a_traceback_only_with_debug(folder: Path):
    done = happens(
        "raise RuntimeError('no such luck')", "immutable_local.status", ["status", "--json"], folder
    )
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (1, "bug")
    assert "RuntimeError: no such luck" in error["message"]
    assert "--debug" in error["hint"]
    assert "Traceback" not in done.stderr
    debug = happens(
        "raise RuntimeError('no such luck')", "immutable_local.status", ["status", "--debug"], folder
    )
    assert "Traceback" in debug.stderr


def test_what_this_machine_refuses_is_no_bug(folder: Path):
    """A module that can't be read stands for any file."""
    what = "raise PermissionError(13, 'Permission denied', '/lib/x.py')"
    done = happens(what, "immutable_local.status", ["status", "--json"], folder)
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (1, "machine_refused")
    assert error["message"] == "this machine refused: Permission denied (/lib/x.py)"


@pytest.mark.parametrize("words", [["--help"], ["plan"], ["plan", "--json"], ["nonsense"]], ids=" ".join)
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing_but_what_is_read(words: list[str], closed: str, folder: Path):
    command = f'"$0" -m immutable_local {" ".join(words)} {closed}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        env={**os.environ, **NOWHERE},
        check=False,
    )
    assert done.returncode == (0 if words == ["--help"] else 2 if words == ["nonsense"] else 4)
    assert "Traceback" not in done.stderr + done.stdout
    assert '"code": "bug"' not in done.stdout


@pytest.mark.parametrize(
    ("words", "full", "code"),
    [
        (["foo"], "2", 2),
        (["status", "--json"], "2", 4),
        (["status", "--json"], "1", 4),
        (["status"], "1", 4),
        (["up", "--json"], "1", 4),
        (["up", "--json", "--file", "nope"], "1", 2),
    ],
)
def test_a_full_disk_behind_what_is_told_changes_no_exit_code(
    words: list[str], full: str, code: int, folder: Path
):
    command = f'exec "$0" -m immutable_local {" ".join(words)} {full}>/dev/full'
    done = imm([], folder, prefix=["sh", "-c", command], program=[])
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    if full == "2" and "--json" in words:
        assert json.loads(done.stdout)["error"]["code"] == "engine_unreachable"


@pytest.mark.parametrize(
    "words",
    [["foo"], [], ["proxy"], ["--bogus", "status"], ["status", "--file"], ["status", "--wait", "1s"]],
    ids=" ".join,
)
def test_what_is_mistyped_is_told_as_json_too(words: list[str], folder: Path):
    done = imm([*words[:1], "--json", *words[1:]], folder)
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (2, "usage")
    assert error["hint"]


@pytest.mark.parametrize(
    "words", [["up", "--wait", "5"], ["up", "--bogus"], ["revert", "abc"], ["down", "x"]], ids=" ".join
)
def test_the_last_line_of_a_deployment_is_a_result_whatever_was_mistyped(words: list[str], folder: Path):
    done = imm([*words, "--json"], folder)
    told = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, told["event"], told["outcome"]) == (2, "result", "failed")
    assert told["error"]["code"] == "usage"


def test_what_is_not_there_yet_says_so(folder: Path):
    done = imm(["run", "--json", "--", "python3", "-m", "shop", "--json"], folder)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (2, "not_supported")


@pytest.mark.parametrize("words", [[], ["proxy"]], ids=["imm", "imm proxy"])
def test_who_names_no_command_is_shown_which_there_are(words: list[str], folder: Path):
    done = imm(words, folder)
    assert done.returncode == 2
    assert "Commands:" in done.stderr and "error:" not in done.stderr


def test_the_options_of_every_command_may_be_written_in_any_of_their_forms(folder: Path):
    assert imm(["up", "--version"], folder).stdout == imm(["--version"], folder).stdout
    for words in (["-fother.toml", "status"], ["status", "-fother.toml"], ["status", "--file=other.toml"]):
        assert "there is no other.toml" in imm(words, folder).stderr


@pytest.mark.parametrize("command", ["status", "history", "logs", "revert", "down", "prune"])
def test_what_makes_no_release_needs_nothing_to_make_one_of(command: str, folder: Path):
    """Whoever has to go back is not kept from it by a file that is being edited."""
    (folder / "Dockerfile").unlink()
    told = 'name = "shop"\n[services.web]\nport = 8000\nenv_file = ["gone.env"]\n'
    (folder / "imm.toml").write_text(told)
    assert imm([command], folder).returncode == 4
    assert imm(["up"], folder).returncode == 2


@pytest.mark.parametrize(
    "words",
    [
        ["up", "--wait"],
        ["proxy", "up", "--kind"],
        ["proxy", "up", "--bind"],
        ["proxy", "up", "--pool"],
        ["secret", "set", "TOKEN", "--from"],
        ["status", "-f"],
        ["revert"],
        ["logs", "--release"],
    ],
    ids=" ".join,
)
def test_what_is_typed_is_shown_short_and_without_what_a_terminal_would_obey(words: list[str], folder: Path):
    code, _, complained = typed([*words, "\x1b[31m" + "x" * 3000], folder)
    assert code == 2
    assert "\x1b" not in complained
    assert len(complained) < 400


def test_a_file_that_is_named_oddly_is_written_and_shown_without_what_a_terminal_would_obey(folder: Path):
    code, said, _ = typed(["init", "-f", "\x1b[31mX.toml"], folder)
    assert code == 0 and (folder / "\x1b[31mX.toml").exists()
    assert "\x1b" not in said


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_an_engine_that_is_named_oddly_is_shown_without_what_a_terminal_would_obey(
    command: str, folder: Path
):
    done = imm([command], folder, environment={"DOCKER_HOST": "tcp://\x1b[31mX\x9b31m\u202e"})
    assert done.returncode == 4
    assert not {"\x1b", "\x9b", "\u202e"} & set(done.stdout + done.stderr)
    assert "X" in done.stdout + done.stderr


@pytest.mark.parametrize("number", ["0", "-1", "1_0", "9" * 30, "", "1.0", "x"])
def test_what_is_no_releases_number_is_refused_at_once(number: str, folder: Path):
    for words in (["revert", "--", number], ["logs", f"--release={number}"]):
        code, _, complained = typed(words, folder)
        assert code == 2
        assert "not a release's number" in complained


@pytest.mark.parametrize(
    "words",
    [
        *(["--pool", f"{pool}"] for pool in (
            "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "198.18.0.0/15", "240.0.0.0/4", "255.255.0.0/16",
            "8.0.0.0/8", "10.0.0.0/7", "10.201.0.0/24",
        )),
        *(["--bind", address] for address in ("224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "localhost")),
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_address_that_nothing_can_have_is_refused_at_once(words: list[str], folder: Path):
    assert typed(["proxy", "up", *words], folder)[0] == 2


@pytest.mark.parametrize(
    "words",
    [
        ["--pool", "10.0.0.0/8"],
        ["--pool", "172.16.0.0/12"],
        ["--pool", "192.168.4.0/23"],
        ["--pool", "100.64.0.0/10"],
        ["--bind", "0.0.0.0"],
        ["--bind", "203.0.113.7"],
    ],
    ids=" ".join,
)
def test_an_address_that_a_host_may_have_is_taken(words: list[str], folder: Path):
    """There is no engine to start a proxy on: that is what is said next."""
    assert typed(["proxy", "up", *words], folder)[0] == 4


@pytest.mark.parametrize("command", ["set", "remove"])
def test_a_secret_may_be_named_like_a_command(command: str, folder: Path):
    """`-f` names the file there, too: only the command `logs` has one of its own."""
    code, _, complained = typed(["secret", command, "logs", "-f", "gone.toml"], folder)
    assert code == 2
    assert "there is no gone.toml" in complained


def test_a_completion_that_goes_wrong_is_quiet(folder: Path):
    """It would be told in the middle of the line that somebody types."""
    with patch.dict(os.environ, {"_IMM_COMPLETE": "complete_bash"}):
        assert typed([], folder) == (1, "", "")


@pytest.mark.parametrize("command", ["status", "doctor"])
@pytest.mark.parametrize(
    "address",
    ["tcp://127.0.0.1:99999", "ssh://host:abc", "ssh://host:99999", "ssh://[bad", "ssh://", "ssh://-oX=y"],
)
def test_an_address_that_cannot_be_one_is_an_engine_that_cannot_be_reached(
    address: str, command: str, folder: Path
):
    done = imm([command], folder, environment={"DOCKER_HOST": address})
    assert done.returncode == 4, done
    assert "cannot be reached" in done.stdout + done.stderr


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_certificates_that_are_absent_are_told_with_where_they_belong(command: str, folder: Path):
    asked = {
        "DOCKER_HOST": "tcp://127.0.0.1:2376",
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": str(folder),
    }
    done = imm([command, "--json"], folder, environment=asked)
    assert done.returncode == 4, done
    assert "certificates" in done.stdout and "DOCKER_CERT_PATH" in done.stdout


@pytest.mark.parametrize("command", ["status", "doctor"])
@pytest.mark.parametrize(
    "told", ['{"auths": {"registry": {"auth": "!"}}}', '{"auths": {"registry": 1}}', "[]"]
)
def test_credentials_that_make_no_sense_are_told_and_not_an_engine_that_is_absent(
    told: str, command: str, folder: Path
):
    (folder / "config.json").write_text(told)
    done = imm([command], folder, environment={"DOCKER_CONFIG": str(folder)})
    assert done.returncode == 1, done
    assert "config.json can't be understood" in done.stdout + done.stderr
    assert "docker login" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("told", "what"),
    [
        ('{"currentContext": "gone"}', 'there is no docker context named "gone"'),
        ('{"currentContext": 5}', "currentContext in docker's config.json is no context's name: 5"),
    ],
)
def test_a_context_that_docker_has_not_is_told_by_its_name(told: str, what: str, folder: Path):
    (folder / "config.json").write_text(told)
    unnamed = {"DOCKER_CONFIG": str(folder), "DOCKER_HOST": "", "DOCKER_CONTEXT": ""}
    done = imm(["status"], folder, environment=unnamed)
    assert done.returncode == 4, done
    assert what in done.stderr


def test_ssh_is_to_be_tried_by_hand_as_it_was_tried(folder: Path):
    done = imm(["status"], folder, environment={"DOCKER_HOST": "ssh://me@127.0.0.1:1"})
    assert done.returncode == 4, done
    assert "try it by hand: ssh -p 1 me@127.0.0.1 " in done.stderr


def test_an_engines_address_of_two_lines_is_told_in_one(folder: Path):
    done = imm(["status"], folder, environment={"DOCKER_HOST": "unix:///x\ny"})
    assert done.returncode == 4, done
    assert done.stderr.startswith("error: 'unix:///x\\ny' cannot be reached: ")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["upp"], 'imm: there is no command "upp", did you mean up?'),
        (["rollback"], 'imm: there is no command "rollback", did you mean revert?'),
        (["secret", "rm"], 'imm secret: there is no command "rm", did you mean remove?'),
        (["up", "--wait"], "Option '--wait' requires an argument"),
        (["secret", "set"], "Missing argument 'NAME'"),
    ],
    ids=str,
)
def test_a_slip_of_the_command_line_is_told_in_one_sentence(words: list[str], what: str, folder: Path):
    code, _, complained = typed(words, folder)
    assert code == 2
    assert complained.splitlines()[0] == f"error: {what}; nothing was touched"


def test_an_option_without_its_value_leads_to_its_commands_help(folder: Path):
    done = imm(["up", "--wait"], folder)
    assert "next: imm up --help" in done.stderr


@pytest.mark.parametrize(
    ("line", "what"),
    [(b"\xff\xfe\n", "the value of TOKEN is not UTF-8 text"), (b"\n", "the value of TOKEN is empty")],
    ids=["not UTF-8", "nothing"],
)
def test_a_value_at_the_prompt_is_refused_as_one_of_a_file_is(line: bytes, what: str, folder: Path):
    """What is typed before the prompt is there is thrown away."""
    ours, theirs = pty.openpty()
    try:
        asking = subprocess.Popen(
            [sys.executable, "-m", "immutable_local", "secret", "set", "TOKEN"],
            cwd=folder, env={**os.environ, **NOWHERE}, start_new_session=True,
            stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert asking.stderr is not None
        said = b""
        while not said.endswith(b"value of TOKEN: "):
            letter = asking.stderr.read(1)
            assert letter, said
            said += letter
        os.write(ours, line)
        said += asking.communicate(timeout=60)[1]
    finally:
        os.close(theirs)
        os.close(ours)
    assert asking.returncode == 2, said
    assert what in said.decode()


@pytest.mark.parametrize("command", ["status", "doctor"])
@pytest.mark.parametrize("scheme", ["ssh", "tcp"])
def test_a_password_in_an_engines_address_is_never_told(scheme: str, command: str, folder: Path):
    """Nobody listens there, and the address that is told says where."""
    address = f"{scheme}://root:hunter2@127.0.0.1:1"
    done = imm([command, "--debug"], folder, environment={"DOCKER_HOST": address})
    assert done.returncode == 4, done
    assert f"{scheme}://root@127.0.0.1:1" in done.stdout + done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_a_value_without_an_end_is_too_large_as_soon_as_it_is(folder: Path):
    """Not when the machine's memory is full."""
    for words in ([], ["--from", "/dev/zero"]):
        with open("/dev/zero", "rb") as endless:
            done = imm(["secret", "set", "TOKEN", *words], folder, stdin=endless)
        assert done.returncode == 2
        assert "is larger than 512 KiB" in done.stderr


def test_colours_are_for_terminals_and_not_for_files(folder: Path):
    """Each stream by itself: `imm doctor > file` is typed on a terminal."""
    ours, theirs = pty.openpty()
    try:
        done = imm(["doctor"], folder, stdout=subprocess.PIPE, stderr=theirs, capture_output=False)
    finally:
        os.close(theirs)
        os.close(ours)
    assert "no  engine" in done.stdout


def test_a_reader_that_leaves_early_gets_no_traceback(folder: Path):
    reading, writing = os.pipe()
    os.close(reading)
    done = imm(["--help"], folder, stdout=writing, stderr=subprocess.PIPE, capture_output=False)
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == ""


def test_letters_that_the_terminal_does_not_have_are_written_otherwise(folder: Path):
    (folder / "imm.toml").write_text('name = "shöp"\n')
    done = imm(["plan"], folder, environment={"PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    assert done.returncode == 2
    assert "error: " in done.stderr and "Traceback" not in done.stderr


def test_a_folder_that_is_gone_is_told(tmp_path: Path):
    gone = tmp_path / "gone"
    gone.mkdir()
    command = 'rmdir ../gone && exec "$0" -m immutable_local --json plan'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable], cwd=gone, capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2, done
    assert json.loads(done.stdout)["error"]["code"] in ("config", "usage")


def without_privilege() -> list[str]:
    """Root reads everything, unless it gives up the right to."""
    if os.geteuid() != 0:
        return []
    return [str(shutil.which("setpriv")), "--bounding-set", "-dac_override,-dac_read_search"]


@pytest.mark.parametrize("words", [["plan"], ["init"], ["up"]], ids=" ".join)
def test_a_folder_that_cannot_be_read_is_told(words: list[str], folder: Path):
    (folder / "imm.toml").unlink()
    folder.chmod(0)
    try:
        done = imm(["-f", str(folder / "imm.toml"), *words, "--json"], Path("/"), prefix=without_privilege())
    finally:
        folder.chmod(0o755)
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    assert (done.returncode, error["code"]) in ((2, "config"), (2, "usage"))
    assert "ermission denied" in error["message"] and error["hint"]


@pytest.mark.parametrize(
    "words", [["-f", "closed", "plan"], ["secret", "set", "X", "--from", "closed"]], ids=" ".join
)
def test_a_file_that_cannot_be_read_is_told_with_what_to_do(words: list[str], folder: Path):
    (folder / "closed").touch(mode=0)
    done = imm([*words, "--json"], folder, prefix=without_privilege())
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 2
    assert "read: Permission denied" in error["message"]
    assert error["hint"] in ("check its permissions", "name a file that you may read")


@pytest.mark.parametrize("build", ['context = "closed"', 'dockerfile = "closed/Dockerfile"'])
def test_a_folder_that_cannot_be_entered_is_not_told_as_an_empty_one(build: str, folder: Path):
    (folder / "closed").mkdir(mode=0)
    with (folder / "imm.toml").open("a") as told:
        told.write(f"[build]\n{build}\n")
    done = imm(["plan", "--json"], folder, prefix=without_privilege())
    error = json.loads(done.stdout)["error"]
    assert 'build.dockerfile: "closed/Dockerfile" can\'t be looked at: Permission denied' in error["message"]
    assert error["hint"] == "check the permissions of the folders that lead to it"


def test_a_file_that_cannot_be_written_is_told(folder: Path):
    """As on a full disk: no process of this one may write a byte to a file."""
    (folder / "imm.toml").unlink()
    none = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # noqa: E731
    done = imm(["init", "--json"], folder, preexec_fn=none)
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (2, "usage")
    assert "cannot be written" in error["message"]


# Whatever is typed

WORDS = [
    "init", "plan", "up", "revert", "down", "status", "history", "logs", "prune", "doctor", "secret", "proxy", "run",
    "set", "list", "remove", "--json", "--quiet", "-q", "--no-color", "--file", "-f", "--file=", "--wait", "--fresh",
    "--take-over", "--exit-code", "--follow", "--release", "--tail", "-n", "--kind", "--bind", "--http-port",
    "--https-port", "--pool", "--force", "--from", "--help", "-h", "--version", "--", "-", "", "0", "-1", "1e9",
    "99999999999999999999", "5m", "-5m", "nginx", "traefik", "caddy", "0.0.0.0", "::", "10.0.0.0/8", "10.0.0.0/33",
    "imm.toml", "/", "/dev/null", "/dev/zero", "/proc/self/mem", ".", "..", "TOKEN", "to ken", "../x", "é", "\n",
    "\udcff", "{0}", "%s", "$(id)", "a" * 5000, "--jso", "---", "-fq", "--install-completion=x",
]  # fmt: skip


def typed(words: Sequence[str], folder: Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command line, in this process."""
    said, complained = io.StringIO(), io.StringIO()
    given = io.TextIOWrapper(io.BytesIO(b"value"))
    before = os.getcwd()
    heeded = {each: signal.getsignal(each) for each in ENDING}
    os.chdir(folder)
    try:
        with (
            patch.dict(os.environ, NOWHERE),
            patch.object(sys, "argv", ["imm", *words]),
            patch.object(sys, "stdin", given),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(complained),
            pytest.raises(SystemExit) as ended,
        ):
            cli.main()
    finally:
        os.chdir(before)
        for each, handler in heeded.items():
            # A command ends with its process, and heeds no signal once it is over.
            signal.signal(each, handler)
        vars(asked).update(vars(Globals()))
    code = ended.value.code
    return int(code or 0), said.getvalue(), complained.getvalue()


@settings(max_examples=400)
@given(st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=8)), max_size=7))
@example(["up", "--json", "--wait", "never"])
@example(["proxy", "up", "--pool", "10.0.0.0/33", "--json"])
@example(["-f", "/dev/zero", "plan", "--json"])
@example(["secret", "set", "TOKEN", "--from", "/proc/self/mem", "--json"])
@example(["--json", "--file"])
def test_whatever_is_typed_ends_with_an_exit_code_of_the_contract(words: list[str]):
    """Without an engine: done, a mistake that is told, or no engine; never a traceback, never a bug."""
    with contextlib.ExitStack() as ending:
        folder = Path(os.path.realpath(os.environ.get("TMPDIR", "/tmp"))) / f"imm-typed-{os.getpid()}"
        folder.mkdir()
        ending.callback(shutil.rmtree, folder)
        (folder / "Dockerfile").write_text("FROM scratch\n")
        (folder / "imm.toml").write_text('name = "shop"\n[services.web]\nport = 8000\n')
        code, said, complained = typed(words, folder)
    assert code in (0, 1, 2, 4), (code, said, complained)
    assert "Traceback" not in said + complained
    if "--json" in itertools.takewhile(lambda word: word != "--", words) and code:
        assert said or code == 1, complained
    for line in said.splitlines() if "--json" in words and code else []:
        told = json.loads(line)
        assert told["error"]["code"] in {*RAISED} - {"bug", "machine_refused"}, told
        assert told["error"]["hint"]
    if code == 1:
        assert "aborted" in complained.lower() or "error: " in complained


# On the engine


@pytest.fixture(scope="module")
def live(shared: Host) -> Project:
    app = shared.project()
    shared.up(app)
    return app


def test_an_image_that_cannot_be_pulled_is_told_with_its_key(shared: Host, live: Project):
    app = shared.project()
    app.settings["services"] = {}
    app.service("db", image="127.0.0.1:9/nobody/nothing:1")
    with shared.nothing_left_over():
        error = shared.up(app, expect=1).error
    assert error["code"] == "no_image"
    assert "services.db.image" in error["message"]
    assert error["details"] and "docker login" in error["hint"]


def test_a_broken_record_is_told_with_its_path_and_nothing_is_read_past_it(shared: Host, live: Project):
    find = f"import glob; [path] = glob.glob('/imm/state/data/ledger/{live.name}/00000001-*')\n"
    change = "content = open(path).read()\nopen(path, 'w').write({})"
    spoil, mend = (find + change.format(how) for how in ("content + ' '", "content.rstrip()"))
    assert shared.execute("imm-sidecar", "python3", "-c", spoil) == (0, "")
    try:
        for words in (["history"], ["status"], ["up"], ["revert"]):
            error = shared.imm(live, *words, expect=1).error
            assert error["code"] == "broken_state"
            assert f"/ledger/{live.name}/00000001-" in error["message"]
    finally:
        assert shared.execute("imm-sidecar", "python3", "-c", mend) == (0, "")
    assert shared.get("/version", live) == "1"
    assert shared.history(live)


def test_what_the_sidecar_can_not_do_is_told_with_its_reason(shared: Host, live: Project, machine):
    from immutable_local.engine import connect

    with Session.begin(connect(), "imm-sidecar") as session, pytest.raises(errors.ImmError) as refused:
        session.ask("ledger_read", app="../secrets")
    assert refused.value.code == "sidecar_refused"


def test_what_the_engine_refuses_is_told_in_its_words(shared: Host, live: Project):
    from immutable_local.engine import connect

    with pytest.raises(errors.EngineRefused) as refused:
        connect().start("there-is-no-such-container")
    assert refused.value.code == "engine_refused"
    assert "there-is-no-such-container" in refused.value.message


def test_a_flip_that_cannot_be_proved_is_undone(shared: Host, live: Project):
    """Here nobody can ask where the proxy says who answered."""
    run = "/imm/proxy/data/run"
    with shared.nothing_left_over():
        assert shared.execute("imm-proxy", "mv", f"{run}/front.sock", f"{run}/away")[0] == 0
        try:
            outcome = shared.up(live.version("2"), expect=1)
        finally:
            assert shared.execute("imm-proxy", "mv", f"{run}/away", f"{run}/front.sock")[0] == 0
            live.version("1")
    assert outcome.error["code"] == "proxy_failed"
    assert outcome.error["still"] == "release 1 is still live"
    assert outcome.states("flip") == ["failed"]
    assert shared.get("/version", live) == "1"


def test_a_build_that_finds_no_space_here_is_told_and_leaves_nothing(shared: Host, live: Project):
    """The engine's own builder is fed from a file of this machine."""
    path = os.pathsep.join(each for each in os.get_exec_path() if not (Path(each) / "docker").exists())
    no_space = [str(shutil.which("prlimit")), "--fsize=0"]
    with shared.nothing_left_over():
        outcome = shared.up(live.version("3"), expect=1, prefix=no_space, PATH=path)
    live.version("1")
    assert outcome.error["code"] == "machine_refused"
    assert outcome.error["still"] == "release 1 is still live"


@pytest.mark.parametrize("builder", ["command line", "engine"])
def test_a_file_of_the_context_that_cannot_be_read_is_told(shared: Host, live: Project, builder: str):
    unreadable = live.folder / "private"
    unreadable.write_text("x")
    unreadable.chmod(0)
    path = os.environ["PATH"]
    if builder == "engine":
        path = os.pathsep.join(each for each in os.get_exec_path() if not (Path(each) / "docker").exists())
    dockerfile = (live.folder / "Dockerfile").read_text()
    try:
        live.dockerfile(dockerfile + "COPY private /private\n")
        with shared.nothing_left_over():
            outcome = shared.up(live, expect=1, prefix=without_privilege(), PATH=path)
    finally:
        unreadable.unlink()
        live.dockerfile(dockerfile)
    assert outcome.error["code"] in ("build_failed", "machine_refused")
    assert "private" in outcome.error["message"]
    assert "Traceback" not in outcome.stderr


def test_a_deployment_goes_on_when_nobody_reads_what_it_tells(shared: Host, live: Project):
    """imm up --json | head -1: who stops reading stops nothing."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        shared.command(live.version("4", healthcheck=HEALTHCHECK), "up"),
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=live.folder,
        check=False,
        timeout=60,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
    assert shared.get("/version", live) == "4"
