"""The judge: paired drops, checks, eligibility, the choice and the verdict."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgedistill import judge
from edgedistill.judge.evidence import Evaluation
from edgedistill.records import Check, DeviceLatency, Figures, Interval, Latency, Score

LIMITS = {"max_drop_points": 1.0, "latency_p90_ms": 20.0, "memory_mb": 60.0, "size_mb": 25.0}


def seen(drop: float, error: float = 0.1, **changes) -> Evaluation:
    score = Score(96.0 - drop, 95.0 - drop, 97.0 - drop, 3000)
    interval = Interval(drop, drop - 2 * error, drop + 2 * error)
    made = Evaluation("accuracy", "points", score, {"accuracy": score}, interval, error, 98.0, 2.0)
    return replace(made, **changes)


def figures(p90: float, size: float = 10.0, memory: float = 20.0) -> Figures:
    return Figures(
        latency=Latency(p90, p90, p90, p90, None, p90, 200, 20, True),
        device=DeviceLatency(p90, p90 / 1.5, p90 * 1.5, "estimate", "phone"),
        load_ms=10.0,
        memory_mb=memory,
        size_mb=size,
    )


def row(name: str, drop: float, p90: float, size: float = 10.0, **changes) -> judge.Contender:
    made = judge.Contender(name, "candidate", seen(drop), figures(p90, size))
    return replace(made, **changes)


def hold(
    limits, found: Figures, evaluation: Evaluation | None, *, unseen=True
) -> tuple[Check, ...]:
    """Hold a row against limits, as the driver does."""
    return judge.checks(
        limits,
        *judge.figures_of(found, evaluation),
        rows=evaluation.score.rows if evaluation else None,
        at_best_close=None if unseen else judge.not_unseen(limits),
        vanished=evaluation.vanished if evaluation else (),
    )


def state_of(allowed: float, figure: Interval | None, limit: str = "size_mb") -> str:
    return judge.checks({limit: allowed}, {limit: figure})[0].state


# ---------------------------------------------------------------- checks


@pytest.mark.parametrize(
    ("figure", "state"),
    [
        (Interval(1.0, 0.5, 1.5), "holds"),
        (Interval(1.0, 0.5, 2.0), "holds"),  # the edge is inside
        (Interval(1.0, 0.5, 2.1), "close"),
        (Interval(2.1, 1.0, 3.0), "misses"),
        (Interval(2.0), "holds"),  # no interval: the figure is exact
        (None, "unchecked"),
        (Interval(float("nan")), "unchecked"),
    ],
)
def test_a_check_is_of_the_figure_and_its_whole_interval(figure, state):
    assert state_of(2.0, figure) == state


@pytest.mark.parametrize(
    ("figure", "state"),
    [
        (Interval(95.0, 94.5, 95.5), "holds"),
        (Interval(95.0, 93.5, 96.5), "close"),
        (Interval(93.9, 93.0, 95.0), "misses"),
    ],
)
def test_a_limit_named_min_is_a_floor(figure, state):
    assert state_of(94.0, figure, "min_score_points") == state


def test_an_unchecked_limit_says_why_and_has_no_figure():
    found, reasons = judge.figures_of(Figures(size_mb=3.0), None)
    held = {c.limit: c for c in judge.checks(LIMITS | {"load_ms": 5}, found, reasons)}
    assert held["size_mb"].state == "holds"
    for name in ("max_drop_points", "latency_p90_ms", "memory_mb", "load_ms"):
        assert held[name].state == "unchecked"
        assert held[name].value is None and held[name].reason


def test_latency_without_a_device_figure_is_unchecked_however_fast_this_host_is():
    here = replace(figures(0.1), device=None)
    check = judge.checks({"latency_p90_ms": 20.0}, *judge.figures_of(here, None))[0]
    assert check.state == "unchecked" and "device" in (check.reason or "")


def test_a_close_drop_says_the_far_end_and_how_many_rows_would_settle_it():
    drop = Interval(0.5, -0.5, 1.5)
    check = judge.checks({"max_drop_points": 1.0}, {"max_drop_points": drop}, rows=400)[0]
    assert check.state == "close"
    assert "by these 400 rows it could be 1.5; about 1,600 rows would settle it" in check.reason
    assert judge.rows_to_settle(drop, 1.0, 400) == 1600
    assert judge.rows_to_settle(drop, 0.5, 400) is None  # no number of rows would


def test_a_close_latency_says_what_would_settle_it():
    estimate = hold({"latency_p90_ms": 20.0}, figures(18.0), None)[0]
    assert estimate.state == "close" and "27.0; the device's own" in estimate.reason
    there = DeviceLatency(18.0, 17.0, 20.04, "measured", "here")
    measured = hold({"latency_p90_ms": 20.0}, replace(figures(18.0), device=there), None)[0]
    assert measured.reason == "it could be 20.04; more rounds would settle it"


def test_on_a_split_of_ours_under_a_trained_teacher_a_score_holds_closely_at_best():
    test = seen(0.1)
    sure = {c.limit: c for c in hold(LIMITS, figures(1.0), test)}
    doubt = {c.limit: c for c in hold(LIMITS, figures(1.0), test, unseen=False)}
    assert sure["max_drop_points"].state == "holds"
    assert doubt["max_drop_points"].state == "close"
    assert "trained on its rows" in doubt["max_drop_points"].reason
    assert doubt["size_mb"] == sure["size_mb"]
    worse = hold(LIMITS, figures(1.0), seen(3.0), unseen=False)
    assert worse[0].state == "misses"  # doubt never makes a miss better


def test_a_label_that_vanished_on_test_is_a_miss():
    held = hold(LIMITS, figures(1.0), seen(0.0, vanished=("refund",)))
    assert held[-1].state == "misses" and "refund" in held[-1].reason
    assert judge.verdict(held) == "misses"


# ---------------------------------------------------------------- verdict


def check(state: str) -> Check:
    return Check("size_mb", 1.0, 1.0, None, None, state)


@pytest.mark.parametrize(
    ("states", "strict", "verdict"),
    [
        (("holds", "holds"), False, "fits"),
        (("holds", "holds"), True, "fits"),
        (("holds", "close"), False, "fits_closely"),
        (("holds", "unchecked"), False, "fits_closely"),
        (("holds", "close"), True, "misses"),
        (("holds", "unchecked"), True, "misses"),
        (("close", "misses"), False, "misses"),
        ((), False, "fits"),
    ],
)
def test_the_verdict_is_that_of_the_weakest_check(states, strict, verdict):
    assert judge.verdict([check(state) for state in states], strict=strict) == verdict


@pytest.mark.parametrize(
    ("states", "strict", "verdict"),
    [
        (("holds", "unchecked"), False, "unchecked"),
        (("close", "unchecked"), False, "unchecked"),
        (("misses", "unchecked"), False, "misses"),
        (("holds", "unchecked"), True, "misses"),
        (("holds", "close"), False, "fits_closely"),
    ],
)
def test_a_limit_that_was_named_and_not_checked_does_not_fit(states, strict, verdict):
    held = [check(state) for state in states]
    assert judge.verdict(held, strict=strict, named=("size_mb",)) == verdict
    other = judge.verdict(held, strict=strict, named=("load_ms",))
    assert other == ("fits_closely" if verdict == "unchecked" else verdict)


def test_no_row_is_a_miss():
    assert judge.verdict(None) == "misses"


# ---------------------------------------------------------------- the choice


def test_latency_chooses_the_lowest_p90_that_fits():
    choice = judge.choose([row("a", 0.1, 9.0), row("b", 0.4, 3.0), row("c", 5.0, 1.0)], LIMITS)
    assert choice.chosen == "b"
    assert choice.safer == "a"
    assert choice.states["b"][0] == "chosen" and choice.states["a"][0] == "kept"
    assert choice.states["c"][0] == "measured" and "drop 5.00" in choice.states["c"][1]


def test_within_five_percent_the_smaller_file_then_the_score_then_the_name():
    pair = [row("a", 0.1, 10.0, 9.0), row("b", 0.3, 10.4, 6.0)]
    assert judge.choose(pair, LIMITS).chosen == "b"
    assert judge.choose([pair[0], row("b", 0.3, 10.6, 6.0)], LIMITS).chosen == "a"
    assert judge.choose([row("a", 0.3, 10.0), row("b", 0.1, 10.2)], LIMITS).chosen == "b"
    for order in ([row("b", 0.1, 3.0), row("a", 0.1, 3.0)], [row("a", 0.1, 3.0)]):
        assert judge.choose(order, LIMITS).chosen == "a"


def test_the_objective_decides():
    rows = [row("fast", 0.5, 1.0, 20.0), row("right", 0.1, 9.0, 15.0), row("tiny", 0.4, 5.0, 2.0)]
    chosen = {
        o: judge.choose(rows, LIMITS, objective=o).chosen for o in ("latency", "score", "size")
    }
    assert chosen == {"latency": "fast", "score": "right", "size": "tiny"}


def test_a_drop_must_be_inside_by_its_standard_error():
    near = row("near", 0.95, 1.0)
    assert judge.choose([near, row("safe", 0.2, 9.0)], LIMITS).chosen == "safe"
    sure = replace(near, validation=seen(0.95, error=0.04))
    assert judge.choose([sure, row("safe", 0.2, 9.0)], LIMITS).chosen == "near"


def test_where_the_cap_of_the_margin_bites_the_highest_score_is_chosen_and_said():
    noisy = [
        replace(r, validation=seen(d, error=0.8))
        for r, d in ((row("fast", 0, 1.0), 0.45), (row("right", 0, 9.0), 0.3))
    ]
    choice = judge.choose(noisy, LIMITS)
    assert choice.chosen == "right"  # margin 0.5, so both are eligible
    assert "can't tell" in choice.reason
    noisy[0] = replace(noisy[0], validation=seen(0.55, error=0.8))
    assert judge.choose(noisy, LIMITS).states["fast"][0] == "measured"  # the cap is half of 1.0


def test_a_vanished_label_or_an_answer_that_is_no_number_is_ineligible():
    safe = row("safe", 0.2, 9.0)
    for bad in ({"vanished": ("refund",)}, {"not_finite": 3}):
        choice = judge.choose([row("bad", 0, 1.0, validation=seen(0.0, **bad)), safe], LIMITS)
        assert choice.chosen == "safe"


def test_every_measured_limit_must_hold():
    limits = LIMITS | {"min_score_points": 95.0, "worst_label_drop_points": 10.0, "load_ms": 50.0}
    safe = row("safe", 0.2, 9.0, validation=seen(0.2, worst_drop=Interval(9.0, 0.0, 20.0)))
    assert judge.choose([safe], limits).chosen == "safe"
    lost = seen(0.2, worst_drop=Interval(11.0, 0.0, 20.0))
    misses = [
        replace(safe, validation=lost),
        replace(safe, figures=replace(safe.figures, memory_mb=61.0)),
        replace(safe, figures=replace(safe.figures, load_ms=51.0)),
        replace(safe, figures=figures(20.1)),
        replace(safe, validation=replace(safe.validation, score=Score(94.9, 94, 96, 3000))),
    ]
    for miss in misses:
        assert judge.choose([miss], limits).chosen is None


def test_int8_takes_its_parents_place_only_where_it_pays():
    parent = row("s fp32", 0.1, 4.0, 20.0, role="student_fp32")
    child = row("s int8", 0.3, 2.0, 6.0, parent="s fp32")
    choice = judge.choose([parent, child], LIMITS, objective="score")
    assert choice.chosen == "s int8"  # the float row is no rival where int8 pays
    assert choice.safer == "s fp32"
    alike = replace(child, figures=figures(4.1, 6.0))
    assert judge.choose([parent, alike], LIMITS).chosen == "s int8"  # within 5 %, and smaller
    noisy = figures(4.6, 6.0)
    noisy = replace(noisy, latency=replace(noisy.latency, p90_low=3.9))
    assert judge.choose([parent, replace(child, figures=noisy)], LIMITS).chosen == "s int8"
    slower = replace(child, figures=figures(4.6, 6.0))
    choice = judge.choose([parent, slower], LIMITS)
    assert choice.chosen == "s fp32"
    assert choice.states["s int8"] == (
        "measured",
        "not kept: slower than s fp32 (4.6 against 4 ms)",
    )
    larger = replace(child, figures=figures(2.0, 21.0))
    assert judge.choose([parent, larger], LIMITS).chosen == "s fp32"
    assert judge.choose([parent, child], LIMITS, max_drop=0.1).chosen == "s fp32"  # costs 0.2
    wrong = replace(child, validation=seen(2.0))  # not at the allowed score
    assert judge.choose([parent, wrong], LIMITS).chosen == "s fp32"


def test_what_is_smaller_and_no_faster_is_not_called_the_fastest():
    parent = row("s fp32", 0.1, 4.0, 20.0, role="student_fp32")
    half = row("s fp16", 0.1, 4.1, 10.0, parent="s fp32")
    choice = judge.choose([parent, half], LIMITS)
    assert (choice.chosen, choice.reason) == (
        "s fp16",
        "smaller than s fp32, and as fast within the noise of the run (4.1 against 4 ms)",
    )
    a_little = replace(half, figures=figures(3.9, 10.0))
    assert (
        "within the noise of the run (3.9 against 4"
        in judge.choose([parent, a_little], LIMITS).reason
    )
    faster = replace(half, figures=figures(3.0, 10.0))
    assert judge.choose([parent, faster], LIMITS).reason.startswith("the lowest p90")
    unsure = [replace(each, validation=seen(0.1, error=2.0)) for each in (parent, half)]
    other = replace(unsure[1], name="t fp16", parent=None, validation=seen(0.2, error=2.0))
    choice = judge.choose([*unsure, other], LIMITS)
    assert choice.reason == (
        "the validation rows can't tell the candidates apart: the highest score there of 2 that fit"
    )


@pytest.mark.parametrize(("ratio", "chosen"), [(0.9, "s int8"), (0.6, "s fp32")])
def test_a_ratio_round_by_round_tells_what_noisy_latencies_do_not(ratio, chosen):
    def noisy(p90, ratio):
        made = figures(p90, 6.0)
        about = Interval(ratio, 0.95 * ratio, 1.05 * ratio)
        wide = replace(made.latency, p90_low=0.5 * p90, p90_high=2 * p90)
        return replace(made, latency=wide, speedup=about)

    parent = row("s fp32", 0.1, 4.0, role="student_fp32", figures=noisy(4.0, 1.0))
    child = row("s int8", 0.3, 4.6, parent="s fp32", figures=noisy(6.4, ratio))
    assert judge.choose([parent, child], LIMITS).chosen == chosen


def test_slower_int8_pays_where_its_parent_does_not_fit():
    parent = row("s fp32", 0.1, 4.0, 30.0, role="student_fp32")
    child = row("s int8", 0.3, 4.5, 6.0, parent="s fp32")
    assert judge.choose([parent, child], LIMITS).chosen == "s int8"


def test_baseline_and_control_are_never_chosen():
    beside = [row("t", 0.0, 1.0, role="baseline"), row("c", 0.0, 1.0, role="control")]
    choice = judge.choose([*beside, row("s", 0.5, 5.0)], LIMITS)
    assert choice.chosen == "s" and choice.safer == "s"
    assert choice.states["t"][0] == choice.states["c"][0] == "measured"


def test_the_teacher_in_int8_is_a_candidate_too():
    teacher = row("t int8", 0.1, 5.0, role="teacher_int8", parent="t")
    assert (
        judge.choose([row("t", 0, 16.0, 90.0, role="baseline"), teacher], LIMITS).chosen == "t int8"
    )


def test_rows_that_never_got_figures_keep_their_state_and_reason():
    rows = [
        row("late", 0, 1.0, stopped=("skipped", "no time")),
        row("dead", 0, 1.0, figures=Figures(failed="killed")),
        row("s", 0.1, 5.0),
    ]
    choice = judge.choose(rows, LIMITS)
    assert choice.chosen == "s"
    assert choice.states["late"] == ("skipped", "no time")
    assert choice.states["dead"] == ("failed", "killed")


def test_where_nothing_fits_the_best_miss_is_named():
    rows = [row("far", 3.0, 5.0), row("near", 1.2, 5.0), row("big", 0.1, 5.0, 60.0)]
    choice = judge.choose(rows, LIMITS)
    assert choice.chosen is None and choice.safer is None
    assert choice.best_miss == "near"
    assert "near" in choice.reason and "1.2" in choice.reason
    assert judge.choose([], LIMITS).best_miss is None


def test_without_a_limit_on_the_drop_anything_measured_may_be_chosen():
    assert judge.choose([row("a", 30.0, 1.0)], {"size_mb": 20.0}).chosen == "a"


# ---------------------------------------------------------------- own rows


OWN = LIMITS | {"max_own_drop_points": 2.0}


def test_a_row_is_eligible_when_both_drops_are_inside_their_limits():
    rows = [
        row("fast", 0.2, 5.0, own=seen(5.0, 1.0)),
        row("close", 0.2, 6.0, own=seen(1.9, 0.5)),
        row("sound", 0.4, 8.0, own=seen(0.5, 0.5)),
        row("general", 3.0, 4.0, own=seen(0.0, 0.5)),
    ]
    choice = judge.choose(rows, OWN)
    assert choice.chosen == "sound"
    assert "drop 5.00 points on own rows, allowed 2" in choice.states["fast"][1]
    assert "on own rows is inside 2, but not by a margin of 0.50" in choice.states["close"][1]
    assert "drop 3.00 points, allowed 1" in choice.states["general"][1]


def test_without_a_limit_the_own_drop_decides_nothing():
    rows = [row("fast", 0.2, 5.0, own=seen(5.0, 1.0)), row("slow", 0.2, 8.0, own=seen(0.0, 1.0))]
    assert judge.choose(rows, LIMITS).chosen == "fast"


def test_a_few_own_rows_do_not_turn_the_choice_into_one_by_score():
    rows = [row("fast", 0.4, 5.0, own=seen(0.0, 8.0)), row("slow", 0.2, 8.0, own=seen(0.0, 8.0))]
    assert judge.choose(rows, OWN).reason.startswith("the lowest p90")


def test_the_own_drop_has_a_check_and_rows_of_its_own():
    shown = seen(1.0, 2.0, score=Score(95.0, None, None, 40))
    values, reasons = judge.figures_of(figures(5.0), seen(0.2), shown)
    held = {c.limit: c for c in judge.checks(OWN, values, reasons, rows=3000, own_rows=40)}
    assert held["max_drop_points"].state == "holds"
    own = held["max_own_drop_points"]
    assert own.state == "close" and "by these 40 rows" in own.reason
    values, reasons = judge.figures_of(figures(5.0), seen(0.2))
    none = judge.checks({"max_own_drop_points": 1.0}, values, reasons)[0]
    assert (none.state, none.reason) == ("unchecked", "there are no own rows")


def test_each_split_of_ours_is_doubted_by_itself():
    assert set(judge.not_unseen(OWN)) == {"max_drop_points"}
    assert set(judge.not_unseen(OWN, own=True)) == {"max_own_drop_points"}


# ---------------------------------------------------------------- pruning


def pruned(drop: float, p90: float, before: judge.Contender) -> tuple[str, str]:
    """Return the state and reason of a row that was pruned from another."""
    small = row("pruned int8", drop, p90, size=8.0, unpruned=before.name)
    return judge.choose([before, small], LIMITS).states[small.name]


@pytest.mark.parametrize(
    ("p90", "speedup", "limits", "says"),
    [
        (
            4.04,
            None,
            LIMITS,
            "; no faster than teacher fp32 (4.04 against 4 ms), within the noise of",
        ),
        (
            3.99,
            0.99,
            LIMITS,
            "; no faster than teacher fp32 (0.99 times its speed, round by round), w",
        ),
        (4.6, None, LIMITS | {"size_mb": 9.0}, " (4.6 against 4 ms), which does not fit"),
        (3.9, 1.02, LIMITS, None),
    ],
)
def test_a_row_that_is_kept_though_it_is_no_faster_than_its_parent_says_so(
    p90, speedup, limits, says
):
    found = figures(p90, 5.0)
    if speedup:
        found = replace(found, speedup=Interval(speedup, 0.9, 1.1))
    teacher = row("teacher fp32", 0.0, 4.0, role="baseline")
    int8 = row("teacher int8", 0.1, p90, role="teacher_int8", parent=teacher.name, figures=found)
    choice = judge.choose([teacher, int8, row("s int8", 0.5, 1.0, 3.0)], limits)
    state, reason = choice.states["teacher int8"]
    assert state == "kept" and reason.startswith("fits too: p90 ")
    assert says in reason if says else "no faster" not in reason


@pytest.mark.parametrize(
    ("drop", "p90", "state", "says"),
    [
        (0.3, 9.0, "chosen", "lowest p90"),
        (0.3, 9.5, "chosen", "lowest p90"),
        (0.3, 9.6, "dropped", "9.6 ms, is 4.0 % below that of student int8 (10 ms); at least 5 %"),
        (0.3, 11.0, "dropped", "10.0 % above that of student int8"),
        (3.0, 5.0, "dropped", "pruning not kept: does not fit: drop 3.00 points, allowed 1"),
    ],
)
def test_pruning_is_kept_only_where_it_is_faster_by_5_percent(drop, p90, state, says):
    found = pruned(drop, p90, row("student int8", 0.2, 10.0))
    assert found[0] == state and says in found[1]


def test_what_was_pruned_leaves_the_row_before_it_in_play():
    before = row("student int8", 0.0, 10.0)
    small = row("pruned int8", 0.4, 8.0, unpruned=before.name)
    choice = judge.choose([before, small], LIMITS, objective="score")
    assert choice.chosen == "student int8" and choice.states["pruned int8"][0] == "kept"


def test_beside_a_row_that_does_not_fit_a_pruned_one_that_does_is_kept():
    before = row("student int8", 0.2, 20.5)  # over the limit of 20 ms
    assert pruned(0.3, 19.9, before)[0] == "chosen"


def test_a_pruned_row_in_int8_is_held_against_its_float_row_too():
    rows = [
        row("student fp32", 0.1, 12.0, role="student_fp32"),
        row("student int8", 0.2, 10.0, parent="student fp32"),
        row("pruned fp32", 0.2, 9.0, role="student_fp32", unpruned="student fp32"),
        row("pruned int8", 0.3, 9.9, parent="pruned fp32", unpruned="student int8"),
    ]
    states = judge.choose(rows, LIMITS).states
    assert states["pruned int8"][0] == "dropped" and "1.0 % below" in states["pruned int8"][1]
    assert states["pruned fp32"][0] == "chosen"


@pytest.mark.parametrize(("p90", "state"), [(9.6, "dropped"), (9.4, "kept")])
def test_what_was_pruned_and_quantized_is_faster_than_the_student_by_any_scheme(p90, state):
    rows = [
        row("student fp32", 0.1, 16.0, 30.0, role="student_fp32"),
        row("student int8", 0.1, 10.0, parent="student fp32"),
        row("student int8 static", 0.1, 12.0, parent="student fp32"),
        row("pruned fp32", 0.2, 13.0, 30.0, role="student_fp32", unpruned="student fp32"),
        row("pruned static", 0.2, p90, 9.9, parent="pruned fp32", unpruned="student int8 static"),
    ]
    choice = judge.choose(rows, LIMITS, objective="score")
    assert choice.states["pruned static"][0] == state
    assert choice.chosen == "student int8", "at the higher score"
