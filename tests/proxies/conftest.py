"""One engine and one host for all tests of this folder: behind each kind of proxy in turn, switched once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.host import Project
from tests.proxies.place import Place, engine_apart, image
from tests.remote.second_engine import why_not

KINDS = ("nginx", "traefik")


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A host without a proxy."""
    if reason := why_not():
        pytest.skip(reason)
    base, *proxies = (image(name) for name in ("python", *KINDS))
    with engine_apart(base, *proxies) as engine:
        yield Place(tmp_path_factory.mktemp("proxies"), base, engine)


@pytest.fixture(scope="session")
def first(fresh: Place) -> Project:
    """The first app of the host, deployed once: a proxy that takes over finds it there."""
    app = fresh.project("first")
    fresh.up(app)
    return app


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def place(fresh: Place, kind: str) -> Place:
    """The host behind that kind of proxy."""
    fresh.switch(kind)
    return fresh
