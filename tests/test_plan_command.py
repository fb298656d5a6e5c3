"""`imm plan` says what `up` will do, and why; `up` does that, and nothing else."""

from __future__ import annotations

import pytest

from tests.host import Host, Project


@pytest.fixture(scope="module")
def app(shared: Host) -> Project:
    """Two services; each test changes something, plans it, and puts it live."""
    app = shared.project()
    return app.service(
        "worker", command=["python3", "-c", "import signal; signal.pause()"], stop_grace_period="0s"
    )


def changes(host: Host, app: Project) -> dict[str, tuple[str, str]]:
    told = host.imm(app, "plan").result
    return {each["service"]: (each["verb"], each["cause"]) for each in told["changes"]}


def containers(host: Host, app: Project) -> dict[str, set[str]]:
    """The ids of each service's containers."""
    found: dict[str, set[str]] = {}
    for each in host.instances(app):
        found.setdefault(each["Labels"]["imm.service"], set()).add(each["Id"])
    return found


def test_a_first_release_creates_every_service(shared: Host, app: Project):
    """The plan itself changes nothing: no container, image, network or volume."""
    with shared.nothing_left_over():
        assert changes(shared, app) == {
            "web": ("create", "first release"),
            "worker": ("create", "first release"),
        }
        shared.imm(app, "plan", "--exit-code", expect=10)
    shared.up(app)
    assert containers(shared, app).keys() == {"web", "worker"}


def test_when_nothing_changed_all_is_kept(shared: Host, app: Project):
    assert changes(shared, app) == {"web": ("keep", ""), "worker": ("keep", "")}
    assert shared.imm(app, "plan", "--exit-code").result["nothing_to_do"] is True
    assert shared.imm(app, "plan", text=True).stdout.splitlines() == [
        "keep web",
        "keep worker",
        "nothing to do",
    ]


def test_only_the_service_that_changed_is_replaced(shared: Host, app: Project):
    """The other one's container goes on in the new release."""
    before = containers(shared, app)
    app.service("worker", environment={"QUEUE": "b", "SIZE": "1"})
    planned = changes(shared, app)
    assert planned == {"web": ("keep", ""), "worker": ("replace", "environment changed: QUEUE, SIZE")}
    assert containers(shared, app) == before
    assert shared.up(app).result["release"] == 2
    after = containers(shared, app)
    assert after["web"] == before["web"]
    assert not after["worker"] & before["worker"]


def test_every_cause_is_told(shared: Host, app: Project):
    """Image, replicas, and a service that isn't asked for any more, at once."""
    app.version("2", replicas=2)
    del app.settings["services"]["worker"]
    app.write()
    planned = changes(shared, app)
    assert planned["web"] == ("replace", "image changed; replicas 1 → 2")
    assert planned["worker"] == ("remove", "no longer in imm.toml")
    said = shared.imm(app, "plan", text=True).stdout
    assert said == "replace web: image changed; replicas 1 → 2\nremove worker: no longer in imm.toml\n"
    shared.up(app)
    assert {service: len(ids) for service, ids in containers(shared, app).items()} == {"web": 2}


def test_an_instance_that_somebody_removed_is_named_and_replaced(shared: Host, app: Project):
    gone = shared.instances(app)[0]["Names"][0].lstrip("/")
    shared.engine.remove_container(gone, force=True)
    assert changes(shared, app)["web"] == ("replace", f"instance gone: {gone}")
    shared.imm(app, "plan", "--exit-code", expect=10)
    result = shared.up(app).result
    assert (result["outcome"], len(shared.running(app))) == ("live", 2)
    assert shared.imm(app, "plan").result["nothing_to_do"] is True
