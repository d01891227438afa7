"""What outputs show: intervals, labels, paired drops."""

from __future__ import annotations

import numpy as np
import pytest

from edgedistill import plugins
from edgedistill.errors import DataError
from edgedistill.judge.evidence import (
    can_show,
    detectable,
    evaluate,
    gain,
    paired_drop,
    score_of,
    wilson,
)
from edgedistill.tasks import Statistics

TASK = plugins.find("tasks", "text-classification")
LABELS = ["a", "b", "c"]


def logits(answers) -> np.ndarray:
    """Outputs that answer so."""
    return np.eye(3, dtype=np.float32)[np.asarray(answers)] * 4


def show(answers, truth, baseline=None, metric="accuracy", **more):
    base = None if baseline is None else logits(baseline)
    return evaluate(
        logits(answers), np.array(truth), base, task=TASK, metric=metric, labels=LABELS, **more
    )


def test_wilson_is_the_published_interval():
    # Newcombe (1998), table I: 81 of 263 and 0 of 20
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_a_paired_drop_is_bonett_and_prices_adjusted_wald():
    drop, error = paired_drop(lost=20, gained=10, rows=100)
    a, b = 21 / 102, 11 / 102
    wald = ((a + b - (a - b) ** 2) / 102) ** 0.5
    assert error == pytest.approx(100 * wald)
    assert drop.value == pytest.approx(10.0)
    assert drop.low == pytest.approx(100 * (a - b - 1.96 * wald), abs=1e-3)
    assert drop.high == pytest.approx(100 * (a - b + 1.96 * wald), abs=1e-3)


def test_no_disagreement_still_leaves_doubt():
    drop, _ = paired_drop(lost=0, gained=0, rows=50)
    assert drop.value == 0 and drop.low < 0 < drop.high


def test_the_interval_of_the_drop_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        kinds = rng.multinomial(300, [0.03, 0.01, 0.96])
        drop, _ = paired_drop(int(kinds[0]), int(kinds[1]), 300)
        inside += drop.low <= 2.0 <= drop.high
    assert inside >= 400 * 0.92


def test_a_row_is_paired_with_the_baseline():
    truth = [0] * 10 + [1] * 10 + [2] * 10
    baseline = list(truth)
    mine = list(truth)
    mine[0] = mine[1] = 1  # two rows lost
    baseline[29], mine[29] = 0, 2  # one gained
    seen = show(mine, truth, baseline)
    assert seen.score.value == pytest.approx(100 * 28 / 30)
    assert seen.score.low < seen.score.value < seen.score.high
    assert seen.drop.value == pytest.approx(100 / 30)
    assert seen.disagreement == pytest.approx(10.0)
    assert seen.agreement == pytest.approx(90.0)
    assert [one.label for one in seen.worst_labels] == ["a"]
    assert seen.worst_labels[0].recall == 80.0 and seen.worst_labels[0].baseline_recall == 100.0
    assert seen.worst_drop.value == pytest.approx(20.0)
    assert set(seen.scores) == set(TASK.METRICS)


def test_the_baseline_itself_has_no_drop():
    seen = show([0, 1, 2], [0, 1, 2])
    assert (seen.drop, seen.agreement, seen.worst_drop, seen.confidence) == (None,) * 4


def test_a_label_vanishes_when_the_baseline_finds_five_and_the_row_none():
    truth = [0] * 5 + [1] * 4 + [2] * 9
    gone = [2] * len(truth)
    assert show(gone, truth, truth).vanished == ("a",)


def test_rows_without_a_label_count_nowhere():
    some = show([0, 1, 2, 2], [0, 1, 2, -1], [0, 1, 2, 0])
    assert some.score.rows == 3 and some.drop.value == 0 and some.agreement == 100
    with pytest.raises(DataError, match="no row carries a label"):
        show([0], [-1])


def test_an_answer_that_is_no_number_is_wrong():
    outputs, truth = logits([0, 1, 2, 0]), np.array([0, 1, 2, 0])
    outputs[0, 1] = np.nan
    outputs[3, 0] = np.inf
    for metric in TASK.METRICS:
        seen = evaluate(
            outputs, truth, logits(truth), task=TASK, metric=metric, labels=LABELS, temperature=1.0
        )
        assert seen.not_finite == 2
        assert seen.scores["accuracy"].value == 50.0
        assert np.isfinite(seen.confidence.ece)


def test_outputs_that_can_not_be_paired_are_an_error():
    with pytest.raises(DataError, match="can't be paired"):
        show([0, 1, 2], [0, 1, 2], [0, 1])


def test_a_metric_without_a_formula_has_an_interval_by_resampling():
    truth = np.arange(90) % 3
    mine = np.where(np.arange(90) % 7 == 0, 0, truth)
    seen = show(mine, truth, truth, metric="macro_f1")
    assert seen.drop.low < seen.drop.value < seen.drop.high
    assert seen.score.low < seen.score.value < seen.score.high
    assert seen.drop_error > 0
    assert show(mine, truth, truth, metric="macro_f1").drop == seen.drop


def test_a_score_or_a_gain_alone_computes_no_other_metric():
    asked = []

    class Watched:
        METRICS, UNIT, HIGHER_IS_BETTER = TASK.METRICS, TASK.UNIT, TASK.HIGHER_IS_BETTER
        score = staticmethod(TASK.score)

        @staticmethod
        def statistics(outputs, truth, metric):
            asked.append(metric)
            return TASK.statistics(outputs, truth, metric)

    truth = np.arange(60) % 3
    mine, base = logits(np.where(np.arange(60) % 6 == 0, 1, truth)), logits(truth)
    for metric in TASK.METRICS:
        alone = score_of(mine, truth, task=Watched, metric=metric)
        worth = gain(mine, base, truth, task=Watched, metric=metric)
        assert set(asked) == {metric}
        asked.clear()
        whole = evaluate(mine, truth, base, task=TASK, metric=metric, labels=LABELS)
        assert worth.value == -whole.drop.value and worth.low == -whole.drop.high
        assert alone.value == whole.score.value
        assert alone.low == pytest.approx(whole.score.low, abs=0.5)


def test_for_an_error_a_lower_figure_is_a_gain():
    class Error:
        METRICS, UNIT, HIGHER_IS_BETTER = ("error",), "points", False

        @staticmethod
        def statistics(outputs, truth, metric):
            values = np.stack([outputs.argmax(1) != truth, np.ones(len(truth))], axis=1)
            return Statistics(np.tile([0, 1], (len(truth), 1)), values, 2)

        @staticmethod
        def score(sums, metric):
            return 100 * sums[..., 0] / sums[..., 1]

    truth = np.arange(60) % 3
    worse = np.where(np.arange(60) % 6 == 0, 1, truth)
    seen = evaluate(logits(worse), truth, logits(truth), task=Error, metric="error", labels=LABELS)
    assert seen.drop.value == pytest.approx(100 * 10 / 60)
    assert 0 < seen.drop.low < seen.drop.high


def test_what_rows_can_show_is_as_the_field_has_it():
    assert detectable(4500, 2) == pytest.approx(0.6, abs=0.05)
    assert detectable(4500, 4) == pytest.approx(0.8, abs=0.05)
    assert "4,500 test rows can show a drop of 0.6 to 0.8 points" in can_show(4500)
    assert "\n" not in can_show(700) and "1.5 to 2.1" in can_show(700)
    assert "where 9.0 %" in can_show(100, 9.0)
    assert can_show(0).startswith("no test rows")
