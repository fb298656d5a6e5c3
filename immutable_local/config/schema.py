"""The JSON Schema of imm.toml, which editors complete and check by; schema.json is what this makes.

After a change of `keys`: `python -m immutable_local.config.schema > schema.json.new`, and move it over
immutable_local/schema.json. A test fails until then.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from immutable_local.config import keys


def schema() -> dict[str, Any]:
    """The schema, in draft 7: the newest that editors' TOML plugins agree on."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "imm.toml",
        "description": "What one app deployed by imm is made of",
        **keys.APP.schema,
    }


def schema_text() -> str:
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
