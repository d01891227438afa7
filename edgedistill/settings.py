"""Settings: what a stage, a plugin or a section of a job can be told.

A `Settings` is a frozen dataclass whose fields are made with `setting`: type, default, range and
one line of explanation. Keys hash its coerced form, `--set` and nearest names read it, and so do
the docs. A default of `"auto"` is one that the planner must decide: a step's settings never
hold it.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

from edgedistill.errors import JobError, nearest

T = typing.TypeVar("T")


def setting(
    default: Any,
    about: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] = (),
) -> Any:
    """Declare one setting: its default, one line about it, and what it may be."""
    metadata = {"about": about, "low": low, "high": high, "choices": choices}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def names(cls: type) -> list[str]:
    """List the names of the settings of a `Settings` class."""
    return [_outside(field.name) for field in dataclasses.fields(cls)]


def _outside(name: str) -> str:
    """Return a field's name as users write it: `from_` is `from`, which Python keeps to itself."""
    return name.rstrip("_")


def coerce(cls: type[T], values: Mapping[str, Any], place: str) -> T:
    """Make a `Settings` of plain values (numbers, or texts of a command line).

    Raises `JobError` for an unknown name (with the nearest), a wrong type or a value out of range;
    `place` says where the values stand ("distill", "job.toml [distill]").
    """
    hints = typing.get_type_hints(cls)
    fields = {_outside(field.name): field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    made = {}
    for name, value in values.items():
        if name not in fields:
            raise JobError(f"{place}: unknown setting '{name}': {nearest(name, fields)}")
        where = f"{place}.{name}"
        field = fields[name]
        made[field.name] = _one(hints[field.name], value, where)
        _in_range(field.metadata, made[field.name], where)
    return cls(**made)


def plain(settings: Any) -> dict[str, Any]:
    """Return the settings as JSON values, by name: what is hashed, recorded and printed."""
    values = {_outside(name): value for name, value in dataclasses.asdict(settings).items()}
    return json.loads(json.dumps(values, sort_keys=True))


def _in_range(metadata: Mapping[str, Any], value: Any, where: str) -> None:
    if value is None or (isinstance(value, str) and value == "auto"):  # a frame compares by cell
        return
    choices = metadata.get("choices")
    for one in value if isinstance(value, tuple) else (value,):
        if choices and one not in choices:
            hint = nearest(str(one), map(str, choices))
            raise JobError(f"{where}: '{one}' is not one of its values: {hint}")
        if isinstance(one, bool) or not isinstance(one, (int, float)):
            continue
        low, high = metadata.get("low"), metadata.get("high")
        if (low is not None and one < low) or (high is not None and one > high):
            span = f"at least {low}" if high is None else f"at most {high}"
            span = f"from {low} to {high}" if None not in (low, high) else span
            raise JobError(f"{where}: {one} is out of range: expected {span}")


def _one(hint: Any, value: Any, where: str) -> Any:
    """Bring one value to its declared type, or raise `JobError`."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        nothing = value is None or (isinstance(value, str) and value.lower() == "none")
        if nothing and type(None) in inner:
            return None
        for kind in inner:
            if kind is type(None):
                continue
            try:
                return _one(kind, value, where)
            except JobError:
                continue
        raise _wrong(hint, value, where)
    if origin is typing.Literal:
        if value in inner:
            return value
        raise JobError(f"{where}: '{value}' is not one of its values: {nearest(value, inner)}")
    if origin is tuple or hint is tuple:
        if isinstance(value, str):
            value = [part.strip() for part in value.strip("[]").split(",") if part.strip()]
        if not isinstance(value, (list, tuple)):
            value = [value]
        kind = inner[0] if inner else Any
        return tuple(_one(kind, part, where) for part in value)
    if origin in (dict, Mapping) or hint in (dict, Mapping) or origin is Mapping:
        if isinstance(value, Mapping):
            return dict(value)
        raise _wrong(hint, value, where)
    if hint is Any:
        return value
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is bool:
        if isinstance(value, bool):
            return value
        texts = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if isinstance(value, str) and value.lower() in texts:
            return texts[value.lower()]
    elif hint in (int, float):
        if not isinstance(value, bool):
            try:
                number = float(value)
            except (TypeError, ValueError):
                raise _wrong(hint, value, where) from None
            if number != number or number in (float("inf"), float("-inf")):
                raise _wrong(hint, value, where)
            if hint is float:
                return number
            if number == int(number):
                return int(number)
    elif hint is str and isinstance(value, str):
        return value
    elif hint is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise _wrong(hint, value, where)


def _wrong(hint: Any, value: Any, where: str) -> JobError:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    expected = words.get(hint, str(hint).replace("typing.", ""))
    return JobError(f"{where}: expected {expected}, got {value!r}")
