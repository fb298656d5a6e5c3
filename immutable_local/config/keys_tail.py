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
