"""What single values of imm.toml may be: names, addresses, paths, mounts, images, capabilities.

Domains and paths reach the proxy's configuration: their alphabets hold nothing that could end a word in it.
"""

from __future__ import annotations

import re
from dataclasses import replace

from immutable_local.app import Mount
from immutable_local.config.findings import Finding, Wrong
from immutable_local.config.kinds import Kind, meant, mismatch, text, whole
from immutable_local.errors import shown

# Of Linux 6.x, from capabilities(7).
# fmt: off
CAPABILITIES = (
    "AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE", "CHOWN",
    "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE",
    "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE",
    "NET_BROADCAST", "NET_RAW", "PERFMON", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYSLOG",
    "SYS_ADMIN", "SYS_BOOT", "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE",
    "SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "WAKE_ALARM",
)
# fmt: on

_LABEL = r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_HOST = rf"{_LABEL}(\.{_LABEL})*"
_SEGMENT = r"(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+"
_NO_CONTROL = r"[^\u0000-\u001f\u007f-\u009f]"
_VOLUME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,59}"
_IN_CONTAINER = r"/[^:,\u0000-\u001f\u007f-\u009f]*"
# The last three are files that the engine writes.
_NOT_THEIRS = r"proc|sys|dev|run/secrets|etc/(hosts|hostname|resolv\.conf)"
_REPOSITORY = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_ACCOUNT = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"


def name_from(told: str, most: int, before: str = "app") -> str:
    """The name closest to what somebody wrote; "" if nothing of it can be in a name.

    `before` stands before what doesn't start with a letter.
    """
    name = re.sub(r"[^a-z0-9]+", "-", told.lower()).strip("-")
    name = name if name[:1].isalpha() or not name else f"{before}-{name}"
    return name[:most].rstrip("-")


def name(most: int, before: str = "app") -> Kind[str]:
    """A name of an app or a service, that is also good in host names and in names of containers."""
    form = text(
        f"a name of a-z, 0-9 and '-', 1 to {most} long, that starts with a letter and doesn't end with '-'",
        rf"[a-z]([a-z0-9-]{{0,{most - 2}}}[a-z0-9])?",
    )

    def read(value: object) -> str:
        try:
            return form.read(value)
        except Wrong as wrong:
            better = name_from(value, most, before) if isinstance(value, str) else ""
            hint = f'for example "{better}"' if better else ""
            raise Wrong(*(replace(finding, hint=hint) for finding in wrong.findings)) from None

    return Kind(read, form.schema)


_host = text(
    "a host name like shop.example.com",
    _HOST,
    most=253,
    hint="write the host name alone, of letters, digits, '-' and single dots: no http://, no port, no path",
)


def _domain(value: object) -> str:
    if isinstance(value, str) and "*" in value:
        raise Wrong(Finding("a wildcard is not supported yet", "name each domain", code="not_supported"))
    if isinstance(value, str) and not value.isascii():
        try:
            hint = f"write {shown(_host.read(value.encode('idna').decode()))}"
        except (UnicodeError, Wrong):
            hint = "write the host name alone, in its ASCII form, which starts with xn--"
        raise Wrong(Finding(f"must be a host name in ASCII, not {shown(value)}", hint))
    return _host.read(value).lower()


DOMAIN = Kind(_domain, _host.schema)


def _from_the_root(form: Kind[str]) -> Kind[str]:
    """Where nothing but the slash before it is missing, that is advised."""

    def read(value: object) -> str:
        try:
            return form.read(value)
        except Wrong as wrong:
            # What has a host before it is no path that lacks a slash.
            if not isinstance(value, str) or {".", ":"} & set(value.partition("/")[0]):
                raise
            try:
                form.read(f"/{value}")
            except Wrong:
                raise wrong from None
            hint = f"write {shown(f'/{value}')}"
            raise Wrong(*(replace(finding, hint=hint) for finding in wrong.findings)) from None

    return Kind(read, form.schema)


PREFIX = _from_the_root(
    text(
        "a path prefix like /api",
        rf"/|(/{_SEGMENT})+/?",
        most=200,
        hint="letters, digits and . _ ~ - between single slashes; no query, no '..'",
    )
).then(lambda path: path.rstrip("/") or "/")

HEALTH_PATH = _from_the_root(
    text(
        "a path like /up",
        r"/[A-Za-z0-9._~%/?&=+,:@!*-]*",
        most=1000,
        hint="write the path alone, with no host before it; percent-encode other characters",
    )
)


def _container_path(told: str) -> str:
    parts = [part for part in told.split("/") if part]
    path = "/" + "/".join(parts)
    if not told.isprintable():
        raise Wrong(Finding(f"must be a path of printable characters, not {shown(told)}"))
    if {".", ".."} & set(parts):
        raise Wrong(Finding(f"must be a path without '.' and '..', not {shown(told)}"))
    if re.match(rf"/(|({_NOT_THEIRS})(/.*)?)$", path):
        raise Wrong(Finding(f"must be another path than {path}, which belongs to the system or to imm"))
    return path


CONTAINER_PATH = text("an absolute path in the container", _IN_CONTAINER, most=255).then(_container_path)


def _tmpfs(value: object) -> str:
    if isinstance(value, str) and ":" in value:
        hint = "write the path alone"
        raise Wrong(Finding("options of a tmpfs are not supported yet", hint, code="not_supported"))
    return CONTAINER_PATH.read(value)


TMPFS = Kind(_tmpfs, CONTAINER_PATH.schema)

VOLUME_NAME = text("a volume's name of letters, digits and . _ -, 60 long at most", _VOLUME)


def _mount(value: object) -> Mount:
    if not isinstance(value, str):
        raise mismatch('a string like "data:/data"', value)
    # C:\data, C:/data:/data and file:///data have a colon of their own.
    elsewhere = re.match(r"[A-Za-z]:(\\[^:]*|/[^:]*(?=:/))|[A-Za-z]+://[^:]*", value)
    source = elsewhere[0] if elsewhere else value.partition(":")[0]
    path, colon, mode = value[len(source) + 1 :].partition(":")
    how = 'write "NAME:/path"'
    if elsewhere or re.search(r"^[.~]|[/\\]", source):
        hint = f"{how}: a host's path would tie the release to one machine"
        raise Wrong(Finding(f"must mount a named volume, not the host path {shown(source)}", hint))
    if not path or (colon and not mode) or mode.startswith("/"):
        raise Wrong(Finding(f"must be a volume and a path in the container, not {shown(value)}", how))
    if mode:
        raise Wrong(Finding(f"the mode {shown(mode)} is not supported yet", how, code="not_supported"))
    mount = Mount(VOLUME_NAME.read(source), CONTAINER_PATH.read(path))
    if mount.path == "/tmp":
        raise Wrong(Finding("must be another path than /tmp, which is for what may be lost"))
    return mount


MOUNT = Kind(_mount, {"type": "string", "pattern": f"^{_VOLUME}:{_IN_CONTAINER}$"})

FILE = text("a path inside the folder of imm.toml", rf"{_NO_CONTROL}+", most=1000)


def _image(told: str) -> str:
    """What has the form of a name, and is none to any engine."""
    port = re.match(r"[^/]*:([0-9]+)/", told)
    if told == "scratch" or re.fullmatch("[0-9a-f]{64}", told) or (port and int(port[1]) > 65535):
        hint = "write NAME:TAG, or REGISTRY/NAME:TAG"
        raise Wrong(Finding(f"must be an image that has a name, not {shown(told)}", hint))
    return told


IMAGE = text(
    "an image like postgres:16",
    # The grammar of github.com/distribution/reference.
    rf"({_HOST}(:[0-9]+)?/)?{_REPOSITORY}(/{_REPOSITORY})*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?",
    most=255,
    hint="write NAME:TAG, or REGISTRY/NAME:TAG, with the name in lower case",
).then(_image)

STAGE = text("a stage of the Dockerfile", r"[A-Za-z0-9][A-Za-z0-9_.-]*", most=128)

SECRET_NAME = text("a name like DATABASE_URL", r"[A-Za-z_][A-Za-z0-9_]{0,99}")


def _user(told: str) -> str:
    if any(part.isdigit() and int(part) > 2**31 - 1 for part in told.split(":")):
        raise Wrong(Finding("must have numbers up to 2147483647"))
    return told


_account = text('a user like "1000:1000" or "app"', rf"{_ACCOUNT}(:{_ACCOUNT})?", most=65)
USER = replace(_account.then(_user), unit="")


def _capability(told: str) -> str:
    name = told.upper().removeprefix("CAP_")
    if name not in CAPABILITIES:
        hint = "name each that is needed" if name == "ALL" else ""
        unknown = f"must be a capability of Linux, not {shown(told)}{meant(name, CAPABILITIES)}"
        raise Wrong(Finding(unknown, hint))
    return name


# Editors offer the names as they are; other spellings of them are told apart by what is in them.
_OTHER_SPELLING = {"type": "string", "pattern": "^(CAP_|(?=.*[a-z]))[A-Za-z_]+$"}
CAPABILITY = Kind(
    text("a capability of Linux", r"[A-Za-z_]+", most=40).then(_capability).read,
    {"anyOf": [{"enum": list(CAPABILITIES)}, _OTHER_SPELLING]},
)

_code = whole(100, 599)


def _status(value: object) -> tuple[int, int]:
    if isinstance(value, int):
        return _code.read(value), _code.read(value)
    if not isinstance(value, list) or len(value) != 2:
        raise mismatch("a status like 200, or the first and the last of a range like [200, 299]", value)
    first, last = (_code.read(each) for each in value)
    if first > last:
        raise Wrong(
            Finding(f"must be a range from low to high, not [{first}, {last}]", f"write [{last}, {first}]")
        )
    return first, last


_range = {"type": "array", "items": _code.schema, "minItems": 2, "maxItems": 2}
STATUS = Kind(_status, {"anyOf": [_code.schema, _range]})
