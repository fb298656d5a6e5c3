"""Every key that imm.toml may have: the one place for its kind, its range and its meaning."""

from __future__ import annotations

from immutable_local.app import HealthCheck
from immutable_local.config import values
from immutable_local.config.findings import Finding, Wrong
from immutable_local.config.kinds import (
    ANYTHING,
    TRUTH,
    Kind,
    duration,
    mismatch,
    number,
    one_of,
    size,
    whole,
)
from immutable_local.config.tables import ARGUMENTS, ENTRIES, WORDS, Key, list_of, table, tables
from immutable_local.errors import shown

DAY = 86400.0


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


BUILD = table(
    {
        "context": Key(values.FILE, 'the folder that the build may copy from, default "."'),
        "dockerfile": Key(values.FILE, 'the Dockerfile, from the context on; default "Dockerfile"'),
        "target": Key(values.STAGE, "the stage to build; default: the last"),
        "args": Key(ARGUMENTS, "build arguments; no secrets, they show in the image's history"),
    },
    {"file": "dockerfile", "path": "context", "arguments": "args", "stage": "target"},
    {"tags": "remove it: imm names its images itself, after the app and the release"},
)

_CHECK = table(
    {
        "path": Key(
            values.HEALTH_PATH, "ask for this path; healthy is an answer with a status within `status`"
        ),
        "command": Key(WORDS.then(_health_command), "run this inside the container; healthy is exit code 0"),
        "interval": Key(duration(0.01, DAY), 'the time between two checks; default "500ms"'),
        "timeout": Key(duration(0.01, DAY), 'how long one check may take; default "5s"'),
        "start_period": Key(duration(0.1, DAY), 'by when an instance must be healthy; default "60s"'),
        "status": Key(values.STATUS, "the status, or the first and the last of a range; default [200, 299]"),
    },
    {"test": "command", "cmd": "command", "url": "path", "uri": "path", "deadline": "start_period"},
    {"start_interval": "remove it: interval is the time between two checks from the start on"},
).then(_healthcheck)


def _check(value: object) -> HealthCheck:
    if isinstance(value, str):
        path = value if value.startswith("/") else "/up"
        raise mismatch("a table", value, f"write {{ path = {shown(path)} }}")
    return _CHECK.read(value)


HEALTHCHECK = Kind(
    _check,
    {**_CHECK.schema, "not": {"required": ["path", "command"]}, "dependencies": {"status": ["path"]}},
)

SERVICE_KEYS = {
    "port": Key(whole(1, 65535), "what the process listens on; the proxy sends traffic there"),
    "domains": Key(list_of(values.DOMAIN, least=1), "the host names it answers to; default: NAME.localhost"),
    "path": Key(values.PREFIX, 'the path prefix it answers to; default "/"'),
    "strip_path": Key(TRUTH, "cut the prefix off before the service sees the path; default false"),
    "image": Key(values.IMAGE, "an image of its own instead of the app's, pinned by digest into the release"),
    "command": Key(WORDS, "what to run; default: the image's command"),
    "environment": Key(ENTRIES, "environment variables, sealed into the release: no secrets here"),
    "env_file": Key(
        list_of(values.FILE), "files of KEY=value lines, sealed like environment, which wins over them"
    ),
    "secrets": Key(
        list_of(values.SECRET_NAME),
        "names of secrets; each value is a file, /run/secrets/NAME (imm secret set)",
    ),
    "volumes": Key(list_of(values.MOUNT), '"NAME:/path": named volumes only, never host paths'),
    "replicas": Key(whole(1, 50), "how many instances; default 1"),
    "healthcheck": Key(
        HEALTHCHECK,
        "when an instance is healthy; default: the image's HEALTHCHECK, else any answer under 500 on /",
    ),
    "drain": Key(duration(0, DAY), 'how long requests in flight may go on after the flip; default "30s"'),
    "hold": Key(
        duration(0, 3600),
        'how long a request may wait while a service with a one-writer volume is replaced; default "30s"',
    ),
    "hold_requests": Key(whole(0, 100_000), "how many requests may wait then, others get 503; default 1000"),
    "max_body": Key(size(1, 16 << 40), 'the largest body of a request, others get 413; default "1g"'),
    "response_timeout": Key(
        duration(0.1, DAY),
        'how long a service may take to begin its answer, then 504; default "5m"',
    ),
    "stop_grace_period": Key(duration(0, DAY), 'the time from SIGTERM to SIGKILL; default "10s"'),
    "user": Key(values.USER, "the user, and group, to run as; default: the image's user"),
    "read_only": Key(
        TRUTH, "a root file system that can't be written; default true, with an image of its own false"
    ),
    "tmpfs": Key(list_of(values.TMPFS), "paths that can be written, in memory, and lost with the instance"),
    "cap_add": Key(
        list_of(values.CAPABILITY),
        "capabilities of Linux beside the default: none, with an image of its own Docker's",
    ),
    "memory": Key(size(6 << 20, 16 << 40), 'the most memory an instance may use: "512m"'),
    "cpus": Key(number(0.01, 1024), "the most processors an instance may use: 1.5"),
    "max_age": Key(ANYTHING, "replace an instance that is older than this", later=True),
    "schedule": Key(ANYTHING, "run at times instead of all the time", later=True),
}

SERVICE = table(
    SERVICE_KEYS,
    {
        "args": "command",
        "body_limit": "max_body",
        "build": "build at the top of the file",
        "client_max_body_size": "max_body",
        "cmd": "command",
        "cpu": "cpus",
        "drain_timeout": "drain",
        "entrypoint": "command",
        "env": "environment",
        "expose": "port",
        "hostname": "domains",
        "hosts": "domains",
        "instances": "replicas",
        "mem_limit": "memory",
        "ports": "port",
        "scale": "replicas",
        "stop_timeout": "stop_grace_period",
        "timeout": "response_timeout",
    },
    {
        "cap_drop": "remove it: all are dropped by default, with an image of its own all but Docker's",
        "gpus": "remove it: imm hands no devices to a service",
    },
)

VOLUME = table(
    {
        "writers": Key(
            one_of("one", "many"),
            'default "one": the old instance stops before the new one starts; "many": both may run at once',
        ),
        "snapshot": Key(ANYTHING, "keep a copy of the data before each release", later=True),
    },
    {"writer": "writers"},
)

RELEASE = table(
    {
        "keep": Key(whole(1, 100), "how many releases can be reverted to; default 5"),
        "command": Key(
            ANYTHING,
            "run once per release, before anything starts",
            later=True,
            meanwhile="remove it; how to migrate without it: docs/troubleshooting.md, My app has migrations",
        ),
        "watch": Key(
            duration(0, DAY),
            "how long the old release stays up after the flip, to go back to it by itself if the new one"
            ' turns unhealthy or errors rise; default "0s"',
        ),
    },
    {"retain": "keep"},
)

APP = table(
    {
        "name": Key(
            values.name(40),
            "the app's name: a-z, 0-9, '-', 1 to 40, starts with a letter, doesn't end with '-'",
            required=True,
        ),
        "build": Key(BUILD, "how the image is built, for all services that name no image of their own"),
        "test": Key(
            ANYTHING, "a command that must pass in the sealed image before it may take traffic", later=True
        ),
        "services": Key(
            tables(values.name(30, "service"), SERVICE, least=1),
            "the app's processes: [services.web] port = 8000",
            required=True,
        ),
        "volumes": Key(tables(values.VOLUME_NAME, VOLUME), "the named volumes that services mount"),
        "release": Key(RELEASE, "what is kept and done with each release"),
    },
    {name: f"services.NAME.{name}" for name, key in SERVICE_KEYS.items() if not key.later}
    | {"web": "services.web"},
)
