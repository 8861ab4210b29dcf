"""Results as JSON text."""

from __future__ import annotations

import json
import math
from typing import Any


def as_json(value: Any) -> str:
    """The value as strict JSON: tuples as lists, and null for what is no finite number."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
