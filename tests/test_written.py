"""What imm writes for a proxy is read back by that proxy: any values that imm.toml may hold, in one go for each kind."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immutable_local.engine import connect
from immutable_local.making import image_for
from immutable_local.proxy.nginx import PROXY, Nginx
from immutable_local.proxy.traefik import API, BASE, FOLDER, Traefik, _file_of, _of_app, _yaml
from immutable_local.routes import SLOTS, Side, Structure
from immutable_local.wait import until
from tests.host import Host, Project
from tests.test_nginx import APPS, DOMAINS, PREFIXES, SERVICES

NAMES = st.lists(SERVICES, min_size=1, max_size=3, unique=True)
START_SECONDS = 20.0


@st.composite
def structures(draw: st.DrawFn, arrived: int = 1) -> Structure:
    """An app as a release before and the next one leave it: two slots that may differ, several services."""
    sides: dict[str, dict[Any, Side]] = {}
    for position, service in enumerate(draw(NAMES)):
        domains = tuple(draw(st.lists(DOMAINS, min_size=1, max_size=3, unique=True)))
        path = draw(PREFIXES)
        sides[service] = {}
        for slot in SLOTS:
            if slot == "blue" and draw(st.booleans()):
                continue
            addresses = tuple(f"10.201.{position}.{3 + at}" for at in range(draw(st.integers(1, 3))))
            port = draw(st.integers(1, 65535))
            most, seconds = draw(st.integers(1, 16 << 40)), draw(st.integers(100, 86_400_000)) / 1000
            sides[service][slot] = Side(port, addresses, domains, path, draw(st.booleans()), most, seconds)
    return Structure(draw(APPS), arrived, sides, {})


def examples(most: int) -> list[list[Structure]]:
    """Hosts with some apps each, the same every time."""
    found: list[list[Structure]] = []

    @settings(max_examples=most)
    @given(st.lists(structures(), min_size=1, max_size=4, unique_by=lambda each: each.app))
    def gather(apps: list[Structure]) -> None:
        found.append(apps)

    gather()
    return found


@pytest.fixture(scope="module")
def app(shared: Host) -> Project:
    """Any app: with it the proxy's images are there."""
    return shared.project()


@contextmanager
def running(host: Host, image: str, files: Mapping[str, str], entrypoint: list[str]) -> Iterator[str]:
    """A container with these files, and no network."""
    tmpfs = {"/tmp": "mode=1777", f"{PROXY}/run": "mode=1777", f"{PROXY}/tmp": "mode=1777"}
    config = host.engine.create_host_config(tmpfs=tmpfs, network_mode="none")
    made = host.engine.create_container(image, [], entrypoint=entrypoint, host_config=config, user="101:101")[
        "Id"
    ]
    try:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content.encode())
                archive.addfile(entry, io.BytesIO(content.encode()))
        host.engine.put_archive(made, "/", packed.getvalue())
        host.engine.start(made)
        yield made
    finally:
        host.engine.remove_container(made, force=True)


def test_nginx_reads_whatever_is_written_for_it(shared: Host, app: Project):
    """And refuses one that is broken, so the check can fail."""
    texts = [Nginx().configuration(each) for each in examples(60)]
    files = {f"files/{at:03}.conf": text for at, text in enumerate(texts)}
    files["files/broken.conf"] = texts[-1].replace("proxy_pass", "proxy_pas", 1)
    check = (
        "cd /files; for each in *; do"
        " nginx -t -q -e stderr -c /files/$each 2>/tmp/said || { echo $each; cat /tmp/said; }; done"
    )
    image = image_for(connect(), Nginx.images)
    with running(shared, image, files, ["/bin/sh", "-c", check]) as container:
        shared.engine.wait(container, timeout=120)
        said = shared.engine.logs(container).decode()
    assert said.startswith("broken.conf\n") and said.count(".conf\n") == 1, said
    assert "[emerg]" in said


def test_traefik_takes_over_whatever_is_written_for_it(shared: Host, app: Project):
    """Each router, service and middleware as it was written, enabled, and no other."""
    apps = {each.app: each for some in examples(40) for each in some}
    written: dict[str, Any] = {}
    files = {f"{PROXY}/{FOLDER}/imm.yml".lstrip("/"): _yaml(BASE)}
    for at, (name, structure) in enumerate(apps.items()):
        slots = dict.fromkeys(structure.sides, "green")
        held = dict.fromkeys(list(structure.sides)[: at % 2], 50000 + at)
        content = _of_app(structure, slots, held, default_site=at == 0, counted=at % 3 == 0)
        files[f"{PROXY}/{FOLDER}/{_file_of(name)}".lstrip("/")] = content
        for kind, told in json.loads(content)["http"].items():
            written.setdefault(kind, {}).update(told)
    image = image_for(connect(), Traefik.images)
    with running(shared, image, files, ["traefik", *Traefik().container()["command"]]) as container:

        def told(kind: str) -> dict[str, Any] | None:
            ask = f"http://{API}/api/http/{kind}?per_page=100000"
            code, printed = shared.execute(container, "wget", "-q", "-O", "-", ask)
            if code or not printed:
                return None
            found = {each["name"]: each for each in json.loads(printed)}
            mine = {
                name.removesuffix("@file"): each for name, each in found.items() if name.endswith("@file")
            }
            return mine if set(written[kind]) <= set(mine) else None

        for kind in ("routers", "services", "middlewares"):
            there = until(lambda kind=kind: told(kind), START_SECONDS, pause=0.2)
            assert there is not None, shared.engine.logs(container).decode()[-4000:]
            assert {name for name in there if not name.startswith("imm-")} == {
                name for name in written[kind] if not name.startswith("imm-")
            }
            assert {each["status"] for each in there.values()} == {"enabled"}
            for name, asked in written[kind].items():
                for key in ("rule", "priority", "stripPrefix", "headers"):
                    assert there[name].get(key) == asked.get(key), (name, key)
            if kind == "services":
                for name, asked in written[kind].items():
                    assert there[name]["loadBalancer"]["servers"] == asked["loadBalancer"]["servers"]
        assert "ERR" not in shared.engine.logs(container).decode()
