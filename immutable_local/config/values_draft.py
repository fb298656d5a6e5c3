LABEL = r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
SEGMENT = r"[A-Za-z0-9._~-]+"

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


def _name(most: int) -> Kind[str]:
    return text(
        f"a name of a-z, 0-9 and '-', 1 to {most} long, that starts with a letter and doesn't end with '-'",
        rf"[a-z]([a-z0-9-]{{0,{most - 2}}}[a-z0-9])?",
    )


def _domain(told: str) -> str:
    if "*" in told:
        raise Wrong(Finding("a wildcard is not supported yet", "name each domain", code="not_supported"))
    if re.fullmatch(rf"{LABEL}(\.{LABEL})*", told):
        return told.lower()
    hint = "write the host name alone: no http://, no port, no path"
    if not told.isascii():
        try:
            hint = f"write {shown(told.encode('idna').decode())}"
        except UnicodeError:
            hint = "write it in its ASCII form, which starts with xn--"
    raise Wrong(Finding(f"must be a host name like shop.example.com, not {shown(told)}", hint))


def _prefix(told: str) -> str:
    if not re.fullmatch(rf"/|(/{SEGMENT})+/?", told) or {".", ".."} & set(told.split("/")):
        hint = "letters, digits and . _ ~ - between single slashes; no query, no '..'"
        raise Wrong(Finding(f"must be a path like /api, not {shown(told)}", hint))
    return told.rstrip("/") or "/"


def _container_path(told: str) -> str:
    if {".", ".."} & set(told.split("/")):
        raise Wrong(Finding(f"must be a path without '.' and '..', not {shown(told)}"))
    path = "/" + "/".join(part for part in told.split("/") if part)
    if path == "/" or re.match(r"/(proc|sys|dev|run/secrets)(/|$)", path):
        raise Wrong(Finding(f"must be another path than {path}, which belongs to the system or to imm"))
    return path


def _tmpfs(told: str) -> str:
    if ":" in told:
        raise Wrong(
            Finding("options of a tmpfs are not supported yet", "write the path alone", code="not_supported")
        )
    return _container_path(CONTAINER_PATH.read(told))


def _mount(told: str) -> Mount:
    source, _, rest = told.partition(":")
    if re.match(r"[/.~]|[A-Za-z]:[/\\]", told) or "/" in source or "\\" in source:
        hint = 'write "NAME:/path"; a host path would tie the release to one machine'
        raise Wrong(Finding(f"must mount a named volume, not the host path {shown(told)}", hint))
    path, _, mode = rest.partition(":")
    if mode:
        raise Wrong(
            Finding(
                f"the mode {shown(mode)} is not supported yet", 'write "NAME:/path"', code="not_supported"
            )
        )
    VOLUME_NAME.read(source)
    path = _container_path(CONTAINER_PATH.read(path))
    if path == "/tmp":
        raise Wrong(Finding("must be another path than /tmp, which is for what may be lost"))
    return Mount(source, path)


def _capability(told: str) -> str:
    name = told.upper().removeprefix("CAP_")
    if name not in CAPABILITIES:
        raise Wrong(Finding(f"must be a capability of Linux, not {shown(told)}{meant(name, CAPABILITIES)}"))
    return name


def _status(value: object) -> tuple[int, int]:
    one = whole(100, 599)
    if isinstance(value, int):
        return one.read(value), one.read(value)
    if not isinstance(value, list) or len(value) != 2:
        raise mismatch("a status like 200, or the first and the last of a range like [200, 299]", value)
    first, last = (one.read(each) for each in value)
    if first > last:
        raise Wrong(
            Finding(f"must be a range from low to high, not [{first}, {last}]", f"write [{last}, {first}]")
        )
    return first, last


def _healthcheck(given: dict[str, object]) -> HealthCheck:
    if "path" in given and "command" in given:
        raise Wrong(
            Finding("a health check has either a path or a command", "remove one of them", ("command",))
        )
    if "status" in given and "path" not in given:
        raise Wrong(Finding("a status needs a path to ask for", 'add path = "/"', ("status",)))
    if "path" in given:
        given = {"status": (200, 299), **given}
    return HealthCheck(**given)  # type: ignore[arg-type]


def _health_command(words: tuple[str, ...]) -> tuple[str, ...]:
    if words[0] in ("CMD", "CMD-SHELL", "NONE"):
        hint = 'write the program first: ["pg_isready"], or ["sh", "-c", "..."] for a shell'
        raise Wrong(Finding(f"must start with a program, not with {words[0]}", hint))
    return words


def _user(told: str) -> str:
    if any(part.isdigit() and int(part) > 2**31 - 1 for part in told.split(":")):
        raise Wrong(Finding("must have numbers up to 2147483647"))
    return told


APP_NAME = _name(40)
SERVICE_NAME = _name(30)
VOLUME_NAME = text("a volume's name of letters, digits and . _ -", r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,59}")
CONTAINER_PATH = text("an absolute path in the container", r"/[^:,\u0000-\u001f\u007f]*", most=255)
FILE = text("a path inside the folder of imm.toml", r"[^\u0000-\u001f\u007f]+", most=1000)
IMAGE = text(
    'an image like "postgres:16"',
    # The grammar of github.com/distribution/reference.
    rf"({LABEL}(\.{LABEL})*(:[0-9]+)?/)?"
    r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?",
    most=255,
)
HEALTH_PATH = text(
    'a path like "/up"', r"/[A-Za-z0-9._~%/?&=+,:@!*-]*", most=1000, hint="percent-encode other characters"
)
USER = text(
    'a user like "1000:1000" or "app"', r"[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?", most=65
)

