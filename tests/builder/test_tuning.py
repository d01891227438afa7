"""The session that ships: picked by figures, in order of speed, memory and habit."""

from __future__ import annotations

import dataclasses

import pytest

from edgedistill.builder import tuning
from edgedistill.records import DeviceLatency, Figures, Latency

LATENCY = {field.name: 0.0 for field in dataclasses.fields(Latency)}


def figures(p90, memory):
    if p90 is None:
        return Figures(failed="it died")
    return Figures(latency=Latency(**{**LATENCY, "p90": p90}), memory_mb=memory)


@pytest.mark.parametrize(
    ("default", "arena_off", "prepacking_off", "limit", "expected"),
    [
        ((1.0, 28), (1.0, 27.5), (1.3, 20), None, ""),
        ((1.0, 28), (1.04, 24), (1.3, 20), None, "arena off"),
        ((1.0, 28), (1.2, 24), (1.3, 20), 22, "prepacking off"),
        ((1.0, 28), (1.2, 24), (1.3, 23), 22, ""),
        ((1.0, 28), (0.8, 28), (1.3, 20), 64, "arena off"),
        ((1.0, None), (1.0, None), (1.3, None), 22, ""),
        ((None, None), (None, None), (None, None), 22, ""),
    ],
    ids=("habit", "memory at like speed", "the limit", "no way holds it", "speed", "memory unknown",
         "nothing ran"),
)  # fmt: skip
def test_the_session_that_ships(default, arena_off, prepacking_off, limit, expected):
    found = {
        variant: figures(*each)
        for variant, each in zip(tuning.VARIANTS, (default, arena_off, prepacking_off), strict=True)
    }
    assert tuning.pick(found, {"memory_mb": limit} if limit else {}) == expected


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, ""),
        ({"load_ms": 30.0}, "prepacking off"),
        ({"load_ms": 10.0}, ""),  # no way holds it
        ({"load_ms": 30.0, "latency_p90_ms": 1.2}, ""),  # nor both
    ],
)
def test_it_holds_every_limit_that_the_options_move(limits, expected):
    def loads(p90, load):
        device = DeviceLatency(p90, p90 / 1.5, p90 * 1.5, "estimate", "phone")
        return dataclasses.replace(figures(p90, 20), load_ms=load, device=device)

    found = {"": loads(1.0, 100), "arena off": loads(1.0, 100), "prepacking off": loads(1.3, 20)}
    assert tuning.pick(found, limits) == expected


def test_only_the_tuned_row_ships_with_it():
    tuned = tuning.Tuned("student", {"arena": False})
    own = {"arena": True, "threads": 1}
    assert tuned.session("student", own) == {"arena": False, "threads": 1}
    assert tuned.session("teacher int8", own) == own


def test_why_tells_figures_of_a_small_model_apart():
    told = tuning._why(figures(0.0292, 2.34), figures(0.0281, 2.1))
    assert told == "p90 0.028 ms instead of 0.029, 2.1 MB instead of 2.3"
