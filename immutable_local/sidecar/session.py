"""The session that drives the sidecar: a lock while it lives, the only way to flip or to write the ledger."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from immutable_local.errors import FREE_SPACE, ImmError, Locked, SessionLost
from immutable_local.sidecar.hands.start import START, packed

if TYPE_CHECKING:
    from immutable_local.engine import Engine

BEAT_SECONDS = 2.0
ANSWER_SECONDS = 30.0
# What changes something is answered within this; what takes longer only waits, or asks.
INTERRUPTED_SECONDS = 1.0
# A sidecar that doesn't let go by then is gone, and lets go so.
LETTING_GO_SECONDS = 5.0
HOLDS = ("lock", "count")
STDOUT = 1
# The public Python images come without compiled modules: compiling them anew costs each session 60 ms.
COMPILED = "pycache_prefix=/tmp/compiled"
COMMAND = ("python3", "-IS", "-X", COMPILED, "-c", START)
FOLDER = Path(__file__).parent
PROGRAM = "immutable_local.sidecar.program"


class Session:
    """One `exec` of the sidecar's program. Asking is safe from several threads, telling is for one."""

    def __init__(self, attached: Any) -> None:
        """`attached` is the connection to an `exec` of COMMAND, which reads what to run from there."""
        # The SDK's object closes the connection when it is collected: it is kept as long as the session.
        self._attached = attached
        self._socket = getattr(attached, "_sock", attached)
        self._socket.settimeout(None)
        self._answers: dict[int, Future[Any]] = {}
        # What was told last, and the answer to it, which is on its way.
        self._told: tuple[str, Future[Any]] | None = None
        self._number = 0
        self._sending = threading.Lock()
        self._ended = threading.Event()
        self._complaint = ""
        self._holds = False
        try:
            self._socket.sendall(packed(PROGRAM, _sources()))
        except OSError as cut:
            raise self._lost("begin") from cut
        threading.Thread(target=self._read, daemon=True, name="imm-session").start()
        threading.Thread(target=self._beat, daemon=True, name="imm-heartbeat").start()

    @classmethod
    def begin(cls, engine: Engine, sidecar: str) -> Self:
        return cls(engine.attach(sidecar, COMMAND))

    @property
    def ended(self) -> bool:
        """Whether it has ended, by itself too."""
        return self._ended.is_set()

    def ask(self, do: str, *, within: float = ANSWER_SECONDS, **told: Any) -> Any:
        """One thing asked of the sidecar, and its answer, waited for `within` seconds at most.

        Raises Locked, SessionLost, or ImmError with what the sidecar said.
        """
        return self._awaited(self._send(do, told), do, within)

    def tell(self, do: str, **told: Any) -> None:
        """Say something that the sidecar does at once, before all that is asked later; nobody waits for it.

        When it fails, the next thing told raises that, and is said all the same: by then an answer has been
        on its way for a while.
        """
        before, self._told = self._told, (do, self._send(do, told))
        if before is not None:
            done, answer = before
            self._awaited(answer, done, ANSWER_SECONDS)

    def _send(self, do: str, told: Mapping[str, Any]) -> Future[Any]:
        answer: Future[Any] = Future()
        self._holds = self._holds or do in HOLDS
        with self._sending:
            if self._ended.is_set():
                raise self._lost(do)
            self._number += 1
            self._answers[self._number] = answer
            line = json.dumps({"id": self._number, "do": do, **told}).encode() + b"\n"
            try:
                self._socket.sendall(line)
            except OSError as cut:
                raise self._lost(do) from cut
        return answer

    def _awaited(self, answer: Future[Any], do: str, within: float) -> Any:
        try:
            return answer.result(timeout=within)
        except KeyboardInterrupt:
            # What was asked is being done there: what undoes it must not overtake it.
            wait([answer], timeout=INTERRUPTED_SECONDS)
            raise
        except TimeoutError as late:
            self._cut()
            raise SessionLost(
                f"the sidecar did not answer within {within:.0f} s ({do})",
                hint="run the command again: it first sweeps what this one left",
            ) from late

    def close(self) -> None:
        """End it. What it held is free when this returns, as another command may come at once."""
        if self._holds and not self._ended.is_set():
            with suppress(SessionLost):
                self.ask("let_go", within=LETTING_GO_SECONDS)
        self._cut()

    def _cut(self) -> None:
        self._ended.set()
        with suppress(OSError):
            # Closing alone would not wake the thread that reads.
            self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        buffer = b""
        try:
            while True:
                stream, content = self._frame()
                if stream != STDOUT:
                    self._complaint = (self._complaint + content.decode(errors="replace"))[-4000:]
                    continue
                *lines, buffer = (buffer + content).split(b"\n")
                for line in lines:
                    self._settle(json.loads(line))
        except (OSError, EOFError, ValueError):
            pass
        finally:
            self._ended.set()
            for number in list(self._answers):
                self._answers.pop(number).set_exception(self._lost("answer"))

    def _frame(self) -> tuple[int, bytes]:
        stream, length = struct.unpack(">BxxxL", self._exactly(8))
        return stream, self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        parts = []
        while length:
            part = self._socket.recv(min(length, 65536))
            if not part:
                raise EOFError
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def _settle(self, told: Mapping[str, Any]) -> None:
        answer = self._answers.pop(told["id"], None)
        if answer is None:
            return
        if "error" in told:
            answer.set_exception(_refused(told["error"]))
        else:
            answer.set_result(told["ok"])

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                self.ask("beat")
            except ImmError:
                return

    def _lost(self, do: str) -> SessionLost:
        return SessionLost(
            f"the connection to the sidecar ended ({do})",
            details=self._complaint.strip().splitlines()[-5:],
            hint="run the command again: it first sweeps what this one left",
        )


def _sources() -> dict[str, str]:
    """What runs in the sidecar, by the names that it has here."""
    package = PROGRAM.rpartition(".")[0]
    sources = dict.fromkeys((package.partition(".")[0], package, f"{package}.hands"), "")
    for path in (FOLDER / "hands").glob("[a-z]*.py"):
        sources[f"{package}.hands.{path.stem}"] = path.read_text()
    return {**sources, PROGRAM: (FOLDER / "program.py").read_text()}


def _broken(path: Path, reason: str) -> ImmError:
    """A file of imm's state isn't what was written: what to do depends on what it was."""
    _, _, volume, _, kind, *inside = path.parts
    app = inside[0] if inside else ""
    if kind == "secrets":
        hint = f"imm secret set {path.name}, for {app}, gives it a value again"
    elif kind == "apps":
        hint = (
            f"requests to {app} are answered as before. To get it in hand again:"
            f" docker exec imm-sidecar rm -r /{'/'.join(path.parts[1:5])}/{app}, then imm up in its folder;"
            f" from the one to the end of the other nobody reaches {app}"
        )
    else:
        away = "-".join(("broken", kind, *inside))
        hint = f"docker exec imm-sidecar mv {path} /imm/state/data/{away}, then run the command again"
    return ImmError(f"{path} in the volume imm-{volume} is broken: {reason}", code="broken_state", hint=hint)


def _refused(told: Mapping[str, Any]) -> ImmError:
    kind = told["kind"]
    if kind == "locked":
        holder = told["holder"]
        return Locked(
            f"{holder.get('command', 'another deployment')} by {holder.get('by', 'somebody')}"
            f" from {holder.get('from', 'somewhere')} holds the lock since {holder.get('since', 'just now')}",
            hint="wait for it with --wait 5m; if its client is gone, the lock frees itself within 10 s",
        )
    if kind == "disk_full":
        return ImmError(
            f"the disk under imm's state is full ({told['path']})",
            code="disk_full",
            hint=FREE_SPACE,
        )
    if kind == "broken_file":
        return _broken(Path(told["path"]), told["reason"])
    if kind == "left_behind":
        return SessionLost(
            "the proxy was restarted meanwhile, and the sidecar doesn't see its networks any more",
            hint="run the command again: it first brings the sidecar back",
        )
    if kind == "not_locked":
        return SessionLost("the lock was lost", hint="run the command again")
    if kind == "not_parked":
        reason = f"no request to {told['service']} of {told['app']} can be held: what holds them ended"
    elif kind == "bad_name":
        reason = f"{told['name']!r} is no name that a file of imm's state can have"
    else:
        reason = told["reason"]
    return ImmError(
        f"the sidecar could not do what it was asked: {reason}",
        code="sidecar_refused",
        hint="imm doctor looks closer; docker rm -f imm-sidecar and imm proxy up make the sidecar anew",
    )
