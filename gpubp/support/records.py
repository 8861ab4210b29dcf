"""Dataclasses as JSON text that people can read, and back from it with nothing lost."""

from __future__ import annotations

import json
import math
import re
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def as_text(value: Any) -> str:
    """Plain values as strict JSON: an item a line, and so each row of a table, a list of dictionaries without others.

    What is no finite number is written as a text, "nan", "inf" or "-inf".
    """
    text = _lines(value, "\n") + "\n"
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)  # of names not in UTF-8


def _lines(value: Any, margin: str, in_list: bool = False) -> str:
    if not isinstance(value, dict | list | tuple) or not value:
        return _line(value)
    deeper = margin + "  "
    if isinstance(value, dict):
        if in_list and not any(map(_has_rows, value.values())):
            return _line(value)
        parts, ends = [f"{_encode(str(key))}: {_lines(v, deeper)}" for key, v in value.items()], "{}"
    elif _has_rows(value):
        parts, ends = [_lines(v, deeper, in_list=True) for v in value], "[]"
    else:
        return _line(value)
    return ends[0] + deeper + f",{deeper}".join(parts) + margin + ends[1]


def _has_rows(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list | tuple) and any(map(_has_rows, value)))


def _line(value: Any) -> str:
    try:
        return _encode(value)
    except ValueError:
        return _encode(_spelt(value))


def _spelt(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _spelt(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_spelt(v) for v in value]
    return str(float(value)) if isinstance(value, float) and not math.isfinite(value) else value


def from_plain(kind: Any, value: Any) -> Any:
    """The value of type ``kind`` that JSON has as ``value``: a dataclass, a list, a tuple, a number, a text or None.

    What a dataclass has no field for is left out, and what is missing takes the field's default.

    Raises:
        ValueError, TypeError: it is of another type, or a field without default is missing.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return None if value is None else from_plain(next(k for k in inner if k is not NoneType), value)
    if is_dataclass(kind):
        return _filled(kind, _of_type(dict, value))
    if origin in (list, tuple):
        return origin(from_plain(inner[0], v) for v in _of_type(list, value))
    if origin is dict:
        return {key: from_plain(inner[1], v) for key, v in _of_type(dict, value).items()}
    if kind is float and type(value) in (int, str):
        return float(value)
    return value if kind is Any else _of_type(kind, value)


def _filled(kind: Any, table: dict[str, Any]) -> Any:
    """The dataclass with these fields; ``key`` of a field's metadata is what it is called, if not by its own name."""
    hints, values = get_type_hints(kind), {}
    for field in fields(kind):
        key = field.metadata.get("key", field.name)
        if key in table:
            values[field.name] = from_plain(hints[field.name], table[key])
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{key} is missing")
    return kind(**values)


def _of_type(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r:.60} is not of type {kind.__name__}")
    return value
