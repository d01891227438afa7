"""The shortlist: a scheme that is clearly slower than another is dropped before any training."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgedistill import job, target
from edgedistill.builder import contest
from edgedistill.builder.shortlist import Entry, Shortlist, outrun, plan_key
from edgedistill.records import Figures, Interval, Latency, Source, Step


def figures(p90, speedup, low, high, size=6.0):
    latency = Latency(p90, p90, p90, p90, None, p90, 100, 10, True)
    return Figures(latency=latency, speedup=Interval(speedup, low, high), size_mb=size)


def test_what_is_clearly_slower_than_a_sibling_is_dropped_with_both_figures():
    gone = outrun({"a int8": figures(1.0, 5.0, 4.8, 5.2), "a int8 static": figures(2.0, 2.5, 2, 3)})
    assert list(gone) == ["a int8 static"]
    state, why = gone["a int8 static"]
    assert state == "dropped"
    assert why == "before training: slower than a int8 (p90 2 against 1 ms)"


def test_a_little_slower_noisy_or_smaller_stays():
    fast = figures(1.0, 5.0, 4.8, 5.2)
    for other in (
        figures(1.1, 4.5, 4.4, 4.6),  # a tenth slower
        figures(2.0, 2.5, 1.0, 5.0),  # intervals that meet
        figures(2.0, 2.5, 2.0, 3.0, size=3.0),
        Figures(failed="the probe died"),
    ):
        assert outrun({"fast": fast, "other": other}) == {}
    assert outrun({}) == {} and outrun({"fast": fast}) == {}


@pytest.mark.parametrize(
    "told",
    [
        {"quantize.aware": "always"},
        {"quantize.max_drop": 0.1},
        {"run.objective": "size"},
        {"run.time_limit": "5m"},
        {"student.layers": [2]},
    ],
)
def test_what_decides_between_the_same_rows_decides_anew(told):
    def key(**settings):
        asked = job.named(target="phone", model="m", data="d", settings=settings)
        plan = SimpleNamespace(rows=lambda: ())
        return plan_key(SimpleNamespace(job=asked, target=target.load("phone"), plan=plan))

    assert key() == key() != key(**told)


def test_another_target_decides_anew():
    asked = job.named(target="phone", model="m", data="d")
    plan = SimpleNamespace(rows=lambda: ())

    def key(target):
        return plan_key(SimpleNamespace(job=asked, target=target, plan=plan))

    phone = target.load("phone")
    others = [
        dataclasses.replace(phone, processors=phone.processors[1:]),
        dataclasses.replace(phone, runtime=dataclasses.replace(phone.runtime, onnxruntime="1.16")),
        dataclasses.replace(phone, limits={**phone.limits, "size_mb": 1.0}),
        dataclasses.replace(phone, device=dataclasses.replace(phone.device, int8_gops=1.0)),
    ]
    assert len({key(each) for each in (phone, *others)}) == 5


def test_a_build_that_goes_on_has_the_shortlist_that_was_recorded():
    def entry(name):
        step = Step("distill", {}, {})
        row = SimpleNamespace(name=name, unpruned=None, scheme="none")
        return Entry(step, (row,), ())

    one, two = entry("one"), entry("two")
    made = Shortlist(
        (two, one), {"one int8": ("dropped", "too large")}, {"two int8": ("dropped", "Gelu")},
        {"one": 1.5},
    )  # fmt: skip
    recorded = json.loads(json.dumps(contest._recorded(made)))
    assert contest._known(recorded, [one, two]) == made


def course(*, named, threads=2, left=100.0, there=()):
    """As much of a build as pairing looks at."""
    return SimpleNamespace(
        job=SimpleNamespace(student=SimpleNamespace(named=lambda: named)),
        facts=SimpleNamespace(host=SimpleNamespace(threads=threads)),
        store=SimpleNamespace(find=lambda step: step if step in there else None),
        left=lambda: left,
    )


def trained(name, **changes):
    settings = {"threads": 1, "processes": 1, "device": "cpu", "name": name} | changes
    step = Step("distill", settings, {"student.0": Source("model", "s" * 64, Path("s"), "s")})
    return SimpleNamespace(name=name, training=step, unpruned=None, scheme="none")


def entry_of(name):
    row = trained(name)
    return Entry(row.training, (row,), (trained(f"{name} control"),))


@pytest.mark.parametrize(
    ("named", "seconds", "known", "beside"),
    [
        ((), 10.0, {}, "one control"),
        (("1", "2"), 10.0, {}, "two"),
        (("1", "2"), 1000.0, {}, "one control"),  # the second does not fit the time limit
        (("1", "2"), 1000.0, {"trained": ["one", "two"]}, "two"),
        (("1", "2"), 10.0, {"trained": ["one"]}, "one control"),
    ],
)
def test_who_trains_beside_a_student(monkeypatch, named, seconds, known, beside):
    one, two = entry_of("one"), entry_of("two")
    held = contest._Contest(course(named=named), Shortlist((one, two), {}, {}))
    monkeypatch.setattr(contest, "_needs", lambda held, entry: seconds)
    assert names(contest._beside(held, one, known)) == [("one", beside)]
    assert names(contest._beside(held, two, known)) == [("two", "two control")]


def names(pairs):
    return [tuple(step.settings["name"] for step in pair) for pair in pairs]


def test_on_one_thread_nothing_is_estimated_for_a_pair(monkeypatch):
    one, two = entry_of("one"), entry_of("two")
    held = contest._Contest(course(named=("1", "2"), threads=1), Shortlist((one, two), {}, {}))
    monkeypatch.setattr(contest, "_needs", lambda *_: pytest.fail("estimated"))
    assert contest._beside(held, one, {}) == []


@pytest.mark.parametrize(
    ("threads", "changes", "pairs"),
    [(2, {}, 1), (1, {}, 0), (2, {"device": "cuda"}, 0), (2, {"processes": 2}, 0)],
)
def test_one_at_a_time_where_there_is_no_room_for_two(threads, changes, pairs):
    mine, other = trained("student", **changes), trained("control", **changes)
    assert len(contest._pairs(course(named=(), threads=threads), [mine], [other])) == pairs


def test_what_goes_on_from_a_training_waits_for_it():
    before, after = trained("base").training, trained("again").training
    after = Step("distill", after.settings, {"student.0": before})
    assert contest._can_begin(course(named=()), before)
    assert not contest._can_begin(course(named=()), after)
    assert contest._can_begin(course(named=(), there=[before]), after)


@pytest.mark.parametrize(
    ("recovered", "costs"),
    [
        ({"before_points": 0.3}, False),
        ({"before_points": 1.2, "milder_points": 1.2, "floats": ["head"]}, True),
        ({"before_points": 1.2, "milder_points": 0.3}, False),  # a table in int8 was enough
    ],
)
def test_what_a_milder_table_mends_asks_for_no_further_training(recovered, costs):
    facts = SimpleNamespace(facts={"recovered": recovered})
    held = SimpleNamespace(course=SimpleNamespace(artifact=lambda step: facts))
    row = SimpleNamespace(graph=Step("quantize", {"recover_points": 0.5}, {}))
    assert contest._costs(held, SimpleNamespace(name="a fp32"), row, None) is costs
