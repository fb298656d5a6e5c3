"""imm.toml is read completely, or refused cleanly. Nothing here needs an engine."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck as Check
from hypothesis import example, given, settings
from hypothesis import strategies as st

from immutable_local.app import App, HealthCheck, Mount, Service, Volume, from_json, to_json
from immutable_local.config import MOST_BYTES, check_secret_name, env_file, placed, read, units
from immutable_local.config.findings import Wrong
from immutable_local.config.keys import SERVICE
from immutable_local.config.lines import key_lines, nearest
from immutable_local.config.values import name_from
from immutable_local.errors import ConfigError, UsageError

Reader = Callable[[str], App]

SHORTEST = 'name = "hello"\n\n[services.web]\nport = 8000\n'


@pytest.fixture
def app(tmp_path: Path) -> Reader:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")

    def reader(text: str) -> App:
        (tmp_path / "imm.toml").write_text(text)
        return read(tmp_path / "imm.toml")

    return reader


@pytest.fixture
def web(app: Reader) -> Callable[[str], Service]:
    """The service web of the shortest imm.toml with more lines."""
    return lambda lines: app(SHORTEST + lines + "\n").service("web")


def refusal(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as refused:
        read(path)
    return refused.value


def test_the_shortest_file_must_do(app: Reader) -> None:
    told = app(SHORTEST)
    assert told == App("hello", (Service("web", port=8000, domains=("hello.localhost",)),))
    assert told.services[0].read_only


def test_every_key_that_is_built_must_be_read(app: Reader, tmp_path: Path) -> None:
    (tmp_path / "prod.env").write_text("LOG_LEVEL=debug\nREGION=eu\n")
    told = app(
        """
        name = "shop"
        [build]
        context = "."
        dockerfile = "./Dockerfile"
        target = "prod"
        args = { PYTHON = "3.12", LEVEL = 2 }
        [services.web]
        port = 8000
        domains = ["Shop.Example.com", "192.168.0.7"]
        path = "/shop/"
        strip_path = true
        command = ["gunicorn", "shop:app"]
        environment = { LOG_LEVEL = "info" }
        env_file = ["prod.env"]
        secrets = ["DATABASE_URL"]
        volumes = ["uploads:/data//uploads/"]
        replicas = 2
        healthcheck = { path = "/up?deep=1", timeout = "2s", start_period = "1m30s", status = 204 }
        drain = "1m"
        stop_grace_period = "0s"
        user = "1000:1000"
        read_only = false
        tmpfs = ["/run"]
        cap_add = ["CAP_NET_BIND_SERVICE", "chown"]
        memory = "512m"
        cpus = 1
        [services.db]
        image = "postgres:16"
        volumes = ["pgdata:/var/lib/postgresql/data"]
        healthcheck = { command = "pg_isready -U 'the app'" }
        [volumes.uploads]
        writers = "many"
        [volumes.pgdata]
        [release]
        keep = 3
        """
    )
    assert told.service("web") == Service(
        "web",
        port=8000,
        domains=("shop.example.com", "192.168.0.7"),
        path="/shop",
        strip_path=True,
        command=("gunicorn", "shop:app"),
        environment={"LOG_LEVEL": "info", "REGION": "eu"},
        secrets=("DATABASE_URL",),
        volumes=(Mount("uploads", "/data/uploads"),),
        replicas=2,
        healthcheck=HealthCheck("/up?deep=1", None, 0.5, 2.0, 90.0, (204, 204)),
        drain=60.0,
        stop_grace_period=0.0,
        user="1000:1000",
        read_only=False,
        tmpfs=("/run",),
        cap_add=("NET_BIND_SERVICE", "CHOWN"),
        memory=512 << 20,
        cpus=1.0,
    )
    assert told.service("db") == Service(
        "db",
        image="postgres:16",
        volumes=(Mount("pgdata", "/var/lib/postgresql/data"),),
        healthcheck=HealthCheck(command=("pg_isready", "-U", "the app")),
        read_only=False,
    )
    assert (told.build.target, dict(told.build.args), told.keep) == (
        "prod",
        {"PYTHON": "3.12", "LEVEL": "2"},
        3,
    )
    assert told.build.dockerfile == "Dockerfile"
    assert from_json(to_json(told)) == told


def test_where_no_volume_is_declared_each_that_is_mounted_must_have_one_writer(app: Reader) -> None:
    assert app(SHORTEST + 'volumes = ["data:/data", "more:/more"]\n').volumes == (
        Volume("data", "one"),
        Volume("more", "one"),
    )


def test_defaults_told_to_editors_must_be_those_of_the_app(app: Reader) -> None:
    """Each `default "x"` in the meaning of a key, written out, must change nothing."""
    minimal = app(SHORTEST)
    told = {name: key["description"] for name, key in SERVICE.schema["properties"].items()}
    defaults = {
        name: meaning.rpartition("; default ")[2].split(",")[0]
        for name, meaning in told.items()
        if "; default " in meaning
    }
    assert {"replicas", "drain", "stop_grace_period", "path", "read_only"} <= defaults.keys()
    for name, default in defaults.items():
        assert app(f"{SHORTEST}{name} = {default}\n") == minimal, name


def test_environment_values_may_hold_anything_that_an_environment_can(web: Callable[[str], Service]) -> None:
    told = web(
        """environment = { A = "a\\nb", B = 'q"u', C = true, D = 5, E = "1.50", "f.g-h" = "", I = "ü=$x" }"""
    )
    assert told.environment == {
        "A": "a\nb",
        "B": 'q"u',
        "C": "true",
        "D": "5",
        "E": "1.50",
        "f.g-h": "",
        "I": "ü=$x",
    }


@pytest.mark.parametrize("user", ["root", "0", "1000:1000", "app:www-data"])
def test_users_must_be_taken_as_docker_takes_them(web: Callable[[str], Service], user: str) -> None:
    assert web(f'user = "{user}"').user == user


@pytest.mark.parametrize(
    "image",
    [
        "redis",
        "postgres:16",
        "ghcr.io/a/b-c__d:v1.2",
        "localhost:5000/x",
        f"a/b:1@sha256:{'0' * 64}",
        "imm.local/x:1",
    ],
)
def test_images_must_be_taken_as_docker_takes_them(app: Reader, image: str) -> None:
    assert app(f'name = "x"\n[services.db]\nimage = "{image}"\n').service("db").image == image


def test_services_may_share_a_domain_on_paths_of_their_own(app: Reader) -> None:
    told = app(SHORTEST + '[services.api]\nport = 9000\npath = "/api"\n')
    assert [service.path for service in told.services] == ["/", "/api"]


def test_services_with_images_of_their_own_must_need_no_dockerfile(tmp_path: Path) -> None:
    (tmp_path / "imm.toml").write_text('name = "x"\n[services.web]\nimage = "nginx"\nport = 80\n')
    assert not read(tmp_path / "imm.toml").builds


def test_a_missing_dockerfile_must_be_told(tmp_path: Path) -> None:
    (tmp_path / "imm.toml").write_text(SHORTEST)
    refused = refusal(tmp_path / "imm.toml")
    assert refused.message == 'build.dockerfile: there is no file "Dockerfile" (imm.toml)'
    assert "write a Dockerfile" in refused.hint


def test_a_name_that_a_terminal_would_obey_must_not_be_proposed(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile\x1b[31m").touch()
    (tmp_path / "imm.toml").write_text(SHORTEST)
    refused = refusal(tmp_path / "imm.toml")
    assert refused.message == 'build.dockerfile: there is no file "Dockerfile" (imm.toml)'


@pytest.mark.parametrize("name", ["\x1b[31m.toml", "a" * 200, "\udcff"])
def test_a_file_whose_name_is_odd_must_be_told_so_that_a_terminal_stays_as_it_is(
    tmp_path: Path, name: str
) -> None:
    for content in ("", "[x", SHORTEST):
        (tmp_path / name).write_text(content)
        told = refusal(tmp_path / name).message
        assert told.isprintable() and name not in told


def test_a_dockerfile_must_be_looked_for_in_the_context(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "prod.Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "imm.toml").write_text(
        SHORTEST + '[build]\ncontext = "./web/"\ndockerfile = "prod.Dockerfile"\n'
    )
    build = read(tmp_path / "imm.toml").build
    assert (build.context, build.dockerfile) == ("web", "prod.Dockerfile")


def test_the_file_may_lie_in_another_folder_than_the_current_one(
    app: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = app(SHORTEST)
    monkeypatch.chdir("/")
    assert read(tmp_path / "imm.toml") == told
    monkeypatch.chdir(tmp_path)
    assert read(Path("imm.toml")) == told


def test_all_that_is_wrong_must_be_told_in_the_order_of_lines(app: Reader, tmp_path: Path) -> None:
    (tmp_path / "imm.toml").write_text('[services.web]\nport = 0\nprot = 1\n[release]\nkeep = "5"\n')
    refused = refusal(tmp_path / "imm.toml")
    assert (
        refused.message
        == "services.web.port: must be a whole number from 1 to 65535, not 0 (imm.toml, line 2)"
    )
    assert refused.details == [
        "services.web.prot: unknown key, did you mean port? (imm.toml, line 3); correct it, or remove it",
        "release.keep: must be a whole number from 1 to 100, not a string (imm.toml, line 5); write 5",
        "name: is missing (imm.toml); add it: the app's name: a-z, 0-9, '-', 1 to 40, starts with a letter, doesn't end with '-'",
    ]
    assert refused.hint.startswith("services.web.port: correct it: what the process listens on")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ('replicas = "2"', "write 2"),
        ('read_only = "true"', "write true"),
        ('cpus = "1.5"', "write 1.5"),
        ('domains = "a.example"', 'write ["a.example"]'),
        ("user = 1000", 'write "1000"'),
        ("drain = 30", 'write "30s"'),
        ('drain = "30"', 'write "30s"'),
        ('memory = "512"', 'write "512m"'),
        ('domains = "a.example, b.example"', 'write ["a.example", "b.example"]'),
    ],
)
def test_what_is_proposed_must_be_accepted(web: Callable[[str], Service], line: str, hint: str) -> None:
    with pytest.raises(ConfigError) as refused:
        web(line)
    assert refused.value.hint == hint
    assert web(f"{line.partition('=')[0]} = {hint.removeprefix('write ')}")


@pytest.mark.parametrize(
    ("domain", "hint"),
    [
        ("MÜNCHEN.de", 'write "xn--mnchen-3ya.de"'),
        ("http://münchen.de/", "write the host name alone, in its ASCII form"),
        ("münchen.de:80", "write the host name alone, in its ASCII form"),
        ("日本 語.jp", "write the host name alone, in its ASCII form"),
        ("a_b.example", "write the host name alone, of letters, digits, '-' and single dots"),
        ("shop.example.", "write the host name alone, of letters, digits, '-' and single dots"),
    ],
)
def test_no_form_of_a_host_name_is_proposed_that_would_be_refused(
    web: Callable[[str], Service], domain: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        web(f'domains = ["{domain}"]')
    assert refused.value.hint.startswith(hint)


def test_who_has_migrations_is_led_to_what_can_be_done_now(app: Reader) -> None:
    with pytest.raises(ConfigError) as refused:
        app(SHORTEST + '[release]\ncommand = ["migrate"]\n')
    assert refused.value.code == "not_supported"
    assert "docs/troubleshooting.md" in refused.value.hint and "My app has migrations" in refused.value.hint


@pytest.mark.parametrize("line", ['environment.LOG.LEVEL = "x"', 'environment = { LOG.LEVEL = "x" }'])
def test_a_name_with_a_dot_is_to_be_written_in_quotes(web: Callable[[str], Service], line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        web(line)
    assert refused.value.hint == 'write a name with a dot in quotes: "LOG.LEVEL"'


def test_a_service_is_proposed_a_service_name(app: Reader) -> None:
    with pytest.raises(ConfigError) as refused:
        app('name = "shop"\n[services.1]\nport = 8000\n')
    assert refused.value.hint == 'for example "service-1"'


@pytest.mark.parametrize(
    "line",
    [
        "replicas = 0",
        "replicas = 51",
        "drain = -5",
        "drain = nan",
        "drain = 1e300",
        "drain = 500000",
        "memory = 1e9",
        "memory = 6.5e6",
        "memory = 512.0",
        'memory = "6500000.5"',
        "user = 1000.5",
        "command = 8",
        "domains = 8080",
        "cpus = 0",
        "path = 1",
        "user = 3000000000",
        'domains = "http://a.example"',
        'cap_add = ["FOO"]',
    ],
)
def test_where_nothing_can_be_proposed_the_meaning_must_be_told(
    web: Callable[[str], Service], line: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        web(line)
    meaning = SERVICE.schema["properties"][line.partition(" ")[0]]["description"]
    assert refused.value.hint == f"correct it: {meaning}"


@pytest.mark.parametrize("line", ["foo = 1", "restart = true", "depends_on = []", "retries = 3"])
def test_a_key_that_is_like_no_other_must_be_told_those_that_are(
    web: Callable[[str], Service], line: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        web(line)
    assert refused.value.hint.startswith("known here: port, domains, ")
    assert "max_age" not in refused.value.hint


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[services.web]\nmaxage = 1", "services.web.maxage: unknown key (imm.toml"),
        ("[services.web]\nschedul = 1", "services.web.schedul: unknown key (imm.toml"),
        ("[services.web]\ntest = 1", "services.web.test: unknown key (imm.toml"),
        ("max_age = 1", "max_age: unknown key (imm.toml"),
        ("tests = 1", "tests: unknown key (imm.toml"),
        ("[release]\ncomand = 1", "release.comand: unknown key (imm.toml"),
        ("[volumes.data]\nsnapshots = 1", "volumes.data.snapshots: unknown key (imm.toml"),
    ],
)
def test_no_key_must_be_proposed_that_is_not_built(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "imm.toml").write_text(text)
    refused = refusal(tmp_path / "imm.toml")
    assert told in "\n".join((refused.message, *refused.details))


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ('cap_drop = ["ALL"]', "remove it: all are dropped by default"),
        ("gpus = 1", "remove it: imm hands no devices"),
        ("healthcheck = { start_interval = 1 }", "remove it: interval is the time"),
        ("[build]\ntags = []", "remove it: imm names its images itself"),
    ],
)
def test_what_looks_like_a_key_and_means_none_must_be_told_what_to_do(
    web: Callable[[str], Service], line: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        web(line)
    assert "did you mean" not in refused.value.message
    assert refused.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ('path = "api"', 'write "/api"'),
        ('path = "a b"', "letters, digits"),
        ('healthcheck = { path = "up" }', 'write "/up"'),
        ('healthcheck = { path = "/a b" }', "percent-encode"),
        ('healthcheck = { path = "http://localhost:8000/up" }', "write the path alone"),
        ('healthcheck = { path = "localhost:8000/up" }', "write the path alone"),
        ('path = "shop.example.com/api"', "letters, digits"),
        ('healthcheck = "/up"', 'write { path = "/up" }'),
        ('healthcheck = "curl localhost"', 'write { path = "/up" }'),
        ('cap_add = ["all"]', "name each"),
    ],
)
def test_what_was_nearly_right_must_be_told_how_to_write_it(
    web: Callable[[str], Service], line: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        web(line)
    assert hint in refused.value.hint


def test_a_folder_to_build_from_that_holds_this_one_must_be_told_where_to_put_imm_toml(app: Reader) -> None:
    with pytest.raises(ConfigError) as refused:
        app(SHORTEST + '[build]\ncontext = ".."\n')
    assert refused.value.hint.startswith("put imm.toml into that folder")


def test_a_volume_whose_name_has_a_dot_must_be_proposed_as_toml_writes_it(app: Reader) -> None:
    for text, hint in [
        ('volumes = ["a.b:/x"]\n[volumes.c]\n', 'declare it: [volumes."a.b"]'),
        ('volumes = ["a.b:/x"]\nreplicas = 2\n', 'write [volumes."a.b"] writers = "many" if they'),
    ]:
        with pytest.raises(ConfigError) as refused:
            app(SHORTEST + text)
        assert refused.value.hint.startswith(hint)


@pytest.mark.parametrize("number", ["3.10", "1e3", "0.1", "nan"])
def test_numbers_that_toml_would_change_must_be_written_in_quotes(
    web: Callable[[str], Service], number: str
) -> None:
    for told in (f"environment = {{ A = {number} }}", f"[build]\nargs = {{ A = {number} }}"):
        with pytest.raises(ConfigError) as refused:
            web(told)
        assert "A: must be a string" in refused.value.message
        assert "in quotes" in refused.value.hint
    assert web(f'environment = {{ A = "{number}" }}').environment["A"] == number


def test_what_only_the_host_knows_to_be_wrong_must_be_told_with_its_line(app: Reader, tmp_path: Path) -> None:
    app(SHORTEST + 'domains = ["a.example"]\n')
    with pytest.raises(ConfigError) as refused, placed(tmp_path / "imm.toml"):
        raise ConfigError("services.web.domains: taken", key=("services", "web", "domains"), hint="another")
    assert refused.value.message == "services.web.domains: taken (imm.toml, line 5)"
    with pytest.raises(ConfigError) as refused, placed(tmp_path / "imm.toml"):
        raise ConfigError("taken", hint="another")
    assert refused.value.message == "taken"


# Files that are not what they should be


def test_a_missing_file_must_lead_to_imm_init(tmp_path: Path) -> None:
    refused = refusal(tmp_path / "imm.toml")
    assert refused.message == f'there is no imm.toml in "{tmp_path}"'
    assert "imm init" in refused.hint


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xef\xbb\xbf" + SHORTEST.encode(), "imm.toml starts with a byte order mark"),
        (SHORTEST.encode("utf-16"), "imm.toml is not UTF-8 (imm.toml, line 1)"),
        (b'name = "x"\n# \xff\n', "imm.toml is not UTF-8 (imm.toml, line 2)"),
        (b'name = "x"\n\0\n', "imm.toml is not valid TOML"),
        (b"\0" * 1000, "imm.toml is not valid TOML"),
        (b"#" * (MOST_BYTES + 1), "imm.toml is larger than 1 MB"),
        (b"a = " + b"[" * 100_000, "imm.toml is nested too deeply"),
        (b"a." * 5000 + b"a = 1", "a: unknown key"),
    ],
)
def test_content_that_is_no_toml_must_be_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "imm.toml").write_bytes(content)
    assert expected in refusal(tmp_path / "imm.toml").message


def test_what_is_no_file_must_be_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    for path, expected in [
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "pipe is not a regular file"),
        (tmp_path / "loop", "loop can't be read"),
        (tmp_path / "file" / "imm.toml", "imm.toml can't be read: Not a directory"),
        (tmp_path / ("a" * 300), "can't be read: File name too long"),
        (tmp_path / "a\0b", "can't be read: embedded null byte"),
        (Path("/dev/zero"), "zero is not a regular file"),
    ]:
        assert expected in refusal(path).message


@pytest.fixture
def nobody() -> Iterator[None]:
    """Root may read everything: as another user."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


@pytest.mark.parametrize("closed", ["imm.toml", "."])
def test_what_may_not_be_read_must_be_refused(app: Reader, tmp_path: Path, closed: str, request: Any) -> None:
    app(SHORTEST)
    (tmp_path / closed).chmod(0)
    request.getfixturevalue("nobody")
    assert refusal(tmp_path / "imm.toml").message == "imm.toml can't be read: Permission denied"


# Commands


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("a && b", "&&"),
        ("a || b", "||"),
        ("a | b", "|"),
        ("a; b", ";"),
        ("a ; b", ";"),
        ("a &", "&"),
        ("a > b", ">"),
        ("a >>b", ">>"),
        ("a 2>&1", "2>"),
        ("it's a && b", "&&"),
        ("a |& b", "|&"),
        ("a < b", "<"),
        ("a <b", "<"),
        ("a <<< b", "<<<"),
        ("gunicorn --bind=:$PORT", "$PORT"),
        ("a ${B:-c}", "${"),
        ("a $(id)", "$("),
        ("a `id`", "`"),
        ("FOO=bar a", "FOO="),
        (" FOO='b c' a", "FOO="),
    ],
)
def test_what_only_a_shell_understands_must_be_refused(
    web: Callable[[str], Service], command: str, word: str
) -> None:
    for line, at in [
        (f'command = "{command}"', ""),
        (f'healthcheck = {{ command = "{command}" }}', "healthcheck."),
    ]:
        with pytest.raises(ConfigError) as refused:
            web(line)
        assert f"services.web.{at}command: {word} is for a shell" in refused.value.message
        assert refused.value.hint == f'for a shell write ["sh", "-c", "{command}"]'
    assert web(f'command = ["sh", "-c", "{command}"]').command == ("sh", "-c", command)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("sh -c 'a && b; c > d'", ("sh", "-c", "a && b; c > d")),
        ("find . -exec x {} ';'", ("find", ".", "-exec", "x", "{}", ";")),
        (r"find . -exec x {} \;", ("find", ".", "-exec", "x", "{}", ";")),
        ("get http://x/?a=1&b=2", ("get", "http://x/?a=1&b=2")),
        ("a b=c;d|e", ("a", "b=c;d|e")),
        ("sh -c 'a --bind=:$PORT < b'", ("sh", "-c", "a --bind=:$PORT < b")),
        (r"grep -E ^a\$b c$ $", ("grep", "-E", "^a$b", "c$", "$")),
        ("grep a$'b' $1", ("grep", "a$b", "$1")),
        ("a b<c x->y", ("a", "b<c", "x->y")),
        ("env FOO=bar a", ("env", "FOO=bar", "a")),
        ("FOO=bar", ("FOO=bar",)),
        ("rate=0.1 steps=5", ("rate=0.1", "steps=5")),
        ("a\n  --b\n", ("a", "--b")),
    ],
)
def test_what_is_in_quotes_or_inside_of_a_word_must_be_taken(
    web: Callable[[str], Service], command: str, words: tuple[str, ...]
) -> None:
    assert web(f'command = """{command}"""'.replace("\\", "\\\\")).command == words


# Files of entries


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# a\n\n  \nA=1\n", {"A": "1"}),
        ("A=1\r\nB=2", {"A": "1", "B": "2"}),
        ("A=1\rB=2\r", {"A": "1", "B": "2"}),
        ("\ufeffexport A=1", {"A": "1"}),
        ("A = b c  # d", {"A": "b c"}),
        ("A=b#c", {"A": "b#c"}),
        ("A=#c", {"A": "#c"}),
        ("A= #c", {"A": ""}),
        ("A=", {"A": ""}),
        ("A=$B ${C}", {"A": "$B ${C}"}),
        ("A='b # \\n \"c\"' # d", {"A": 'b # \\n "c"'}),
        ('A="b\\nc \\"d\\" \\x"#e', {"A": 'b\nc "d" \\x'}),
        ("A=\"b\nc\"\nB='d\ne'", {"A": "b\nc", "B": "d\ne"}),
        ("A = 'b' # c\nB=\t \"d\"\nC= ", {"A": "b", "B": "d", "C": ""}),
        ("A=b=c", {"A": "b=c"}),
        ("A=it's", {"A": "it's"}),
        ("A=1\nA=2", {"A": "2"}),
        ("a.b-c=1", {"a.b-c": "1"}),
    ],
)
def test_entries_must_be_read_as_compose_reads_them(text: str, expected: dict[str, str]) -> None:
    assert env_file.entries(text) == expected


@pytest.mark.parametrize(
    ("text", "line"),
    [("A=1\nB\n", 2), ("A=1\rB\r", 2), ("A: 1", 1), ("=1", 1), ("A B=c", 1)],
)
def test_lines_that_are_no_entries_must_be_refused_by_their_number(text: str, line: int) -> None:
    with pytest.raises(Wrong) as wrong:
        env_file.entries(text)
    assert wrong.value.findings[0].what == f"line {line} is not KEY=value"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('A="b\n\n', "line 1 opens a quote that is never closed"),
        ("A=1\nexport B='c\n", "line 2 opens a quote that is never closed"),
        ('A="b\\"\n', "line 1 opens a quote that is never closed"),
        ("\n\nA='b' c", "line 3 has something behind the closing quote"),
        ('A="b\nC="d"', "line 1 has something behind the closing quote"),
        ('A= "b"c', "line 1 has something behind the closing quote"),
        ('A= "b', "line 1 opens a quote that is never closed"),
        ("A =\t 'b", "line 1 opens a quote that is never closed"),
    ],
)
def test_quotes_that_do_not_fit_must_be_told(text: str, what: str) -> None:
    with pytest.raises(Wrong) as wrong:
        env_file.entries(text)
    assert wrong.value.findings[0].what == what


def test_a_wrong_entry_must_be_told_with_its_file_and_the_line_of_imm_toml(
    app: Reader, tmp_path: Path
) -> None:
    for content, expected in [
        ("A=1\nB\n", '"prod.env": line 2 is not KEY=value (imm.toml, line 5)'),
        ("A\x1b=1\n", "\"prod.env\": 'A\\x1b': a name must have no '='"),
        ("A=\0\n", '"prod.env": A: must have no NUL character'),
        (f"{'A' * 300}=1", "a name must have 255 characters at most, not 300"),
        ("A\u202eb=1", "'A\\u202eb': a name must have no '='"),
        ("".join(f"A{n}=1\n" for n in range(1001)), '"prod.env": must have 1000 entries at most, not 1001'),
    ]:
        (tmp_path / "prod.env").write_text(content)
        with pytest.raises(ConfigError) as refused:
            app(SHORTEST + 'env_file = ["prod.env"]\n')
        assert refused.value.message.startswith('services.web.env_file[0]: "prod.env": ')
        assert expected in refused.value.message
        assert refused.value.hint


def test_a_file_of_entries_may_start_with_a_byte_order_mark(app: Reader, tmp_path: Path) -> None:
    (tmp_path / "prod.env").write_bytes(b"\xef\xbb\xbfA=1\r\n")
    assert app(SHORTEST + 'env_file = ["prod.env"]\n').service("web").environment == {"A": "1"}


def test_a_file_of_entries_that_cannot_be_read_must_be_told_what_to_do_about_it(
    app: Reader, tmp_path: Path
) -> None:
    (tmp_path / "utf-16.env").write_text("A=1\n", encoding="utf-16")
    (tmp_path / "folder.env").mkdir()
    for name, what, hint in [
        ("gone.env", 'there is no "gone.env"', "write the file, or correct its name"),
        ("utf-16.env", '"utf-16.env" is not UTF-8', "save it as UTF-8"),
        ("folder.env", '"folder.env" is a folder', "name a file of KEY=value lines"),
    ]:
        with pytest.raises(ConfigError) as refused:
            app(SHORTEST + f'env_file = ["{name}"]\n')
        assert what in refused.value.message
        assert refused.value.hint == hint


@given(st.text())
def test_any_entries_must_be_read_or_refused(text: str) -> None:
    try:
        entries = env_file.entries(text)
    except Wrong:
        return
    assert all(name and "=" not in name for name in entries)


@given(
    st.dictionaries(
        st.from_regex(r"[A-Z_]{1,9}", fullmatch=True), st.text(st.characters(exclude_characters="\r"))
    )
)
def test_quoted_entries_must_come_back_as_they_were(told: dict[str, str]) -> None:
    quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in told.items()}
    text = "".join(f'{name}="{value}" # why\n' for name, value in quoted.items())
    assert env_file.entries(text) == told


# Units and names


@pytest.mark.parametrize(
    ("text", "amount"),
    [("0", 0), ("0s", 0), ("500ms", 0.5), ("1.5s", 1.5), ("1m30s", 90), ("2h", 7200), ("1d", 86400)],
)
def test_times_must_be_in_seconds(text: str, amount: float) -> None:
    assert units.seconds(text) == amount
    assert isinstance(units.seconds(text), float)


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "1 s", "1S", "1w", "1s,", "1e3s", "١s"])
def test_what_is_no_time_must_be_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        units.seconds(text)


@given(st.integers(0, 10**7).map(lambda milliseconds: milliseconds / 1000))
def test_a_time_must_come_back_as_it_was_told(amount: float) -> None:
    assert units.seconds(units.told_seconds(amount)) == pytest.approx(amount, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1b", 1),
        ("512m", 512 << 20),
        ("512MB", 512 << 20),
        ("1.5GiB", 3 << 29),
        ("2k", 2048),
        ("1t", 1 << 40),
    ],
)
def test_sizes_must_be_in_bytes(text: str, amount: int) -> None:
    assert units.size_in_bytes(text) == amount


@given(st.integers(0, 1 << 45))
def test_a_size_must_come_back_as_it_was_told(amount: int) -> None:
    assert units.size_in_bytes(units.told_bytes(amount)) == amount


def test_a_size_without_a_unit_must_be_refused() -> None:
    with pytest.raises(ValueError, match="is not a size"):
        units.size_in_bytes("512")


@given(st.text(), st.integers(5, 40))
def test_a_suggested_name_must_be_a_name(told: str, most: int) -> None:
    name = name_from(told, most)
    assert len(name) <= most
    assert not name or (name[0].isalpha() and name.replace("-", "a").isalnum() and name.isascii())


def test_the_name_of_a_secret_must_be_checked() -> None:
    check_secret_name("DATABASE_URL")
    with pytest.raises(UsageError, match="the name of a secret must be a name like DATABASE_URL"):
        check_secret_name("../x")


# Lines

KEYS = st.from_regex(r"[a-z]{1,4}", fullmatch=True) | st.text(st.characters(codec="utf-8"), max_size=3)
# fmt: off
VALUES = st.sampled_from([
    "1", '"a"', '"""\n[x]\ny = 1\n"""', "[\n1, # ]\n2,\n]", "{ a = 1 }", "'''#'''", "{ b.c = 2 }", '"""a"""""',
    "'''['''''", '""', "''", r'"\\"', r'"\"["', r'"""\"""["""', r"'[\'", "[[1], {a = '}'}]",
])
# fmt: on
NOTHING = st.sampled_from(["", "\n", "# [x]\n", "  # y = 1\n\n"])


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[tuple[str, ...], int]]:
    """A TOML text, and the line of each table and key that was written into it."""
    text, lines, tables = (
        "",
        {},
        draw(st.lists(st.lists(KEYS, min_size=1, max_size=3).map(tuple), max_size=5)),
    )
    for table in [(), *tables]:
        text += draw(NOTHING)
        if table:
            lines.setdefault(table, text.count("\n") + 1)
            text += f"[{'.'.join(_quoted(name) for name in table)}]\n"
        for key in draw(st.lists(KEYS, max_size=4)):
            text += draw(NOTHING)
            lines.setdefault((*table, key), text.count("\n") + 1)
            text += f"{_quoted(key)} = {draw(VALUES)}\n"
    return text, lines


def _quoted(name: str) -> str:
    return '"' + "".join(f"\\U{ord(letter):08X}" for letter in name) + '"'


@given(documents())
def test_each_key_must_be_found_on_its_line(document: tuple[str, dict[tuple[str, ...], int]]) -> None:
    text, expected = document
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # a key or a table twice
    lines = key_lines(text)
    # A table that is named later may have been implied before, by a longer one.
    assert {path: lines[path] for path in expected} == {
        path: min([line, *(other for longer, other in expected.items() if longer[: len(path)] == path)])
        for path, line in expected.items()
    }
    assert key_lines(text.replace("\n", "\r\n")) == lines


def test_inline_and_dotted_keys_must_be_found_and_others_by_their_table() -> None:
    lines = key_lines('a = 1\n[s]\nw.port = 1\nw.h = {\tp = "x" }\n[[t]]\nu = 1\n')
    assert lines[("s", "w", "port")] == 3
    assert lines[("s", "w", "h", "p")] == 4
    assert lines[("t", "u")] == 6
    assert nearest(lines, ("s", "w", "h", "q")) == 4
    assert nearest(lines, ("s", "v", 0)) == 2
    assert nearest(lines, ("b",)) is None


def test_the_entries_of_an_array_must_be_found_on_lines_of_their_own() -> None:
    text = (
        'a = 1\n[s]\nx.d = [\n"a", # ] ,\n\n[\n1, 2], """\n,[\n""",\n{ b = [\n1] },\n]\n'
        "y = [\n]\nz = { a = [\n1,\n2] }\n"
    )
    lines = key_lines(text)
    assert [nearest(lines, ("s", "x", "d", position)) for position in range(4)] == [4, 6, 7, 10]
    assert ("s", "x", "d", 4) not in lines
    assert (lines["s", "y"], lines["s", "z"]) == (13, 15)


@pytest.mark.parametrize(
    ("opening", "line", "closing"), [('"""', "", '"""'), ("'''", "", "'''"), ("[", '"x",', "]")]
)
def test_a_long_statement_must_not_move_the_lines_of_others(
    app: Reader, tmp_path: Path, opening: str, line: str, closing: str
) -> None:
    long = opening + f"\n{line or '[services.other] # prot = 1'}" * 700 + closing
    (tmp_path / "imm.toml").write_text(f"{SHORTEST}environment.A = {long}\n[services.other]\nprot = 1\n")
    refused = refusal(tmp_path / "imm.toml")
    told = next(each for each in (*refused.details, refused.message) if "prot" in each)
    assert "unknown key, did you mean port? (imm.toml, line 707)" in told


# Whatever the file holds

SCALARS = (
    st.none().map(lambda _: "inf")
    | st.integers().map(str)
    | st.floats().map(str)
    | st.booleans().map(lambda value: str(value).lower())
    | st.text(max_size=20).map(
        lambda text: '"' + "".join(f"\\U{ord(x):08X}" for x in text if ord(x) < 0xD800) + '"'
    )
    | st.sampled_from(
        ["2026-11-21", "07:30:00", "0x" + "f" * 5000, '"a:/b"', '"1s"', '"/x"', '"a.de"', "[]", "{}"]
    )
)
ANY_VALUE = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda values: f"[{', '.join(values)}]")
        | st.dictionaries(st.sampled_from(["path", "status", "command", "X", "a b"]), inner, max_size=3).map(
            lambda entries: "{" + ", ".join(f'"{key}" = {value}' for key, value in entries.items()) + "}"
        )
    ),
    max_leaves=6,
)
FUZZED = settings(max_examples=150, deadline=None, suppress_health_check=[Check.function_scoped_fixture])


def read_or_refused(path: Path) -> None:
    try:
        told = read(path)
    except ConfigError as refused:
        assert refused.message.isprintable()
        assert refused.hint.isprintable()
        assert all(detail.isprintable() for detail in refused.details)
    else:
        assert from_json(to_json(told)) == told


@FUZZED
@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"name = " + b"[" * 3000)
def test_any_bytes_must_be_read_or_refused(app: Reader, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "imm.toml").write_bytes(content)
    read_or_refused(tmp_path / "imm.toml")


@FUZZED
@given(st.dictionaries(st.sampled_from(sorted(SERVICE.schema["properties"])), ANY_VALUE, max_size=3))
def test_any_values_of_a_service_must_be_read_or_refused(
    app: Reader, tmp_path: Path, values: dict[str, Any]
) -> None:
    lines = "".join(f"{key} = {value}\n" for key, value in values.items())
    port = "" if "port" in values else "port = 1\n"
    (tmp_path / "imm.toml").write_text(f'name = "x"\n[services.web]\n{port}{lines}')
    read_or_refused(tmp_path / "imm.toml")


@FUZZED
@given(st.dictionaries(st.sampled_from(["name", "build", "services", "volumes", "release", "x"]), ANY_VALUE))
def test_any_values_at_the_top_must_be_read_or_refused(
    app: Reader, tmp_path: Path, values: dict[str, Any]
) -> None:
    (tmp_path / "imm.toml").write_text("".join(f"{key} = {value}\n" for key, value in values.items()))
    read_or_refused(tmp_path / "imm.toml")


PROXY_WORDS = st.text(st.sampled_from("ab0./-_~;{}`'\"$\\ \n\t#()|&?%:*[]<>ü"), min_size=1, max_size=12)


@FUZZED
@given(PROXY_WORDS, PROXY_WORDS)
def test_no_domain_and_no_path_may_break_out_of_a_proxys_configuration(
    app: Reader, tmp_path: Path, domain: str, path: str
) -> None:
    """What is accepted holds nothing that means something to nginx or to Traefik."""
    (tmp_path / "imm.toml").write_text(
        f"{SHORTEST}domains = [{_quoted(domain)}]\npath = {_quoted('/' + path)}\n", encoding="utf-8"
    )
    try:
        service = read(tmp_path / "imm.toml").service("web")
    except ConfigError:
        return
    plain = set("abcdefghijklmnopqrstuvwxyz0123456789.-")
    assert set(service.domains[0]) <= plain
    assert set(service.path) <= plain | set("/_~ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert "//" not in service.path
    assert not {".", ".."} & set(service.path.split("/"))
