"""Traefik: the file provider, a file for each app, renamed in from outside the watched folder.

A file holds what is live and nothing else: the servers of the live slots, or where requests wait. What
Traefik has taken over is read from its API, by a service that carries the file's digest in its name and
serves nothing. API and proof are on loopback addresses of the proxy's network, which the sidecar shares.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from immutable_local import lock
from immutable_local.engine import Engine
from immutable_local.errors import ProxyError
from immutable_local.live import Live
from immutable_local.proxy import AFRESH, Counts, Flip, flags, prove
from immutable_local.routes import SLOTS, Side, Slot, Structure
from immutable_local.sidecar.session import Session

PROXY = "/imm/proxy/data"
FOLDER = "traefik"
PORT = 8080
PROOF = "127.0.0.1:8098"
API = "127.0.0.1:8099"
# Answered by the sidecar; nobody's address is all that depends on it.
PAGE = "127.0.0.1:8097"
LOAD_SECONDS = 10.0
# The metric that counts requests by service and status.
REQUESTS = "traefik_service_requests_total"
# Several changes within this time are taken over as one; the first is taken over at once.
THROTTLE = "20ms"
# The application servers that close idle connections soonest do so after 2 s (gunicorn). Short enough, too,
# for an idle host to drain in under a second: once idle connections are closed, the others are in flight.
UPSTREAM_IDLE = "500ms"
OWN_NAME = r"(Host(`localhost`) || HostRegexp(`^[0-9.]+$`) || HostRegexp(`^\[?[0-9a-f.]*:[0-9a-f:.]*\]?$`))"

# What says the same as what Traefik replaces, X-Forwarded-* and X-Real-Ip: by RFC 7239, and as others say it.
UNFORGED = ("Forwarded", "X-Forwarded-Scheme", "X-Forwarded-Ssl")

STATIC = {
    "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
    "log": {"level": "WARN"},
    "entryPoints": {
        "web": {
            "address": f":{PORT}",
            "transport": {
                # An upload may take as long as it takes.
                "respondingTimeouts": {"readTimeout": 0, "idleTimeout": "75s"},
                "lifeCycle": {"graceTimeOut": "5s"},
            },
            "http": {
                # Else a ';' in a query would become '&', and its value end there.
                "encodeQuerySemicolons": True,
                # "X.Real.Ip" is X-Real-IP to whoever makes variables of headers, and not replaced as that is.
                "aliasHeadersStrategy": "delete",
            },
        },
        "proof": {"address": PROOF},
        "traefik": {"address": API},
    },
    "api": {"insecure": True, "dashboard": False},
    "metrics": {
        "prometheus": {
            "entryPoint": "traefik",
            "addEntryPointsLabels": False,
            "addServicesLabels": True,
            "buckets": 1.0,
        }
    },
    "providers": {
        "providersThrottleDuration": THROTTLE,
        "file": {"directory": f"{PROXY}/{FOLDER}", "watch": True},
    },
}

BASE: dict[str, Any] = {
    "http": {
        "serversTransports": {
            "imm": {
                "maxIdleConnsPerHost": 256,
                "forwardingTimeouts": {"dialTimeout": "5s", "idleConnTimeout": UPSTREAM_IDLE},
            }
        },
        "services": {"imm-nobody": {"loadBalancer": {"servers": [{"url": f"http://{PAGE}"}]}}},
        "middlewares": {
            "imm-unforged": {"headers": {"customRequestHeaders": dict.fromkeys(UNFORGED, "")}},
            "imm-stays": {"headers": {"customRequestHeaders": {"Upgrade": ""}}},
            # Nobody has this address, so that everybody is answered so.
            "imm-large": {"ipAllowList": {"sourceRange": ["255.255.255.255/32"], "rejectStatusCode": 413}},
        },
        "routers": {
            "imm-nobody": {
                "entryPoints": ["web"],
                "rule": "PathPrefix(`/`)",
                "priority": 1,
                "service": "imm-nobody",
            }
        },
    }
}


class Traefik:
    """Traefik 3."""

    kind = "traefik"
    # Before 3.7.12 it doesn't know all that it is told, and would not start.
    images: tuple[str, ...] = ("imm.local/traefik:3.7", "traefik:v3.7.15")
    container_port = PORT
    parks_on_tcp = True

    def container(self) -> Mapping[str, Any]:
        return {
            "entrypoint": ["traefik"],
            # With the container, not on the volume: one that starts again is told what it knows.
            "command": _options(STATIC),
            "user": "101:101",
            "tmpfs": {"/tmp": "rw,noexec,nosuid,nodev,size=16m,mode=1777"},
        }

    def seeds(self, read: Callable[[str], str | None]) -> Mapping[str, str]:
        return {f"{FOLDER}/imm.yml": _yaml(BASE)}

    def write(self, session: Session, structures: Sequence[Structure]) -> None:
        session.ask("proxy_sync", folder=FOLDER, files=self._files(session, structures))

    def load(self, engine: Engine, session: Session, structures: Sequence[Structure], settle: bool) -> None:
        # Only what is live is in force here: new routes of an idle side come with the flip, and nothing of an
        # old configuration lingers, so there is nothing to settle.
        files = self._files(session, structures)
        session.ask("proxy_sync", folder=FOLDER, files=files)
        for name, content in files.items():
            if name != "imm.yml":
                self._wait(session, name.removesuffix(".yml").removeprefix("app-"), content)

    def point(self, session: Session, app: str, live: Live) -> None:
        # Another app's deployment may be writing the files of all apps, as they were a moment ago.
        with lock.host(session, "flip"):
            known = [Structure.from_json(told) for told in session.ask("structures").values()]
            mine = next(each for each in known if each.app == app)
            # Which app answers for those who name no site doesn't change by a flip.
            held = _ports(session, app, live)
            content = _of_app(mine, live.slots, held, _first(known) == app, live.counted)
            files = {_file_of(app): content}
            told = live.to_json()
            session.ask("point", app=app, flags=flags(live), release=told, folder=FOLDER, files=files)
            self._wait(session, app, content)

    def withdraw(self, session: Session, app: str) -> None:
        with lock.host(session, "flip"):
            session.ask("unpoint", app=app, folder=FOLDER, files=[_file_of(app)])

    def confirm(self, session: Session, flips: Sequence[Flip]) -> None:
        # The header that names the instance stands also on what Traefik says itself when it can't reach it.
        prove(session, PROOF, flips, unanswered=(502, 504))

    def busy(
        self, session: Session, app: str, slots: Mapping[str, Slot], seconds: float, holding: bool = False
    ) -> list[str]:
        told = session.ask("structures").get(app)
        if told is None or not slots:
            return []
        structure = Structure.from_json(told)
        addresses = {
            service: list(structure.addresses.get(service, {}).get(slot, ()))
            for service, slot in slots.items()
        }
        return list(
            session.ask("unconnected", addresses=addresses, seconds=seconds, within=seconds + LOAD_SECONDS)
        )

    def busy_once_held(
        self, session: Session, app: str, slots: Mapping[str, Slot], seconds: float
    ) -> list[str]:
        # It goes by the connections to the instances, whatever came by them.
        return []

    def counts(self, session: Session, app: str, services: Collection[str]) -> dict[tuple[str, Slot], Counts]:
        names = {_serving(app, service, slot): (service, slot) for service in services for slot in SLOTS}
        told = session.ask("metrics", sock=API, name=REQUESTS, services=list(names))
        return {names[name]: Counts(*each) for name, each in told.items()}

    def _files(self, session: Session, structures: Sequence[Structure]) -> dict[str, str]:
        """What the watched folder is to hold: the base, and a file for each app that is live."""
        files = {"imm.yml": _yaml(BASE)}
        known = session.ask("live_releases")
        first = _first(structures)
        for each in structures:
            if told := known.get(each.app):
                live = Live.from_json(told)
                held = _ports(session, each.app, live)
                content = _of_app(each, live.slots, held, first == each.app, live.counted)
                files[_file_of(each.app)] = content
        return files

    def _wait(self, session: Session, app: str, content: str) -> None:
        """Return when Traefik has taken over this content."""
        path = f"/api/http/services/{_mark(app, content)}@file"
        told = session.ask("answers", sock=API, path=path, seconds=LOAD_SECONDS, within=LOAD_SECONDS * 2)
        if not told:
            raise ProxyError(
                f"Traefik did not take over the routes of {app} within {LOAD_SECONDS:.0f} s",
                hint=AFRESH,
            )


def _ports(session: Session, app: str, live: Live) -> dict[str, int | None]:
    """Where the requests to each held service wait; None when nobody has them wait any more."""
    return {service: session.ask("park_port", app=app, service=service) for service in live.held}


def _of_app(
    structure: Structure,
    slots: Mapping[str, Slot],
    held: Mapping[str, int | None],
    default_site: bool,
    counted: bool,
) -> str:
    """One app's routers and services: what is live of it, and whether what it answers is counted."""
    routers: dict[str, Any] = {}
    services: dict[str, Any] = {}
    middlewares: dict[str, Any] = {}
    transports: dict[str, Any] = {}
    # Of two services at one path the first answers for those who name no site.
    answered: set[str] = set()
    for name, of_service in sorted(structure.sides.items()):
        side = of_service.get(slots[name]) if name in slots else None
        if side is None:
            continue
        key = _key(structure.app, name)
        serving = _serving(structure.app, name, slots[name])
        services[serving] = _service(side, held.get(name), key)
        transports[key] = _transport(side)
        middlewares[f"{key}_proof"] = {
            "headers": {"customResponseHeaders": {"X-Imm-Upstream": f"{side.addresses[0]}:{side.port}"}}
        }
        strip = []
        if side.strip_path and side.path != "/":
            middlewares[f"{key}_strip"] = {"stripPrefix": {"prefixes": [side.path]}}
            strip = [f"{key}_strip"]
        sites = " || ".join(f"Host(`{domain}`)" for domain in side.domains)
        path = f" && (Path(`{side.path}`) || PathPrefix(`{side.path}/`))" if side.path != "/" else ""
        # The longest path wins. One beneath another is longer by two characters or more: between the two is
        # room for what is done with some requests to the upper one.
        length = 2 * len(side.path.rstrip("/"))
        rules = {"": (f"({sites}){path}", 1000 + length)}
        if default_site and side.path not in answered:
            answered.add(side.path)
            rules["_default"] = (f"{OWN_NAME}{path}", 500 + length)
        for suffix, (rule, priority) in rules.items():
            common = {
                "rule": rule,
                "priority": priority,
                "service": serving,
            }
            routers[f"{key}{suffix}"] = {
                **common,
                "entryPoints": ["web"],
                "middlewares": ["imm-unforged@file", *strip],
                # It costs a tenth of the requests that Traefik can answer.
                "observability": {"metrics": counted},
            }
            # No other protocol: in one that isn't looked into a client could say of itself what it likes.
            routers[f"{key}{suffix}_stays"] = {
                **routers[f"{key}{suffix}"],
                # The quicker question first.
                "rule": f"HeaderRegexp(`Upgrade`, `{_other_than('websocket')}`) && ({rule})",
                "priority": priority + 1,
                "middlewares": ["imm-stays@file", "imm-unforged@file", *strip],
            }
            routers[f"{key}{suffix}_large"] = {
                "rule": f"HeaderRegexp(`Content-Length`, `{_more_than(side.max_body)}`) && ({rule})",
                "priority": priority + 2,
                "service": "imm-nobody@file",
                "entryPoints": ["web"],
                "middlewares": ["imm-large@file"],
            }
            routers[f"{key}{suffix}_proof"] = {
                **common,
                "entryPoints": ["proof"],
                "middlewares": [*strip, f"{key}_proof"],
                # imm's own requests are no client's.
                "observability": {"metrics": False},
            }
    told = {
        "routers": routers,
        "services": services,
        "middlewares": middlewares,
        "serversTransports": transports,
    }
    digest = hashlib.sha256(_yaml(told).encode()).hexdigest()[:16]
    services[f"imm-mark-{structure.app}-{digest}"] = {
        "loadBalancer": {"servers": [{"url": "http://127.0.0.1:9"}]}
    }
    # An empty map is an error to Traefik, not an empty map.
    return _yaml({"http": {key: value for key, value in told.items() if value}})


def _service(side: Side, parked_at: int | None, transport: str) -> dict[str, Any]:
    servers = [{"url": f"http://{address}:{side.port}"} for address in side.addresses]
    if parked_at is not None:
        # Where requests wait their time is bounded by the parking itself.
        servers, transport = [{"url": f"http://127.0.0.1:{parked_at}"}], "imm@file"
    return {"loadBalancer": {"servers": servers, "serversTransport": transport, "passHostHeader": True}}


def _transport(side: Side) -> dict[str, Any]:
    base = BASE["http"]["serversTransports"]["imm"]
    patience = f"{round(side.response_timeout * 1000)}ms"
    return {**base, "forwardingTimeouts": {**base["forwardingTimeouts"], "responseHeaderTimeout": patience}}


def _serving(app: str, service: str, slot: Slot) -> str:
    """The name that carries the slot, so that Traefik counts two releases apart."""
    return f"{_key(app, service)}_{slot}"


def _key(app: str, service: str) -> str:
    # Names have no '_': no two services have a name in common here, nor has one of imm's own.
    return f"{app}_{service}"


def _more_than(limit: int) -> str:
    """A regular expression for the whole numbers greater than `limit`."""
    digits = str(limit)
    longer = f"[0-9]{{{len(digits) + 1},}}"
    same = [
        f"{digits[:at]}[{int(digit) + 1}-9][0-9]{{{len(digits) - at - 1}}}"
        for at, digit in enumerate(digits)
        if digit != "9"
    ]
    return f"^({'|'.join([longer, *same])})$"


def _other_than(word: str) -> str:
    """A regular expression for what isn't this word, in whatever case. Go's can't say "not"."""
    wrong = [f".{{{at}}}[^{each}{each.upper()}].*" for at, each in enumerate(word)]
    return f"^({'|'.join([f'.{{0,{len(word) - 1}}}', f'.{{{len(word) + 1},}}', *wrong])})$"


def _options(told: Mapping[str, Any], within: str = "") -> list[str]:
    """A static configuration as Traefik's command line has it."""
    options = []
    for name, value in told.items():
        if isinstance(value, Mapping):
            options += _options(value, f"{within}{name}.")
        else:
            options.append(f"--{within}{name}={str(value).lower() if isinstance(value, bool) else value}")
    return options


def _first(structures: Sequence[Structure]) -> str | None:
    """The app that answers for those who name no site."""
    return min(structures, key=lambda each: (each.arrived, each.app)).app if structures else None


def _mark(app: str, content: str) -> str:
    services: dict[str, object] = json.loads(content)["http"]["services"]
    return next(name for name in services if name.startswith(f"imm-mark-{app}-"))


def _file_of(app: str) -> str:
    return f"app-{app}.yml"


def _yaml(told: Any) -> str:
    # JSON is YAML.
    return json.dumps(told, indent=1, sort_keys=True) + "\n"
