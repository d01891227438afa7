"""Our small validator says what `jsonschema` says."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from edgedistill.bundle import manifest, schema

jsonschema = pytest.importorskip("jsonschema")
ODD: list[Any] = [
    None, True, 0, -1, 1, 1.5, "", "x", "../x", [], {}, ["a", "a"], {"a": 1}, "a" * 5000, 10**12,
]  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return (container, key) of everything in a JSON value."""
    found = []
    pairs = list(value.items()) if isinstance(value, dict) else []
    pairs += list(enumerate(value)) if isinstance(value, list) else []
    for key, one in pairs:
        found += [(value, key), *places(one)]
    return found


def test_it_agrees_with_jsonschema_on_a_thousand_mutations(made: Path):
    rules = manifest.rules()
    theirs = jsonschema.Draft202012Validator(rules)
    theirs.check_schema(rules)
    whole = json.loads((made / "manifest.json").read_text())
    assert theirs.is_valid(whole) and not list(schema.problems(whole, rules))
    random.seed(5)
    broken = 0
    for _ in range(1000):
        said = copy.deepcopy(whole)
        container, key = random.choice(places(said))
        if random.random() < 0.2:
            del container[key]
        else:
            container[key] = random.choice(ODD)
        valid = theirs.is_valid(said)
        broken += not valid
        assert valid == (not list(schema.problems(said, rules))), (key, said)
    assert broken > 300


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400], ids=["nan", "inf", "long"])
def test_what_is_no_finite_number_is_refused(value: Any):
    found = list(schema.problems(value, {"type": "number", "maximum": 5}))
    assert found


def test_a_pattern_does_not_end_before_a_newline():
    assert list(schema.problems("a\n", {"pattern": "^a$"}))


def test_a_place_is_named_by_its_path():
    rules = {"properties": {"a": {"items": {"properties": {"b": {"type": "string"}}}}}}
    assert list(schema.problems({"a": [{"b": "x"}, {"b": 1}]}, rules)) == [
        ("a[1].b", "expected string, got integer")
    ]


def test_a_keyword_that_it_does_not_know_is_never_passed_over():
    with pytest.raises(KeyError):
        list(schema.problems(1, {"multipleOf": 2}))
