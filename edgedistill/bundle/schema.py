"""Hold a JSON value against a JSON schema: the part of the standard that our schemas use.

`jsonschema` is no package of a device, so its few rules that matter stand here; a test holds the
two equal. A keyword that this file does not know is an error, never passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edgedistill.bundle.untrusted import is_number

Problem = tuple[str, str]  # where, what
Rule = Mapping[str, Any]
Keyword = Callable[[Any, Any, Rule, str, Rule], Iterator[Problem]]

_TYPES = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": is_number,
}
_ABOUT = {"$schema", "$id", "$defs", "title", "description"}


def problems(value: Any, schema: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield (place, what is wrong) for everything in which the value breaks the schema."""
    yield from _walk(value, schema, "", schema)


def _walk(value: Any, rule: Mapping[str, Any], where: str, root: Mapping) -> Iterator[Problem]:
    if "$ref" in rule:
        yield from _walk(value, root["$defs"][rule["$ref"].rpartition("/")[2]], where, root)
        return
    kinds = rule.get("type")
    if kinds is not None:
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not any(_TYPES[kind](value) for kind in kinds):
            yield where, f"expected {' or '.join(kinds)}, got {_kind(value)}"
            return
    for keyword, wanted in rule.items():
        if keyword in _ABOUT or keyword == "type":
            continue
        check = _KEYWORDS[keyword]
        yield from check(value, wanted, rule, where, root)


def _kind(value: Any) -> str:
    return next((name for name, fits in _TYPES.items() if fits(value)), type(value).__name__)


def _properties(value: Any, wanted: Any, rule: Rule, where: str, root: Rule) -> Iterator[Problem]:
    if isinstance(value, dict):
        for name, inner in wanted.items():
            if name in value:
                yield from _walk(value[name], inner, _at(where, name), root)


def _required(value: Any, wanted: Any, rule: Rule, where: str, root: Rule) -> Iterator[Problem]:
    if isinstance(value, dict):
        for name in wanted:
            if name not in value:
                yield where, f"'{name}' is missing"


def _additional(value: Any, wanted: Any, rule: Rule, where: str, root: Rule) -> Iterator[Problem]:
    if isinstance(value, dict):
        for name in value:
            if name in rule.get("properties", {}):
                continue
            if wanted is False:
                yield where, f"'{name}' is not one of its names"
            elif isinstance(wanted, dict):
                yield from _walk(value[name], wanted, _at(where, name), root)


def _names(value: Any, wanted: Any, rule: Rule, where: str, root: Rule) -> Iterator[Problem]:
    if isinstance(value, dict):
        for name in value:
            yield from _walk(name, wanted, where, root)


def _items(value: Any, wanted: Any, rule: Rule, where: str, root: Rule) -> Iterator[Problem]:
    if isinstance(value, list):
        for index, one in enumerate(value):
            yield from _walk(one, wanted, f"{where}[{index}]", root)


def _unique(value: Any, wanted: Any, rule: Rule, where: str, root: Rule) -> Iterator[Problem]:
    if wanted and isinstance(value, list) and len(set(map(repr, value))) != len(value):
        yield where, "an item stands there twice"


def _enum(value: Any, wanted: Any, rule: Rule, where: str, root: Rule) -> Iterator[Problem]:
    if not any(value == one and type(value) is type(one) for one in wanted):
        yield where, f"expected one of {', '.join(map(str, wanted))}"


def _pattern(value: Any, wanted: Any, rule: Rule, where: str, root: Rule) -> Iterator[Problem]:
    if isinstance(value, str) and not re.search(wanted.replace("$", r"\Z"), value):
        yield where, f"'{value[:60]}' has not the form that it should have"


def _bound(
    kind: str, fits: Callable[[Any, Any], bool], measure: Callable[[Any], Any] = lambda value: value
) -> Keyword:
    """Make the rule of one keyword that bounds a number, a length or a count."""
    numeric = kind in ("at least", "at most", "above")

    def check(value: Any, wanted: Any, rule: Rule, where: str, root: Rule) -> Iterator[Problem]:
        sized = _TYPES["number"](value) if numeric else isinstance(value, (str, list, dict))
        if sized and not fits(measure(value), wanted):
            yield where, f"expected {kind} {wanted}, got {measure(value)}"

    return check


def _sized(kind: type, bound: Keyword) -> Keyword:
    def check(value: Any, wanted: Any, rule: Rule, where: str, root: Rule) -> Iterator[Problem]:
        if isinstance(value, kind):
            yield from bound(value, wanted, rule, where, root)

    return check


_LONG = _bound("a length of at most", lambda found, most: found <= most, len)
_SHORT = _bound("a length of at least", lambda found, least: found >= least, len)

_KEYWORDS = {
    "properties": _properties,
    "required": _required,
    "additionalProperties": _additional,
    "propertyNames": _names,
    "items": _items,
    "uniqueItems": _unique,
    "enum": _enum,
    "pattern": _pattern,
    "minimum": _bound("at least", lambda found, least: found >= least),
    "maximum": _bound("at most", lambda found, most: found <= most),
    "exclusiveMinimum": _bound("above", lambda found, least: found > least),
    "minLength": _sized(str, _SHORT),
    "maxLength": _sized(str, _LONG),
    "minItems": _sized(list, _SHORT),
    "maxItems": _sized(list, _LONG),
    "maxProperties": _sized(dict, _LONG),
}


def _at(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
