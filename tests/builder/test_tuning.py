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


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ((0.028, 2.34), (0.03, 2.1), "2.1 MB instead of 2.3, though p90 0.030 ms instead of 0.028"),
        ((0.0150, 2.50), (0.0151, 2.1), "2.1 MB instead of 2.5"),
        ((0.0292, 2.54), (0.0270, 2.51), "p90 0.027 ms instead of 0.029"),
        ((10.4, None), (9.9, None), "p90 9.9 ms instead of 10"),
        ((10.44, None), (10.0, None), "p90 10.0 ms instead of 10.4"),
    ],
)  # fmt: skip
def test_why_names_what_is_better_first_and_nothing_that_stays_the_same(before, after, told):
    assert tuning._why(figures(*before), figures(*after)) == told


def test_why_of_what_fresh_figures_do_not_show():
    assert tuning._why(figures(None, None), figures(1.0, 20)) == "the default failed"
    told = tuning._why(figures(1.0, 20), figures(1.1, 20))
    assert told == "as an earlier run found, though p90 1.1 ms instead of 1.0"


def test_why_names_the_load_that_a_limit_asked_for():
    before = dataclasses.replace(figures(1.0, 28), load_ms=100.0)
    after = dataclasses.replace(figures(1.3, 28), load_ms=20.0)
    told = tuning._why(before, after)
    assert told == "loaded in 20 ms instead of 100, though p90 1.3 ms instead of 1.0"
