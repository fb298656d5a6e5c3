"""Secrets are files that the service's user alone can read, and are found nowhere else."""

from __future__ import annotations

import json
import subprocess

import pytest

from immutable_local import secret
from immutable_local.app import App, Service
from immutable_local.errors import ConfigError
from tests.host import Host, Project

VALUE = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def app(shared: Host) -> Project:
    app = shared.project().version("1", secrets=["TOKEN"])
    told = shared.imm(app, "secret", "set", "TOKEN", told=f"{VALUE}\n").result
    assert told == {"app": app.name, "secret": "TOKEN", "changed": True}
    shared.up(app)
    return app


def test_the_value_is_a_file_that_the_services_user_alone_can_read(shared: Host, app: Project):
    """Mode 400, the user's own; another user of the same container is refused."""
    assert shared.get("/read?/run/secrets/TOKEN", app) == f"1000:1000 400 {VALUE}"
    name = shared.running(app)[0]
    read = "open('/run/secrets/TOKEN').read()"
    assert "PermissionError" in shared.printed(name, "python3", "-c", read, user="1001:1000", expect=1)


def test_the_value_stands_in_nothing_that_the_engine_tells(shared: Host, app: Project):
    """Containers, images, their history and labels, volumes; the processes' arguments and environments."""
    name = shared.running(app)[0]
    told = [
        shared.inspect(name),
        shared.inspect("imm-sidecar"),
        shared.inspect("imm-proxy"),
        shared.engine.top(name),
    ]
    for image in shared.images(app):
        told += [shared.engine.inspect_image(image), shared.engine.history(image)]
    processes = "cat /proc/*/environ /proc/*/cmdline; true"
    told += [shared.engine.volumes(), shared.printed(name, "sh", "-c", processes)]
    assert "TOKEN" in json.dumps(told)
    assert VALUE not in json.dumps(told)


def test_the_value_stands_in_nothing_that_imm_tells(shared: Host, app: Project):
    """History, plan, status, logs, the list of secrets, and the ledger's files."""
    commands = [["history"], ["plan"], ["status"], ["logs"], ["secret", "list"]]
    told = "".join(str(shared.imm(app, *words)) for words in commands)
    read = f"cat /imm/state/data/ledger/{app.name}/* /imm/proxy/data/apps/{app.name}/live/*"
    state = shared.printed("imm-sidecar", "sh", "-c", read)
    assert '"event":"went_live"' in state
    assert VALUE not in told + state


def test_the_value_never_stands_in_an_argument_list(shared: Host, app: Project):
    """Looked at while it is being set."""
    hidden = "another-secret-value-entirely"
    command, seen = shared.command(app, "secret", "set", "OTHER"), ""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=app.folder) as setting:
        assert setting.stdin is not None
        # It has begun, and waits for the value: whatever comes later, it was looked at once.
        seen += listed()
        setting.stdin.write(hidden.encode())
        setting.stdin.close()
        while setting.poll() is None:
            seen += listed()
    assert setting.returncode == 0
    assert "secret set OTHER" in seen
    assert hidden not in seen


def listed() -> str:
    """The arguments of every process of this machine."""
    return subprocess.check_output(["ps", "-ww", "-eo", "args"], text=True)


def test_the_list_has_names_and_never_values(shared: Host, app: Project):
    app.version("1", secrets=["TOKEN", "LATER"])
    told = shared.imm(app, "secret", "list").result
    app.version("1", secrets=["TOKEN"])
    assert {each["name"] for each in told} >= {"TOKEN", "LATER"}
    assert next(each["since"] for each in told if each["name"] == "LATER") is None


def test_a_changed_secret_replaces_the_instances_of_the_same_release(shared: Host, app: Project):
    """The plan says why; setting the same value again changes nothing."""
    before = shared.running(app)
    assert shared.imm(app, "secret", "set", "TOKEN", told=VALUE).result["changed"] is False
    assert shared.imm(app, "plan").result["nothing_to_do"] is True
    assert shared.imm(app, "secret", "set", "TOKEN", told="new-value").result["changed"] is True
    assert shared.imm(app, "plan").result["changes"][0]["cause"] == "secret changed: TOKEN"
    result = shared.up(app).result
    assert (result["outcome"], result["release"]) == ("live", 1)
    assert shared.get("/read?/run/secrets/TOKEN", app).endswith(" new-value")
    assert set(shared.running(app)).isdisjoint(before)


def test_a_secret_goes_with_its_instance(shared: Host, app: Project):
    """The unnamed volume that held it is removed with the container."""
    mine = {"label": [f"imm.app={app.name}", "imm.role=secrets"]}
    assert len(shared.engine.volumes(filters=mine)["Volumes"] or []) == len(shared.running(app))


def values_left(host: Host, app: Project) -> set[str]:
    """The volumes with values of the app that no container has."""
    asked = {"dangling": True, "label": [f"imm.app={app.name}", "imm.role=secrets"]}
    return {each["Name"] for each in host.engine.volumes(filters=asked)["Volumes"] or []}


def test_values_that_somebody_left_with_the_host_go(host: Host, app: Project):
    """docker rm -f leaves an instance's unnamed volume, with the values in it: imm up, prune and down remove it.

    Not one that has a name, nor another app's.
    """
    mine, another = host.project().version("1", secrets=["TOKEN"]), host.project()
    labels = {"imm.role": "secrets", "imm.app": mine.name}
    named = host.engine.create_volume(f"{mine.name}-by-hand", labels=labels)["Name"]
    others = host.engine.create_volume(labels={**labels, "imm.app": another.name})["Name"]
    host.imm(mine, "secret", "set", "TOKEN", told=VALUE)
    host.up(mine)
    host.engine.remove_container(host.running(mine)[0], force=True)
    assert len(values_left(host, mine)) == 2
    host.up(mine)
    assert values_left(host, mine) == {named}
    for command in ("prune", "down"):
        host.engine.create_volume(labels=labels)
        assert len(values_left(host, mine)) == 2
        host.imm(mine, command)
        assert values_left(host, mine) == {named}
    assert values_left(host, another) == {others}


def test_down_says_that_secrets_are_kept(host: Host):
    """By their names, in the line that lists what is kept."""
    app = host.project().version("1", secrets=["TOKEN", "ANOTHER"])
    for name in ("TOKEN", "ANOTHER"):
        host.imm(app, "secret", "set", name, told=VALUE)
    host.up(app)
    assert host.imm(app, "down").result["remarks"][0] == "kept: secrets ANOTHER, TOKEN, and the history"
    assert {each["name"] for each in host.imm(app, "secret", "list").result} == {"TOKEN", "ANOTHER"}


def test_a_removed_secret_is_missing_at_the_next_up(shared: Host, app: Project):
    """What runs keeps what it was given."""
    shared.imm(app, "secret", "set", "SHORT", told="x")
    shared.up(app.version("2", secrets=["TOKEN", "SHORT"]))
    said = shared.imm(app, "secret", "remove", "SHORT", text=True).stdout
    assert said.startswith("SHORT is removed\nnext: web in imm.toml still names it: ")
    assert shared.up(app, expect=2).error["code"] == "secret_missing"
    assert shared.get("/read?/run/secrets/SHORT", app).endswith(" x")
    assert shared.imm(app, "secret", "remove", "SHORT", expect=1).error["code"] == "not_found"


def test_all_secrets_without_a_value_are_told_at_once():
    """Those of every service, each with its command; the first service's line is told."""
    web, api = Service("web", secrets=("A", "B", "C")), Service("api", secrets=("C", "D"))
    with pytest.raises(ConfigError) as refused:
        secret.check_all_set(App("shop", (web, api)), {"A": "1"})
    error = refused.value
    assert (error.code, error.key) == ("secret_missing", ("services", "web", "secrets"))
    assert error.message == "services.web.secrets: B, C have no value yet"
    assert error.details == ["services.api.secrets: C, D have no value yet"]
    assert error.hint == "imm secret set B; imm secret set C; imm secret set D"
