"""Which request proves that a flip has reached a service."""

from __future__ import annotations

from dataclasses import replace

import pytest

from immutable_local.app import HealthCheck, Service
from immutable_local.flip import proofs_of
from immutable_local.routes import SLOTS, Side, Structure
from tests.values import release


def structure(app: str, *services: Service) -> Structure:
    sides = {each.name: dict.fromkeys(SLOTS, Side.of(each, ("10.201.1.3",))) for each in services}
    return Structure(app, 1, sides, {})


def asked(service: Service, *beside: Service, others: tuple[Structure, ...] = ()) -> tuple[str, str]:
    """The domain and path of the request that proves a flip of the service, beside others of its app."""
    own = structure("shop", service, *beside)
    [flip] = proofs_of(release(service, *beside), {service.name: "green"}, own, others)
    return flip.host, flip.path


def web(path: str = "/", health: str | None = None, **more: bool) -> Service:
    check = HealthCheck(path=health)
    return Service("web", 8000, ("shop.example", "www.example"), path, healthcheck=check, **more)


API = Service("api", 8000, ("shop.example",), "/api")


@pytest.mark.parametrize(
    ("service", "path"),
    [
        (web(health="/up?deep=1"), "/up?deep=1"),
        (web(), "/"),
        (web("/shop", "/shop/up"), "/shop/up"),
        (web("/shop", "/shop"), "/shop"),
        (web("/shop", "/up"), "/shop"),
        (web("/shop", "/up", strip_path=True), "/shop/up"),
        (web("/shop", "/shopping"), "/shop"),
        (web("/shop", "/shop/../up"), "/shop"),
    ],
)
def test_a_flip_is_proved_by_what_the_health_check_asks(service: Service, path: str):
    """That is known to answer, and soon. Where the service's path doesn't lead there: by that path."""
    assert asked(service) == ("shop.example", path)


@pytest.mark.parametrize("health", ["/api", "/api/health", "/%61pi/health", "/x/../api/health", "/api?x=1"])
def test_no_service_is_proved_by_the_answers_of_another(health: str):
    """Of the same app, or another one: whichever has the longer path of that domain."""
    assert asked(web(health=health), API) == ("shop.example", "/")
    assert asked(web(health=health), others=(structure("other", API),)) == ("shop.example", "/")
    elsewhere = replace(API, domains=("api.example", "www.example"))
    assert asked(web(health=health), elsewhere) == ("shop.example", health)


def test_what_is_cut_off_may_be_what_another_service_has():
    """The health check's path is the application's; asked from outside it is another one."""
    beneath = replace(API, path="/shop/api")
    assert asked(web("/shop", "/api/up", strip_path=True), beneath) == ("shop.example", "/shop")
    assert asked(web("/shop", "/api/up", strip_path=True), API) == ("shop.example", "/shop/api/up")
