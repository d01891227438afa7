"""Metrics by sums against scikit-learn, decoding, and the default metric."""

from __future__ import annotations

import numpy as np
import pytest

from edgedistill.tasks import Statistics
from edgedistill.tasks import _classification as shared

LABELS = 6


@pytest.fixture
def answered() -> tuple[np.ndarray, np.ndarray]:
    """Make outputs (300, 6) and truth in which label 5 never occurs and label 4 is never right."""
    draws = np.random.default_rng(3)
    truth = draws.integers(0, LABELS - 1, size=300)
    outputs = draws.normal(size=(300, LABELS)).astype(np.float32)
    outputs[np.arange(300), truth] += 1.2
    outputs[truth == 4, 4] -= 50
    return outputs, truth


def scored(outputs, truth, metric):
    return float(shared.score(shared.statistics(outputs, truth, metric).sums(), metric))


def test_scores_are_those_of_scikit_learn(answered):
    from sklearn import metrics

    outputs, truth = answered
    answer = outputs.argmax(axis=1)
    assert (answer == 5).any(), "a label that only occurs among the answers"
    assert scored(outputs, truth, "accuracy") == pytest.approx(
        100 * metrics.accuracy_score(truth, answer)
    )
    recall = metrics.recall_score(truth, answer, average="macro", labels=range(5))
    assert scored(outputs, truth, "balanced_accuracy") == pytest.approx(100 * recall)
    f1 = metrics.f1_score(truth, answer, average="macro", zero_division=0)
    assert scored(outputs, truth, "macro_f1") == pytest.approx(100 * f1)


@pytest.mark.parametrize("metric", shared.METRICS)
def test_a_resample_scores_as_its_sums(metric, answered):
    outputs, truth = answered
    found = shared.statistics(outputs, truth, metric)
    draws = np.random.default_rng(1).integers(0, 300, size=(7, 300))
    drawn = [Statistics(found.columns[d], found.values[d], found.size).sums() for d in draws]
    together = shared.score(np.stack(drawn), metric)
    assert together.shape == (7,)
    alone = [scored(outputs[rows], truth[rows], metric) for rows in draws]
    assert together == pytest.approx(alone)


@pytest.mark.parametrize("metric", shared.METRICS)
def test_a_row_adds_to_three_sums_at_most_however_many_labels_there_are(metric):
    outputs = np.eye(500, dtype=np.float32)[::5]
    found = shared.statistics(outputs, np.arange(100), metric)
    assert found.columns.shape == found.values.shape
    assert len(found.columns) == 100 and found.columns.shape[1] <= 3
    assert found.sums().shape == (found.size,)


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1"])
def test_truth_that_is_no_label_is_an_error(metric):
    with pytest.raises(ValueError, match="truth 3 is none of the 3 labels"):
        shared.statistics(np.eye(3), np.array([0, 3, 1]), metric)


@pytest.mark.parametrize("metric", shared.METRICS)
def test_unlabelled_rows_count_nowhere(metric, answered):
    outputs, truth = answered
    more = np.concatenate([outputs, outputs[:50]])
    assert scored(more, np.concatenate([truth, np.full(50, -1)]), metric) == scored(
        outputs, truth, metric
    )


@pytest.mark.parametrize("metric", shared.METRICS)
def test_outputs_that_are_no_numbers_are_wrong(metric):
    outputs = np.full((4, 3), np.nan)
    assert scored(outputs, np.zeros(4, int), metric) == 0
    assert scored(np.array([[1, np.inf, 0]]), np.array([1]), metric) == 0


@pytest.mark.parametrize("metric", shared.METRICS)
def test_nothing_counted_is_no_number(metric):
    assert np.isnan(scored(np.zeros((2, 3)), np.array([-1, -1]), metric))


def test_an_unknown_metric_is_an_error(answered):
    with pytest.raises(ValueError, match="f2"):
        shared.statistics(*answered, "f2")


def test_decode_orders_by_probability_then_by_label():
    (told,) = shared.decode(np.array([[1.0, 3.0, 1.0]]), ["a", "b", "c"], 1.0)
    assert [label for label, _ in told] == ["b", "a", "c"]
    assert sum(share for _, share in told) == pytest.approx(1)
    assert told[0][1] == pytest.approx(np.exp(2) / (np.exp(2) + 2))


def test_a_higher_temperature_is_less_sure_and_large_outputs_do_not_overflow():
    outputs = np.array([[0.0, 2000.0]], dtype=np.float32)
    ((_, sure), _) = shared.decode(outputs, ["a", "b"], 1.0)[0]
    ((_, unsure), _) = shared.decode(outputs, ["a", "b"], 4000.0)[0]
    assert sure == 1.0 and 0.5 < unsure < 0.7


def test_the_default_metric_turns_where_one_label_is_over_five_times_the_median():
    assert shared.default_metric({"a": 50, "b": 10, "c": 10}) == ("accuracy", None)
    metric, reason = shared.default_metric({"spam": 51, "b": 10, "c": 10})
    assert metric == "balanced_accuracy"
    assert reason is not None and "spam" in reason and "51" in reason
    assert shared.default_metric({})[0] == "accuracy"
