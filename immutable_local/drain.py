"""Wait until nothing is in flight to the instances that are about to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from immutable_local.app import Service
from immutable_local.events import Teller
from immutable_local.host import Host
from immutable_local.routes import Slot

# Requests that ended meanwhile are noticed by the sidecar at once; this is how often a person is told.
TOLD_EVERY_SECONDS = 5.0


def wait_until_idle(
    host: Host,
    app: str,
    slots: Mapping[str, Slot],
    services: Sequence[Service],
    tell: Teller,
    lasting: Callable[[], None] | None = None,
    early: Mapping[str, str] | None = None,
    busy_with: Callable[[Mapping[str, Slot], float], list[str]] | None = None,
) -> None:
    """Wait until the proxy has nothing in flight to these slots; each service's `drain` bounds it.

    Websockets and streams count as in flight: they get until the bound. `lasting` is called once, when it
    isn't over at once. `early`: what is to be said of services that got less than their own `drain`.
    `busy_with`: how the proxy is asked for what is in flight, where not for all of it.
    """
    busy_with = busy_with or partial(host.proxy.busy, host.session, app)
    began = time.monotonic()
    remaining = {each.name: each.drain for each in services if each.name in slots and each.takes_traffic}
    told = False
    while remaining:
        elapsed = time.monotonic() - began
        seconds = min(TOLD_EVERY_SECONDS, max(0.0, min(remaining.values()) - elapsed))
        if not told:
            seconds = min(seconds, 0.5)
        busy = busy_with({name: slots[name] for name in remaining}, seconds)
        elapsed = time.monotonic() - began
        late = [name for name in busy if elapsed >= remaining[name]]
        for name in late:
            why = (early or {}).get(name, "")
            tell.warn(f"{name}: still busy after {elapsed:.0f} s; what is left is cut{why}")
        remaining = {
            name: seconds for name, seconds in remaining.items() if name in busy and name not in late
        }
        if remaining:
            longest = max(remaining.values()) - elapsed
            tell.note(
                f"{', '.join(remaining)}: requests in flight, waiting for {longest:.0f} s at most", "waiting"
            )
            if not told and lasting is not None:
                lasting()
            told = True
