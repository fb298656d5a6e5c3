"""Every error a user can meet, with its exit code.

    ImmError                     1  it failed; what was live is still live, after a flip the new release
    ├── UsageError               2  the command line; nothing was touched
    │   └── ConfigError          2  imm.toml: the key's path, the line, a suggestion
    ├── Locked                   3  another deployment holds the lock: who, from where, since when
    │   └── HostLocked           3  another command changes the proxy's routes, and doesn't end
    ├── EngineError              4  the engine cannot be reached, or refuses this user
    ├── EngineRefused            1  the engine answers, and said no to one request
    ├── CredentialsError         1  docker's credentials for registries can't be read on this machine
    ├── BuildFailed              1  the image could not be built
    ├── Unhealthy                1  the new release did not become healthy
    ├── FlippedBack              1  the new release went wrong while it was watched; the old one is live again
    ├── Superseded               1  another command made something else live while the new release was watched
    ├── ProxyError               1  the proxy could not be started, changed or confirmed
    ├── SessionLost              1  the sidecar's session ended in the middle
    └── NotFound                 1  the app, release or log asked for isn't there

Each error says what failed (`message`), what is known beside it (`details`: facts, one a line), what is
still true (`still`, else its kind's `otherwise`), and what to do next (`hint`). `code` is stable: programs
may compare it. docs/errors.md lists every code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

FREE_SPACE = (
    "free space on the engine's host (docker system df, docker builder prune, imm prune),"
    " then run the command again"
)


def shown(value: object) -> str:
    """A value as an error shows it: short, and nothing in it that a terminal would obey."""
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a number of more than 18 digits"
    told = f'"{value}"' if isinstance(value, str) and value.isprintable() else repr(value)
    return told if len(told) <= 80 else f"{told[:76]}..."


class Fact(str):
    """A detail that the history keeps. What an application or a builder printed may hold a secret, and is
    only told."""


class ImmError(Exception):
    """The root of the tree: something failed, and what was live is still live."""

    exit_code = 1
    # Whoever raises the root of the tree names a code.
    code = "bug"
    # What is still true where nobody knows it more exactly.
    otherwise = "what was live is still live"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        details: Sequence[str] = (),
        still: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = list(details)
        self.still = still
        self.hint = hint
        # Whether a program was told already, in the last line of its JSON.
        self.told = False
        if code is not None:
            self.code = code

    @property
    def facts(self) -> list[str]:
        """The details that may be kept."""
        return [each for each in self.details if isinstance(each, Fact)]

    @property
    def stands(self) -> str:
        """What is still true; empty when the message says so itself."""
        still = self.still or self.otherwise
        return "" if still in self.message else still

    def as_json(self) -> dict[str, object]:
        """The error as the contract's `error` object."""
        told: dict[str, object] = {"code": self.code, "message": self.message, "hint": self.hint}
        if self.details:
            told["details"] = self.details
        if self.stands:
            told["still"] = self.stands
        return told


class UsageError(ImmError):
    """The command line asks for something that makes no sense; nothing was touched."""

    exit_code = 2
    code = "usage"
    otherwise = "nothing was touched"


class ConfigError(UsageError):
    """imm.toml is wrong; nothing was touched. The message starts with the key's path.

    `key`: that path, where whoever found it out doesn't know the file, and so not the line.
    """

    code = "config"

    def __init__(self, message: str, *, key: Sequence[str] = (), **rest: Any) -> None:
        super().__init__(message, **rest)
        self.key = tuple(key)


class Locked(ImmError):
    """Another deployment of this app is at work."""

    exit_code = 3
    code = "locked"
    otherwise = "nothing was touched"


class HostLocked(Locked):
    """Another command holds the host's own lock, for longer than anybody needs it; found in the middle."""

    otherwise = "what was live is still live"


class EngineError(ImmError):
    """The engine cannot be reached, or refuses this user."""

    exit_code = 4
    code = "engine_unreachable"
    otherwise = "what runs there goes on running"


class EngineRefused(ImmError):
    """The engine answers, and refused one request."""

    code = "engine_refused"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int = 0,
        explanation: str = "",
        hint: str = "imm doctor looks closer; the next command sweeps what this one left",
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.status = status
        self.explanation = explanation


class CredentialsError(ImmError):
    """Docker's config holds credentials that make no sense, or names a helper that is absent or fails."""

    code = "credentials"


class BuildFailed(ImmError):
    """The image could not be built; `details` holds the last lines of the builder's output."""

    code = "build_failed"


class Unhealthy(ImmError):
    """The new release did not become healthy in time, or its container ended."""

    code = "unhealthy"


class FlippedBack(ImmError):
    """The new release went wrong after the flip, while it was watched; `still` says what is live."""

    code = "flipped_back"


class Superseded(ImmError):
    """What this command made live isn't any more, by another command's doing, which tells the rest."""

    code = "superseded"


class ProxyError(ImmError):
    """The host's proxy could not be started, changed or confirmed."""

    code = "proxy_failed"


class SessionLost(ImmError):
    """The session with the sidecar ended: lock, ledger and flip went with it."""

    code = "session_lost"


class NotFound(ImmError):
    """What was asked for isn't there."""

    code = "not_found"
    otherwise = "nothing was touched"


def name_taken(kind: str, name: str, owner: str = "", mine: str = "") -> ImmError:
    """A container, volume or network that isn't the one meant has a name that imm needs.

    `owner`: whose it is, where imm made it for another app. `mine`: what imm.toml could name otherwise.
    """
    made = f"that imm made for {owner}" if owner else "that imm did not make"
    if owner:
        hint = f"give {mine} another name in imm.toml, and leave that {kind} as it is"
    elif kind == "container":
        hint = f"docker rename {name} {name}-before, or docker rm -f {name}, then run the command again"
    elif mine:
        hint = (
            f"give {mine} another name in imm.toml, or copy that one's data elsewhere and remove it by hand"
        )
    else:
        hint = (
            f"a {kind} can't be renamed; if nothing uses it and nobody needs it: docker {kind} rm {name},"
            " then run the command again"
        )
    return ImmError(f"there is a {kind} named {name} {made}", code="name_taken", hint=hint)
