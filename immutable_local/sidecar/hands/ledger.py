"""The ledger: one record a file, its content's hash in its name."""

from __future__ import annotations

import hashlib
import json
import os

from immutable_local.sidecar.hands.ground import PROXY, STATE, Refusal, dump, named, now, write_whole
from immutable_local.sidecar.hands.locks import need

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def ledger_append(app: str, record: dict[str, Any]) -> int:
    need(f"app-{app}")
    folder = STATE / "ledger" / named(app)
    numbers = [int(name[:8]) for name in os.listdir(folder) if name[:8].isdigit()] if folder.is_dir() else []
    number = max(numbers, default=0) + 1
    content = dump({**record, "number": number, "at": now()})
    write_whole(folder / f"{number:08d}-{hashlib.sha256(content).hexdigest()[:16]}.json", content)
    return number


def ledger_read(app: str) -> list[dict[str, Any]]:
    """Every record, oldest first, compared with the hash in its name; refused at the first broken one."""
    folder = STATE / "ledger" / named(app)
    records = []
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        # What somebody gave another name is no record any more.
        if not (name[:8].isdigit() and name.endswith(".json")):
            continue
        # Each command reads them all: with a buffer and a Path for each of them it takes half as long again.
        with open(f"{folder}/{name}", "rb", buffering=0) as file:
            content = file.read()
        if hashlib.sha256(content).hexdigest()[:16] != name[9:25]:
            raise Refusal(
                "broken_file", path=f"{folder}/{name}", reason="its content is not what was written"
            )
        records.append(json.loads(content))
    return records


def apps() -> list[str]:
    """Every app that the ledger or the proxy knows."""
    known: set[str] = set()
    for folder in (STATE / "ledger", PROXY / "apps"):
        known |= set(os.listdir(folder)) if folder.is_dir() else set()
    return sorted(known)
