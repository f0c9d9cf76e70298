"""Dataclasses as plain values, for JSON. Every report goes through here: the fields of a class are looked up once."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

_known: dict[type, tuple[str, ...]] = {}


def field_names(kind: type) -> tuple[str, ...]:
    """Of the fields of a dataclass, in their order; none of another class."""
    if kind not in _known:
        _known[kind] = tuple(field.name for field in fields(kind)) if is_dataclass(kind) else ()
    return _known[kind]


def values_of(record: Any) -> dict[str, Any]:
    """A dataclass as ``dataclasses.asdict`` makes it, but nothing is copied that is neither a dataclass nor a tuple of some."""
    return {name: _value(getattr(record, name)) for name in field_names(type(record))}


def _value(value: Any) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case tuple():
            return tuple(_value(one) for one in value)
        case _ if field_names(type(value)):
            return values_of(value)
    return value
