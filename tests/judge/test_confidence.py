"""Probabilities: the temperature, the calibration error, what thresholds keep."""

from __future__ import annotations

import numpy as np
import pytest

from edgedistill.errors import DataError
from edgedistill.judge import confidence as confidences
from edgedistill.judge.confidence import COLDEST, confidence, fit_temperature


def drawn(rows: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax at that temperature."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=4.0, size=(rows, 5))
    p = np.exp(logits / temperature)
    p /= p.sum(axis=1, keepdims=True)
    return logits, (p.cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    logits, truth = drawn(6000, temperature)
    assert fit_temperature(logits, truth) == pytest.approx(temperature, rel=0.1)


def test_no_other_temperature_has_a_lower_nll():
    logits, truth = drawn(500, 2.0)

    def nll(t: float) -> float:
        scaled = logits / t
        peak = scaled.max(axis=1)
        total = peak + np.log(np.exp(scaled - peak[:, None]).sum(axis=1))
        return float((total - scaled[np.arange(len(truth)), truth]).mean())

    best = fit_temperature(logits, truth)
    assert all(nll(best) <= nll(best * factor) for factor in (0.5, 0.99, 1.01, 2.0))


def test_rows_without_an_error_do_not_make_the_app_certain():
    logits = np.eye(4) * 3
    assert fit_temperature(logits, np.arange(4)) == pytest.approx(COLDEST, rel=1e-3)


def test_rows_without_label_or_finite_answer_are_left_out():
    logits, truth = drawn(500, 2.0)
    spoiled = np.concatenate([logits, np.full((3, 5), np.nan), logits[:2]])
    more = np.concatenate([truth, [0, 0, 0], [-1, -1]])
    assert fit_temperature(spoiled, more) == fit_temperature(logits, truth)
    with pytest.raises(DataError, match="no temperature"):
        fit_temperature(logits[:1], np.array([-1]))


def test_few_numbers_at_once_give_the_same(monkeypatch):
    logits, truth = drawn(300, 2.0)
    logits[7, 2] = np.nan
    whole = fit_temperature(logits, truth), confidence(logits, truth, 1.5)
    monkeypatch.setattr(confidences, "_NUMBERS", 12)  # two rows of five labels
    assert fit_temperature(logits, truth) == pytest.approx(whole[0])
    assert confidence(logits, truth, 1.5) == whole[1]


def test_calibration_error_and_coverage():
    p = np.array([[0.95, 0.05], [0.8, 0.2], [0.6, 0.4], [0.55, 0.45]])
    seen = confidence(np.log(p), np.array([0, 0, 0, 1]), 1.0)
    at = {one.threshold: one for one in seen.at}
    assert (at[0.5].coverage, at[0.5].accuracy) == (100.0, 75.0)
    assert (at[0.7].coverage, at[0.7].accuracy) == (50.0, 100.0)
    assert (at[0.9].coverage, at[0.9].accuracy) == (25.0, 100.0)
    # four bins of one row each, but 0.6 and 0.55 share [8/15, 9/15) and [9/15, ...)
    gaps = [1 - 0.95, 1 - 0.8, 1 - 0.6, 0.55]
    assert seen.ece == pytest.approx(100 * sum(gaps) / 4, abs=1e-6)


def test_nothing_above_a_threshold_has_no_accuracy():
    seen = confidence(np.zeros((4, 3)), np.zeros(4, int), 1.0)
    assert [one.accuracy for one in seen.at] == [None, None, None]
    assert [one.coverage for one in seen.at] == [0.0, 0.0, 0.0]


def test_calibrated_labels_have_a_small_error_after_the_fit():
    logits, truth = drawn(6000, 3.0)
    raw = confidence(logits, truth, 1.0).ece
    fitted = confidence(logits, truth, fit_temperature(logits, truth)).ece
    assert fitted < 3 < raw
