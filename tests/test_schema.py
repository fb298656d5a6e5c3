"""schema.json, which editors check imm.toml by, says what `config` says."""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from immutable_local.config import read
from immutable_local.config.keys import APP, BUILD, HEALTHCHECK, RELEASE, SERVICE, VOLUME
from immutable_local.config.schema import schema_text
from immutable_local.config.tables import Key
from immutable_local.errors import ConfigError

SHIPPED = json.loads(resources.files("immutable_local").joinpath("schema.json").read_text())
CORPUS = sorted((Path(__file__).parent / "bad_input").glob("*.toml"))

EVERYTHING = """
name = "shop"

[build]
context = "."
dockerfile = "Dockerfile"
target = "prod"
args = { PYTHON = "3.12" }

[test]
command = ["python", "-m", "pytest", "-q"]
timeout = "10m"

[services.web]
port = 8000
domains = ["shop.example.com"]
path = "/"
strip_path = false
command = ["gunicorn", "shop:app"]
environment = { LOG_LEVEL = "info" }
env_file = ["prod.env"]
secrets = ["DATABASE_URL"]
volumes = ["uploads:/data/uploads"]
replicas = 2
healthcheck = { path = "/up", interval = "500ms", timeout = "5s", start_period = "60s", status = [200, 299] }
drain = "30s"
hold = "30s"
hold_requests = 1000
max_body = "1g"
response_timeout = "5m"
stop_grace_period = "10s"
user = "1000:1000"
read_only = true
tmpfs = ["/run"]
cap_add = []
memory = "512m"
cpus = 1.0
max_age = "30d"

[services.worker]
command = ["python", "-m", "shop.worker"]

[services.db]
image = "postgres:16"
volumes = ["pgdata:/var/lib/postgresql/data"]
healthcheck = { command = ["pg_isready"] }

[volumes.uploads]
writers = "many"

[volumes.pgdata]
writers = "one"
snapshot = "before-release"

[release]
command = ["python", "manage.py", "migrate"]
watch = "60s"
keep = 5
"""

LATER = {"test", "services.web.max_age", "volumes.pgdata.snapshot", "release.command"}


def valid(told: dict[str, Any]) -> bool:
    return bool(jsonschema.Draft7Validator(SHIPPED).is_valid(told))


def test_the_shipped_schema_must_be_what_the_keys_make() -> None:
    made = schema_text()
    assert made == json.dumps(SHIPPED, indent=2, ensure_ascii=False) + "\n", (
        "see config/schema.py: make it again"
    )
    jsonschema.Draft7Validator.check_schema(SHIPPED)


def test_the_example_with_everything_must_be_valid_but_for_the_later_keys() -> None:
    wrong = jsonschema.Draft7Validator(SHIPPED).iter_errors(tomllib.loads(EVERYTHING))
    assert {".".join(map(str, each.path)) for each in wrong} == LATER


def test_the_example_must_name_every_key() -> None:
    told = tomllib.loads(EVERYTHING)
    services = told["services"].values()
    for table, given in [
        (APP, told),
        (BUILD, told["build"]),
        (SERVICE, {key for service in services for key in service}),
        (HEALTHCHECK, {key for service in services for key in service.get("healthcheck", {})}),
        (VOLUME, {key for volume in told["volumes"].values() for key in volume}),
        (RELEASE, told["release"]),
    ]:
        known = set(table.schema["properties"])
        # `schedule` is in the contract without an example.
        assert known - {"schedule"} == set(given)


def test_the_example_must_load_once_the_later_keys_are_gone(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "prod.env").write_text("A=b\n")
    (tmp_path / "imm.toml").write_text(EVERYTHING)
    with pytest.raises(ConfigError) as refused:
        read(tmp_path / "imm.toml")
    assert refused.value.code == "not_supported"
    told = [message.partition(":")[0] for message in [refused.value.message, *refused.value.details]]
    assert set(told) == LATER

    text = EVERYTHING.replace('[test]\ncommand = ["python", "-m", "pytest", "-q"]\ntimeout = "10m"\n', "")
    lines = [line for line in text.splitlines() if not line.startswith(("max_age", "snapshot"))]
    lines.remove('command = ["python", "manage.py", "migrate"]')
    (tmp_path / "imm.toml").write_text("\n".join(lines))
    assert valid(tomllib.loads((tmp_path / "imm.toml").read_text()))
    app = read(tmp_path / "imm.toml")
    assert {service.name for service in app.services} == {"web", "worker", "db"}
    assert app.watch == 60


def test_every_key_must_say_what_it_means() -> None:
    def keys(schema: dict[str, Any]) -> list[dict[str, Any]]:
        found = list(schema.get("properties", {}).values())
        for inner in [*found, schema.get("additionalProperties")]:
            if isinstance(inner, dict):
                found += keys(inner)
        return found

    assert len(keys(SHIPPED)) > 40
    assert all(key["description"] for key in keys(SHIPPED))
    assert Key.__doc__


# What a schema can't say: what lies in the folder, what keys or services have to do with one another, and the
# ranges of times and sizes.
BEYOND_A_SCHEMA = (
    "allows one writer",
    "already leads to",
    "belongs to the system",
    "can't be asked for a path",
    "must be a path of printable characters",
    "instances in all",
    "is a folder",
    "is mounted twice",
    "is for a shell",
    "is not a command",
    "lies outside",
    "must be a path without",
    "must be a range from low",
    "must be a size from",
    "must be a time from",
    "must be another path than /tmp",
    "must have no NUL",
    "131071 bytes at most",
    "at most in all, env_file",
    "must have numbers up to",
    "must start with a program",
    "there is no",
    "takes no traffic",
    "has a volume for one writer",
    "unknown volume",
    "must be an image that has a name",
)

# What patterns don't say: all that isn't printable, and which letters are one.
BEYOND_A_PATTERN = ("environment-name-turns-text-around", "domain-twice")

# What Python's validator of schemas takes otherwise than editors do: numbers of 6000 digits, `$` before the
# last newline, and nan, which JSON hasn't.
BEYOND_THE_VALIDATOR = ("port-enormous", "domain-ends-with-newline", "cpus-nan")


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.stem)
def test_what_imm_refuses_an_editor_must_refuse_too(case: Path) -> None:
    if case.stem.endswith((*BEYOND_THE_VALIDATOR, *BEYOND_A_PATTERN)):
        return
    try:
        told = tomllib.loads(case.read_text())
    except (ValueError, RecursionError):
        return
    expected = case.read_text().partition("\n")[0]
    if any(words in expected for words in BEYOND_A_SCHEMA):
        return
    assert not valid(told)


@pytest.mark.parametrize(
    "line",
    [
        'cap_add = ["NET_ADMIN", "cap_chown", "kill", "CAP_SYS_TIME"]',
        'command = "run  --all"',
        'command = ["run", "", " "]',
        'healthcheck = { path = "/up", status = 204 }',
        'healthcheck = { command = ["check"], interval = "1s" }',
        'environment = { "a.b-c" = 1, "ü" = true }',
        'volumes = ["a:/x/ü y", "b:/z"]',
        'domains = ["A.example", "b.example"]',
    ],
)
def test_what_imm_takes_an_editor_must_take_too(line: str, tmp_path: Path) -> None:
    text = f'name = "shop"\n[services.web]\nport = 1\n{line}\n'
    (tmp_path / "Dockerfile").touch()
    (tmp_path / "imm.toml").write_text(text)
    assert read(tmp_path / "imm.toml").services
    assert valid(tomllib.loads(text))
