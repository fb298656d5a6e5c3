"""Every key that imm.toml may have: the one place for its kind, its range and its meaning."""

from __future__ import annotations

import re

from immutable_local.app import HealthCheck, Mount
from immutable_local.config.findings import Finding, Wrong
from immutable_local.config.kinds import (
    ANYTHING,
    TRUTH,
    Kind,
    duration,
    meant,
    mismatch,
    number,
    one_of,
    shown,
    size,
    text,
    whole,
)
from immutable_local.config.tables import ENTRIES, WORDS, Key, list_of, table, tables

DAY = 86400.0
LABEL = r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
SEGMENT = r"[A-Za-z0-9._~-]+"

# Capabilities of Linux 6.x, from capabilities(7).
CAPABILITIES = tuple(
    """AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE
    DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD
    NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN
    SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG WAKE_ALARM""".split()
)


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

BUILD = table(
    {
        "context": Key(FILE, 'the folder that the build may copy from; default "."'),
        "dockerfile": Key(FILE, 'the Dockerfile, from the context on; default "Dockerfile"'),
        "target": Key(
            text("a stage of the Dockerfile", r"[A-Za-z0-9][A-Za-z0-9_.-]*", most=128),
            "the stage to build; default: the last",
        ),
        "args": Key(ENTRIES, "build arguments; no secrets, they show in the image's history"),
    },
    {"file": "dockerfile", "path": "context", "arguments": "args", "stage": "target"},
)

HEALTHCHECK = table(
    {
        "path": Key(HEALTH_PATH, "ask for this path; healthy is an answer with a status within `status`"),
        "command": Key(WORDS.then(_health_command), "run this inside the container; healthy is exit code 0"),
        "interval": Key(duration(0.01, DAY), 'the time between two checks; default "500ms"'),
        "timeout": Key(duration(0.01, DAY), 'how long one check may take; default "5s"'),
        "start_period": Key(duration(0.1, DAY), 'by when an instance must be healthy; default "60s"'),
        "status": Key(
            Kind(
                _status,
                {
                    "anyOf": [
                        whole(100, 599).schema,
                        {"type": "array", "items": whole(100, 599).schema, "minItems": 2, "maxItems": 2},
                    ]
                },
            ),
            "the status, or the first and the last of a range; default [200, 299]",
        ),
    },
    {"test": "command", "cmd": "command", "url": "path", "uri": "path", "deadline": "start_period"},
).then(_healthcheck)

SERVICE = table(
    {
        "port": Key(whole(1, 65535), "what the process listens on; the proxy sends traffic there"),
        "domains": Key(
            list_of(text("a host name", r"[^\s:/]+", most=253).then(_domain), least=1),
            "the host names it answers to; default: NAME.localhost",
        ),
        "path": Key(
            text("a path prefix", r"/.*", most=200).then(_prefix),
            'the path prefix it answers to; default "/"',
        ),
        "strip_path": Key(TRUTH, "cut the prefix off before the service sees the path; default false"),
        "image": Key(IMAGE, "an image of its own instead of the app's, pinned by digest into the release"),
        "command": Key(WORDS, "what to run; default: the image's command"),
        "environment": Key(ENTRIES, "environment variables, sealed into the release: no secrets here"),
        "env_file": Key(
            list_of(FILE), "files of KEY=value lines, sealed like environment, which wins over them"
        ),
        "secrets": Key(
            list_of(text("a name like DATABASE_URL", r"[A-Za-z_][A-Za-z0-9_]{0,99}")),
            "names of secrets; each value is a file, /run/secrets/NAME (imm secret set)",
        ),
        "volumes": Key(
            list_of(text('a mount like "data:/data"', r"[^\u0000-\u001f\u007f]+").then(_mount)),
            '"NAME:/path": named volumes only, never host paths',
        ),
        "replicas": Key(whole(1, 50), "how many instances; default 1"),
        "healthcheck": Key(
            HEALTHCHECK,
            "when an instance is healthy; default: the image's HEALTHCHECK, else any answer under 500 on /",
        ),
        "drain": Key(duration(0, DAY), 'how long requests in flight may go on after the flip; default "30s"'),
        "stop_grace_period": Key(duration(0, DAY), 'the time from SIGTERM to SIGKILL; default "10s"'),
        "user": Key(USER.then(_user), "the user, and group, to run as; default: the image's user"),
        "read_only": Key(
            TRUTH,
            "a root file system that can't be written; default true, and false for a service with its own image",
        ),
        "tmpfs": Key(
            list_of(
                text("an absolute path in the container", r"/[^,\u0000-\u001f\u007f]*", most=255).then(_tmpfs)
            ),
            "paths that can be written, in memory, and lost with the instance",
        ),
        "cap_add": Key(
            list_of(text("a capability of Linux", r"[A-Za-z_]+", most=40).then(_capability)),
            "capabilities of Linux to keep; everything is dropped by default",
        ),
        "memory": Key(size(6 << 20, 16 << 40), 'the most memory an instance may use: "512m"'),
        "cpus": Key(number(0.01, 1024), "the most processors an instance may use: 1.5"),
        "max_age": Key(ANYTHING, "replace an instance that is older than this", later=True),
        "schedule": Key(ANYTHING, "run at times instead of all the time", later=True),
    },
    {
        "args": "command",
        "build": "build at the top of the file",
        "cap_drop": "cap_add",
        "cmd": "command",
        "cpu": "cpus",
        "entrypoint": "command",
        "env": "environment",
        "expose": "port",
        "hostname": "domains",
        "hosts": "domains",
        "instances": "replicas",
        "mem_limit": "memory",
        "ports": "port",
        "scale": "replicas",
        "test": "test at the top of the file",
    },
)

VOLUME = table(
    {
        "writers": Key(
            one_of("one", "many"),
            '"one", the default: the old instance stops before the new one starts; "many": both may run at once',
        ),
        "snapshot": Key(ANYTHING, "keep a copy of the data before each release", later=True),
    },
    {"writer": "writers"},
)

RELEASE = table(
    {
        "keep": Key(whole(1, 100), "how many releases can be reverted to; default 5"),
        "command": Key(ANYTHING, "run once per release, before anything starts", later=True),
        "watch": Key(ANYTHING, "revert by itself if it turns unhealthy within this time", later=True),
    },
    {"retain": "keep"},
)

APP = table(
    {
        "name": Key(APP_NAME, "the app's name: a-z, 0-9, '-', 1 to 40, starts with a letter", required=True),
        "build": Key(BUILD, "how the image is built, for all services that name no image of their own"),
        "test": Key(
            ANYTHING, "a command that must pass in the sealed image before it may take traffic", later=True
        ),
        "services": Key(
            tables(SERVICE_NAME, SERVICE, least=1),
            "the app's processes: [services.web] port = 8000",
            required=True,
        ),
        "volumes": Key(tables(VOLUME_NAME, VOLUME), "the named volumes that services mount"),
        "release": Key(RELEASE, "what is kept and done with each release"),
    },
    {name: f"services.NAME.{name}" for name in SERVICE.schema["properties"]} | {"web": "services.web"},
)
