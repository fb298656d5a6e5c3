"""nginx: two fixed upstreams for each service, and a flag file that says which one serves.

A flip makes one flag appear (or vanish) by renaming the app's `live` link; nothing is reloaded, so no
client's connection notices. Only a change of structure reloads, with `keepalive_min_timeout` so that idle
kept-alive clients are not cut.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from immutable_local.engine import Engine
from immutable_local.errors import ProxyError
from immutable_local.live import Live
from immutable_local.proxy import AFRESH, ALIVE, COUNTED, OPEN, Counts, Flip, flags, prove
from immutable_local.routes import SLOTS, Side, Slot, Structure, other
from immutable_local.sidecar.session import Session

PROXY = "/imm/proxy/data"
PORT = 8080
LOAD_SECONDS = 10.0
# A worker that doesn't come by for so long hangs, and what it is at is not waited for.
PASS_SECONDS = 10.0
# What nginx calls its processes. "nginx: worker process is shutting down" is cut off at 80 columns where the
# engine's environment says so.
WORKER = "worker process"
LEAVING = "worker process is"
# How long a worker that is leaving still waits for the next request on an idle kept-alive connection.
KEEPALIVE_MIN_SECONDS = 2.0
# On a busy machine a worker that leaves comes by late.
LEAVING_SECONDS = KEEPALIVE_MIN_SECONDS + 1.5
# The application servers that close idle connections soonest do so after 2 s (gunicorn): nginx must be first,
# else a POST now and then meets a connection that is just being closed.
UPSTREAM_IDLE_SECONDS = 1
# A connection on one host takes microseconds, but the kernel tries again after a second when an application
# accepts too slowly; an instance that is gone must not make requests wait for longer than that.
CONNECT_MS = 2500
# Where the sidecar counts; nothing listens there when it is gone, and then nothing is counted.
COUNTER = "127.0.0.1:8096"
PASSAGE = "127.0.0.1:8098"
# Statuses that no server sends, for the way inside the proxy to where requests wait.
HELD_STATUS = 470

HEAD = """\
worker_processes auto;
# One regular expression is looked at in each request: compiled, it takes 3 % less of nginx's time.
pcre_jit on;
# Each request looks at flag files: from here their paths are short.
working_directory {proxy};
error_log stderr warn;
pid /tmp/nginx.pid;
worker_rlimit_nofile 16384;
# Without multi_accept: one worker would take all connections that come at once, and the other cores idle.
events {{ worker_connections 8192; }}
http {{
  access_log off;
  server_tokens off;
  sendfile on;
  tcp_nodelay on;
  keepalive_timeout 75s;
  keepalive_min_timeout {keepalive_min:g}s;
  keepalive_requests 100000;
  server_names_hash_bucket_size 512;
  variables_hash_bucket_size 256;
  variables_hash_max_size 8192;
  map_hash_bucket_size 512;
  client_body_temp_path {proxy}/tmp/body;
  proxy_temp_path {proxy}/tmp/answers;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  large_client_header_buffers 8 32k;
  # Each service has a bound of its own; whoever asks for an address that nobody owns is told that instead.
  client_max_body_size 0;

  # An answer goes on as it arrives: a buffered event stream hangs.
  proxy_buffering off;
  # What an answer's headers may have. From 28k on each request costs a third more of nginx's time (measured).
  proxy_buffer_size 24k;
  proxy_buffers 8 32k;
  proxy_busy_buffers_size 64k;
  proxy_http_version 1.1;
  proxy_connect_timeout {connect}ms;
  proxy_read_timeout 3600s;
  proxy_send_timeout 3600s;
  proxy_next_upstream error timeout;
  # What an application says to a proxy of its own is said to nobody here. Obeyed, it would send requests on
  # to other apps, where they are counted as the first one's.
  proxy_ignore_headers X-Accel-Redirect X-Accel-Limit-Rate X-Accel-Buffering X-Accel-Charset X-Accel-Expires;
  proxy_pass_header X-Accel-Redirect;
  proxy_pass_header X-Accel-Limit-Rate;
  proxy_pass_header X-Accel-Buffering;
  proxy_pass_header X-Accel-Charset;
  proxy_pass_header X-Accel-Expires;
  proxy_set_header Host $imm_host;
  proxy_set_header Upgrade $imm_upgrade;
  proxy_set_header Connection $imm_connection;
  # Replaced, never appended to: what a client says of itself proves nothing.
  proxy_set_header X-Real-IP $remote_addr;
  proxy_set_header X-Forwarded-For $remote_addr;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Forwarded-Host $imm_host;
  proxy_set_header X-Forwarded-Port $imm_port;
  proxy_set_header X-Forwarded-Prefix $imm_prefix;
  proxy_set_header X-Forwarded-Server "";
  proxy_set_header X-Forwarded-Uri "";
  proxy_set_header X-Forwarded-Method "";
  proxy_set_header X-Forwarded-Scheme "";
  proxy_set_header X-Forwarded-Ssl "";
  proxy_set_header Forwarded "";

  # No other protocol: in one that isn't looked into, h2c for one, a client could say of itself what it likes.
  map $http_upgrade $imm_upgrade {{ default ''; websocket $http_upgrade; }}
  map $http_upgrade $imm_connection {{ default ''; websocket upgrade; }}
  # A request line that names a host wins over the header (RFC 9112, 3.2.2): the app is chosen by it, too.
  map $request $imm_host {{
    default $http_host;
    "~^[^ ]+ +[^/ ][^:]*://(?<imm_authority>[^/? ]+)" $imm_authority;
  }}
  # The port that the client named: this one is the container's, and published as another.
  map $imm_host $imm_port {{ "~:(?<imm_named>[0-9]+)$" $imm_named; default 80; }}
  # What is left of a path as the client spelled it, "%2F" and "//" included, but never "//" at its begin: to
  # many an application a host follows there. Empty where the path doesn't begin with the prefix as that is
  # spelled, or a part of it begins with a dot: then it is what nginx makes of it. All of the path where the
  # release that is live cuts nothing off.
  map "$imm_prefix $request_uri" $imm_uri {{
    default '';
    "~^ (?<imm_as_sent>.+)$" $imm_as_sent;
    "~^(/[^ ]+) \\1(?![^?]*(?:/|%2[Ff])(?:\\.|%2[Ee]))(?=[/?]|$)/*(?<imm_left>.*)$" /$imm_left;
  }}
  # Only on the private socket does the proxy say who answered.
  map $remote_addr $imm_answered_by {{ default ''; "unix:" $imm_by; }}
  # Of several instances tried, the last one; a refused connection brought no byte, and is nobody's answer.
  map $upstream_bytes_received $imm_by {{ default ''; "~^(.*[ ,])?[1-9][0-9]*$" $upstream_addr; }}
  # Counted while two releases serve: by slot, so that they can be compared.
  map $imm_counted $imm_counts {{ default ''; 1 $imm_client; }}
  map $remote_addr $imm_client {{ default 1; "unix:" ''; }}
  log_format imm_counts '$imm_key $status';
  # What is in flight, by slot: from a request's headers to its end, bodies still on their way included.
  limit_conn_zone $imm_key zone=in_flight:1m;
  limit_conn_status 503;
  limit_conn_log_level info;
"""

GENERATION = re.compile(r'location = /generation .* return 200 "([0-9a-f]{16})"')
CONTROL = """\
  server {{
    listen unix:{proxy}/run/control.sock;
    # Each worker has a queue of its own here: who connects often enough meets them all.
    listen {passage} reuseport;
    set $imm_key '';
    location = /passed {{ return 204; }}
    location = /generation {{ default_type text/plain; return 200 "{generation}"; }}
    location ~ "^/idle/(?<imm_probed>[a-z0-9_]+)$" {{
      set $imm_key $imm_probed;
      limit_conn in_flight 1;
      try_files /imm-none @idle;
    }}
    location @idle {{ return 204; }}
  }}
"""

ERRORS = """\
    error_page 404 @imm_nobody;
    error_page 413 @imm_large;
    error_page 502 504 @imm_silent;
    error_page 503 @imm_gap;
"""

# Where requests wait while a service with a volume for one writer is replaced.
HOLD = """\
    location @{hold} {{
      set $imm_key {upstream}__{slot};
      limit_conn in_flight 65535;
      client_max_body_size {max_body};
      {rewrite}error_page 502 503 504 =503 @imm_gap;
      proxy_pass http://{upstream}{uri};
    }}
"""

SERVER = """\
  server {{
    listen {port}{default};
    listen unix:{proxy}/run/front.sock{default};
    server_name {names};
    set $imm_key ''; set $imm_prefix ''; set $imm_counted ''; set $imm_looks '';
    access_log syslog:server={counter},nohostname,tag=imm imm_counts if=$imm_counts;
    add_header X-Imm-Upstream $imm_answered_by always;
{errors}    location @imm_nobody {{
      default_type text/plain;
      return 404 "404: this is imm's proxy, and no app here serves $host$uri\\n";
    }}
    location @imm_large {{
      default_type text/plain;
      return 413 "413: this is imm's proxy: the body is larger than max_body of the app behind $host\\n";
    }}
    location @imm_silent {{
      default_type text/plain;
      return 502 "$status: this is imm's proxy: the app behind $host does not answer; see imm status\\n";
    }}
    location @imm_gap {{
      default_type text/plain;
      add_header Retry-After 2 always;
      return 503 "503: this is imm's proxy: the app behind $host is just being replaced; try again\\n";
    }}
{slots}{locations}  }}
"""


@dataclass(frozen=True)
class _Route:
    """What one slot of a service serves."""

    app: str
    service: str
    slot: Slot
    side: Side

    def is_of(self, app: str, service: str) -> bool:
        return (self.app, self.service) == (app, service)

    @property
    def path(self) -> str:
        return self.side.path

    @property
    def upstream(self) -> str:
        return _upstream(self.app, self.service, self.slot)

    @property
    def cut(self) -> str:
        """What the application doesn't see of a path."""
        return self.path if self.side.strip_path and self.path != "/" else ""

    def seen_of(self, path: str) -> str:
        """What it sees of a request beneath `path`, in the variables of that place."""
        if not self.cut:
            return "$imm_whole"
        return "/$imm_rest" if self.cut == path else f"{path.removeprefix(self.cut)}$imm_below"


class Nginx:
    """nginx 1.27.4 or newer."""

    kind = "nginx"
    images: tuple[str, ...] = ("imm.local/nginx:1.31", "nginx:1.29-alpine")
    container_port = PORT
    parks_on_tcp = False

    def __init__(self, runs_in: str = "") -> None:
        self.runs_in = runs_in

    def container(self) -> Mapping[str, Any]:
        # A killed nginx leaves its sockets' names behind, and would refuse to start over them.
        start = (
            f"rm -f {PROXY}/run/*.sock; mkdir -p {PROXY}/tmp/body {PROXY}/tmp/answers;"
            f" exec nginx -e stderr -c {PROXY}/nginx.conf -g 'daemon off;'"
        )
        return {
            "entrypoint": ["/bin/sh", "-c", start],
            "command": [],
            "user": "101:101",
            "stop_signal": "SIGQUIT",
            "tmpfs": {"/tmp": "rw,noexec,nosuid,nodev,size=16m,mode=1777"},
        }

    def configuration(self, structures: Sequence[Structure]) -> str:
        """The whole of nginx.conf for these apps."""
        body = "".join(_http(structures))
        head = HEAD.format(proxy=PROXY, keepalive_min=KEEPALIVE_MIN_SECONDS, connect=CONNECT_MS)
        return head + _control(_generation(head, body)) + body + "}\n"

    def seeds(self, read: Callable[[str], str | None]) -> Mapping[str, str]:
        return {} if generation_of(read("nginx.conf") or "") else {"nginx.conf": self.configuration([])}

    def write(self, session: Session, structures: Sequence[Structure]) -> None:
        session.ask("proxy_write", name="nginx.conf", content=self.configuration(structures))

    def load(self, engine: Engine, session: Session, structures: Sequence[Structure], settle: bool) -> None:
        text = self.configuration(structures)
        written = session.ask("proxy_read", name="nginx.conf")
        if written != text:
            if generation_of(written or ""):
                # A command was interrupted at a reload, which may still be on its way: it would read the file
                # as it is now, and come into force after workers of before were taken for those asked for.
                with suppress(ProxyError):
                    self._follow(engine, session, written, settle=False)
            session.ask("proxy_write", name="nginx.conf.new", content=text)
            # nginx keeps the old configuration when a new one is wrong, and tells nobody: it is asked before.
            code, said = engine.execute(
                self.runs_in, ["nginx", "-t", "-q", "-e", "stderr", "-c", f"{PROXY}/nginx.conf.new"]
            )
            if code != 0:
                raise ProxyError(
                    "nginx refused the new configuration; the old one is still in force",
                    details=said.decode(errors="replace").strip().splitlines()[-5:],
                    hint="this is a fault of imm's: please report it with the lines above",
                )
            session.ask("proxy_rename", old="nginx.conf.new", new="nginx.conf")
        self._follow(engine, session, text, settle)

    def _follow(self, engine: Engine, session: Session, text: str, settle: bool) -> None:
        """Let nginx follow its file, which holds `text`, unless it does. Raises ProxyError when it fails."""
        generation = generation_of(text)
        if session.ask("loaded", sock="control.sock", generation=generation, seconds=0.0)["loaded"]:
            # The command before this one may have loaded it a moment ago.
            if settle and session.ask("proxy_age", name="nginx.conf") < LEAVING_SECONDS:
                self._settled(engine, engine.processes(self.runs_in, LEAVING), gone=True)
            return
        # All of them: for a moment the old ones don't know yet that they are to leave, and take in requests.
        old = engine.processes(self.runs_in, WORKER)
        # Not the engine's own signal: after that it doesn't start the proxy again by itself (moby#41302).
        engine.execute(self.runs_in, ["sh", "-c", "kill -HUP 1"])
        if not session.ask("loaded", sock="control.sock", generation=generation, seconds=LOAD_SECONDS)[
            "loaded"
        ]:
            raise ProxyError(
                f"nginx did not load the new configuration within {LOAD_SECONDS:.0f} s",
                details=engine.logs(self.runs_in, tail=5).decode(errors="replace").strip().splitlines(),
                hint=AFRESH,
            )
        self._settled(engine, old, settle)

    def point(self, session: Session, app: str, live: Live) -> None:
        session.ask("point", app=app, flags=flags(live), release=live.to_json())

    def withdraw(self, session: Session, app: str) -> None:
        session.ask("unpoint", app=app)

    def confirm(self, session: Session, flips: Sequence[Flip]) -> None:
        prove(session, "front.sock", flips)
        self._passed(session)

    def busy(
        self, session: Session, app: str, slots: Mapping[str, Slot], seconds: float, holding: bool = False
    ) -> list[str]:
        keys = {_upstream(app, service, slot): service for service, slot in slots.items()}
        # What was parked when the other slot was live went on to this one, and may still be at it. What was
        # parked when this one was live may have come back to it.
        keys |= {f"{_hold(app, service)}__{other(slot)}": service for service, slot in slots.items()}
        keys |= {} if holding else _parked(app, slots)
        if not keys:
            return []
        self._passed(session)
        return self._still_busy(session, keys, seconds)

    def busy_once_held(
        self, session: Session, app: str, slots: Mapping[str, Slot], seconds: float
    ) -> list[str]:
        return self._still_busy(session, _parked(app, slots), seconds)

    def _still_busy(self, session: Session, keys: Mapping[str, str], seconds: float) -> list[str]:
        still = session.ask(
            "idle", sock="control.sock", keys=list(keys), seconds=seconds, within=seconds + 30
        )
        return sorted({keys[key] for key in still})

    def counts(self, session: Session, app: str, services: Collection[str]) -> dict[tuple[str, Slot], Counts]:
        keys = {_upstream(app, service, slot): (service, slot) for service in services for slot in SLOTS}
        told = session.ask("counted", keys=list(keys))
        return {keys[key]: Counts(*each) for key, each in told.items()}

    def _passed(self, session: Session) -> None:
        """Return when every worker has ended what it was doing.

        A worker may lose its processor between its look at a flag and the count of what is in flight, and
        would then send a request to where nobody expects one any more.
        """
        session.ask("passed", address=PASSAGE, path="/passed", seconds=PASS_SECONDS, within=PASS_SECONDS * 2)

    def _settled(self, engine: Engine, old: Collection[str], gone: bool) -> None:
        """Wait until these workers, which follow an old configuration, are about to leave, or have `gone`.

        That they leave shows by their title, so that a command that comes next knows them. A websocket pins
        such a worker for as long as it is open, but no new request reaches it once idle connections have had
        their KEEPALIVE_MIN_SECONDS: hardly longer is waited.
        """
        deadline = time.monotonic() + LEAVING_SECONDS
        while old and time.monotonic() < deadline:
            leaving = set() if gone else engine.processes(self.runs_in, LEAVING)
            old = engine.processes(self.runs_in, WORKER).intersection(old) - leaving
            time.sleep(0.05 if old else 0.0)


def generation_of(text: str) -> str:
    """The name of a configuration, which says what it holds; empty where it isn't what was written."""
    name = "".join(GENERATION.findall(text))
    head, control, rest = text.partition(_control(name))
    whole = control and rest.endswith("}\n") and name == _generation(head, rest.removesuffix("}\n"))
    return name if whole else ""


def _generation(head: str, body: str) -> str:
    return hashlib.sha256(f"{head}{CONTROL}{body}".encode()).hexdigest()[:16]


def _control(generation: str) -> str:
    return CONTROL.format(proxy=PROXY, generation=generation, passage=PASSAGE)


def _http(structures: Sequence[Structure]) -> Iterator[str]:
    by_arrival = sorted(structures, key=lambda each: (each.arrived, each.app))
    default_app = by_arrival[0] if by_arrival else None
    for structure in by_arrival:
        for service, of_service in sorted(structure.sides.items()):
            parking = f"unix:{PROXY}/park/{structure.app}.{service}"
            # One request each: newer nginx (1.29.7) keeps connections, and they lead to an earlier parking.
            yield (
                f"  upstream {_hold(structure.app, service)} {{ server {parking} max_fails=0;"
                " keepalive_requests 1; }\n"
            )
            for slot, side in sorted(of_service.items()):
                servers = "".join(f" server {address}:{side.port} max_fails=0;" for address in side.addresses)
                yield (
                    f"  upstream {_upstream(structure.app, service, slot)} {{{servers}"
                    f" keepalive 64; keepalive_timeout {UPSTREAM_IDLE_SECONDS}s; }}\n"
                )
    by_domain: dict[str, list[Structure]] = {}
    for structure in by_arrival:
        for domain in {claimed for claimed, _ in structure.claims()}:
            by_domain.setdefault(domain, []).append(structure)
    count = 0
    for domain, serving in sorted(by_domain.items()):
        text, maps, count = _server(domain, domain, "", serving, count)
        yield maps + text
    serving = [default_app] if default_app else []
    # The first app answers those who name no site: an address, or this machine by its own name.
    text, maps, count = _server(None, r'localhost "~^[0-9.]+$" "~^\["', "", serving, count)
    yield maps + text
    text, maps, count = _server("", "_", " default_server", [], count)
    yield maps + text


def _server(
    domain: str | None, names: str, default: str, serving: Sequence[Structure], count: int
) -> tuple[str, str, int]:
    """One server block, with the maps it needs. `domain` None: whatever the one app of `serving` serves."""
    routes = [
        _Route(structure.app, service, slot, side)
        for structure in serving
        for service, of_service in sorted(structure.sides.items())
        for slot, side in sorted(of_service.items())
        if domain is None or domain in side.domains
    ]
    paths = sorted({each.path for each in routes})
    locations: list[str] = []
    maps: list[str] = []
    holds: list[str] = []
    for path in paths:
        count += 1
        here = _serving(path, routes)
        if len(_services(here)) == 1 and {each.slot for each in here} == set(SLOTS):
            # Most are so. A map for each of them would cost nginx a megabyte and more than a millisecond
            # whenever it reads its configuration.
            slot = _variable(here[0].app, here[0].service)
            upstream = _upstream(here[0].app, here[0].service, slot)
            route = f"if ({slot} = none) {{ return 404; }} set $imm_key {upstream};"
        else:
            maps.append(_map(f"$imm_route_{count}", here, {each: each.upstream for each in here}, ""))
            route = f"set $imm_key $imm_route_{count}; if ($imm_key = '') {{ return 404; }}"
        cuts = {each.cut for each in here}
        rewrite = ""
        if cuts == {path}:
            rewrite = f"set $imm_prefix {path}; rewrite (?s)^{path}/?(.*)$ /$1 break; "
        elif cuts != {""}:
            # Not all of them cut the same off: it depends on which one is live.
            seen = {each: each.seen_of(path) for each in here}
            maps.append(_map(f"$imm_cut_{count}", here, {each: each.cut for each in here}, ""))
            maps.append(_map(f"$imm_path_{count}", here, seen, "$imm_whole"))
            rewrite = (
                f"set $imm_prefix $imm_cut_{count}; rewrite"
                f" (?s)^(?<imm_whole>{path}(?<imm_below>/?(?<imm_rest>.*)))$ $imm_path_{count} break; "
            )
        uri = "$imm_uri" if rewrite else ""
        # While two releases differ, the more generous one is heeded.
        max_body = max(each.side.max_body for each in here)
        silence = round(max(each.side.response_timeout for each in here) * 1000)
        patience = f"proxy_read_timeout {silence}ms;"
        if any(len(each.side.addresses) > 1 for each in here):
            # It is over with the first instance that says nothing for so long. Within that time one that is
            # just gone is given up, and the next one tried.
            patience += f" proxy_next_upstream_timeout {silence}ms;"
            patience += f" proxy_connect_timeout {min(CONNECT_MS, max(1, silence // 2))}ms;"
        held: list[str] = []
        several = len(_services(here)) > 1
        for status, (app, service) in enumerate(_services(here), HELD_STATUS):
            # A status of imm's own sends the request, method and body, to the location that holds it.
            hold = f"{_hold(app, service)}_{count}"
            waits = f"({_variable(app, service)}__held)"
            if several:
                # Only who would go on to this one.
                held.append(f"set $imm_whom {_variable(app, service)}__held$imm_key;")
                waits = f"($imm_whom ~ ^1{_upstream(app, service, '')})"
            held.append(f"error_page {status} = @{hold}; if {waits} {{ return {status}; }}")
            holds.append(
                HOLD.format(
                    hold=hold,
                    rewrite=rewrite,
                    uri=uri,
                    upstream=_hold(app, service),
                    slot=_variable(app, service),
                    max_body=max_body,
                )
            )
        # Recursive: where requests wait has an error page of its own, for when nobody parks them any more.
        body = (
            f"{{ recursive_error_pages on; {route} {' '.join(held)}\n{ERRORS}"
            f" client_max_body_size {max_body}; {patience}"
            f" {rewrite}limit_conn in_flight 65535; proxy_pass http://$imm_key{uri}; }}\n"
        )
        if path == "/":
            locations.append(f"    location / {body}")
        else:
            locations.append(f"    location = {path} {body}    location ^~ {path}/ {body}")
    if "/" not in paths:
        locations.append("    location / { return 404; }\n")
    text = SERVER.format(
        port=PORT,
        proxy=PROXY,
        counter=COUNTER,
        default=default,
        names=names,
        slots=_slot_variables(serving),
        locations="".join([*locations, *holds]),
        errors=ERRORS,
    )
    return text, "".join(maps), count


def _slot_variables(serving: Sequence[Structure]) -> str:
    """Which slots serve, read from the live links for each request.

    A look at a file is what costs most here, so an app that is live, and neither holds nor counts anything,
    is known by one flag. That, and `held`, is looked at before the slot: a request that comes in the moment
    of a flip then either waits or meets the slot of the new generation, never the old slot without the hold.
    """
    if not serving:
        return ""
    lines = []
    for structure in serving:
        home = f"apps/{structure.app}"
        lines.append(f"if (!-f {home}/live/{OPEN}) {{ set $imm_looks 1; }}")
    services = [
        (each.app, service, sorted(of_service))
        for each in serving
        for service, of_service in sorted(each.sides.items())
    ]
    # Of two such one may be the other's successor: were only one of them looked at before the flip, neither
    # might seem to be live. Whoever was seen to be live stays so, and is there until it is drained.
    again = [_if_live(app, service, slots[0]) for app, service, slots in services if len(slots) == 1]
    for app, service, slots in services:
        lines.append(f"set {_variable(app, service)}__held ''; {_slot(app, service, slots)}")
    lines += [*again, "if ($imm_looks = '') { break; }"]
    for structure in serving:
        lines.append(f"if (-f apps/{structure.app}/live/{COUNTED}) {{ set $imm_counted 1; }}")
    for app, service, slots in services:
        name, live = _variable(app, service), f"apps/{app}/live"
        lines.append(f"if (-f {live}/{service}.held) {{ set {name}__held 1; }} {_slot(app, service, slots)}")
    lines += again
    for app, service, _ in services:
        lines.append(f"if (!-f apps/{app}/live/{ALIVE}) {{ set {_variable(app, service)} none; }}")
    return "".join(f"    {line}\n" for line in lines)


def _slot(app: str, service: str, slots: Sequence[Slot]) -> str:
    """Which of these slots is live: one look at a file.

    With one of them alone the service comes or goes with a flip: without its flag it isn't live.
    """
    otherwise, looked_for = SLOTS if len(slots) == len(SLOTS) else ("none", slots[0])
    return f"set {_variable(app, service)} {otherwise}; {_if_live(app, service, looked_for)}"


def _if_live(app: str, service: str, slot: str) -> str:
    return f"if (-f apps/{app}/live/{service}.{slot}) {{ set {_variable(app, service)} {slot}; }}"


def _serving(path: str, routes: Sequence[_Route]) -> list[_Route]:
    """Which routes may lead on from a path: of those that are live, the first.

    A release that doesn't serve this path, as the next one or the last one does, may serve one above it.
    """
    own = [each for each in routes if each.path == path]
    if all(len([each for each in own if each.is_of(*service)]) == len(SLOTS) for service in _services(own)):
        return own
    above = [
        each for each in routes if each.path != path and f"{path}/".startswith(f"{each.path.rstrip('/')}/")
    ]
    return [*own, *sorted(above, key=lambda each: len(each.path), reverse=True)]


def _services(routes: Sequence[_Route]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((each.app, each.service) for each in routes))


def _map(variable: str, routes: Sequence[_Route], values: Mapping[_Route, str], default: str) -> str:
    """From the slots that are live to the value of the route that is taken, as a map of nginx's."""
    services = _services(routes)
    key = "/".join(_variable(*each) for each in services)
    rows = []
    for each in routes:
        position = services.index((each.app, each.service))
        value = values[each] or "''"
        before, after = "[a-z]+/" * position, "/[a-z]+" * (len(services) - position - 1)
        rows.append(f' "~^{before}{each.slot}{after}$" {value};')
    return f"  map \"{key}\" {variable} {{ default '{default}';{''.join(rows)} }}\n"


def _hold(app: str, service: str) -> str:
    # Not "imm_...": "hold-x" is a name that an app may have.
    return f"hold_{_word(app)}__{_word(service)}"


def _parked(app: str, slots: Mapping[str, Slot]) -> dict[str, str]:
    """The services by the keys of what was parked when these slots were live."""
    return {f"{_hold(app, service)}__{slot}": service for service, slot in slots.items()}


def _upstream(app: str, service: str, slot: str) -> str:
    """The name of a slot's upstream; or, with the variable that holds which slot is live, of that one."""
    return f"imm_{_word(app)}__{_word(service)}__{slot}"


def _variable(app: str, service: str) -> str:
    return f"$imm_{_word(app)}__{_word(service)}"


def _word(name: str) -> str:
    # Names have no '_', and no word has two in a row: no two services have a name in common here.
    return name.replace("-", "_d")
