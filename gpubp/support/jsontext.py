"""Results as JSON text."""

from __future__ import annotations

import json
import math
from typing import Any


def as_json(value: Any, encoding: str = "utf-8") -> str:
    """The value as strict JSON: tuples as lists, and null for what is no finite number.

    Characters are as they are if ``encoding`` has all of them, else those beyond ASCII are escaped.
    """
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(json.loads(text), indent=2)
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
