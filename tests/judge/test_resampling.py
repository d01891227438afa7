"""Resampled scores against drawing whole rows, and what is held while they are made."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from edgedistill import plugins
from edgedistill.judge import evaluate, resampling
from edgedistill.judge.evidence import paired_drop
from edgedistill.judge.resampling import resampled
from edgedistill.tasks import Statistics

TASK = plugins.find("tasks", "text-classification")
DRAWS = 5000


def logits(answers: np.ndarray, labels: int) -> np.ndarray:
    """Outputs that answer so; -1 answers with no number."""
    outputs = np.eye(labels, dtype=np.float32)[answers] * 4
    outputs[np.asarray(answers) < 0, 0] = np.nan
    return outputs


def answered(*sizes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make truth with so many rows of each label, and answers of two models that agree mostly."""
    rng = np.random.default_rng(7)
    truth = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    theirs = np.where(rng.random(len(truth)) < 0.15, rng.integers(0, len(sizes), len(truth)), truth)
    mine = np.where(rng.random(len(truth)) < 0.2, rng.integers(-1, len(sizes), len(truth)), theirs)
    return truth, mine, theirs


def scores(mine, theirs, truth, labels, metric, seed=0):
    sums = [None if a is None else TASK.statistics(logits(a, labels), truth, metric)
            for a in (mine, theirs)]  # fmt: skip
    return resampled(*sums, truth, score=lambda sums: TASK.score(sums, metric), seed=seed)


def score_of_rows(answers: np.ndarray, truth: np.ndarray, labels: int, metric: str) -> float:
    """Score answers without the sums of the task."""
    right = np.bincount(truth[answers == truth], minlength=labels)
    rows = np.bincount(truth, minlength=labels)
    if metric == "accuracy":
        return 100 * right.sum() / rows.sum()
    if metric == "balanced_accuracy":
        return float(np.mean(100 * right[rows > 0] / rows[rows > 0]))
    told = rows + np.bincount(answers[answers >= 0], minlength=labels)
    return float(np.mean(200 * right[told > 0] / told[told > 0]))


@pytest.mark.parametrize("metric", TASK.METRICS)
def test_scores_are_those_of_whole_rows_drawn_within_each_label(metric):
    sizes = (1, 2, 3, 5, 8, 13, 90, 600, 0)  # rows drawn one by one, by classes, and not at all
    truth, mine, theirs = answered(*sizes)
    own, other = scores(mine, theirs, truth, len(sizes), metric)
    assert len(own) == len(other) == resampling.RESAMPLES
    rng = np.random.default_rng(1)
    of_label = [np.flatnonzero(truth == label) for label in range(len(sizes)) if sizes[label]]
    drawn = []
    for _ in range(DRAWS):
        rows = np.concatenate([rng.choice(rows, len(rows)) for rows in of_label])
        drawn.append(
            [score_of_rows(a[rows], truth[rows], len(sizes), metric) for a in (mine, theirs)]
        )
    by_rows, others = np.transpose(drawn)
    pairs = ((own, by_rows), (other, others), (other - own, others - by_rows))
    for ours, wanted in pairs:
        assert ours.mean() == pytest.approx(wanted.mean(), abs=5 * wanted.std() / DRAWS**0.5)
        assert ours.std() == pytest.approx(wanted.std(), rel=0.08)
        at = (0.025, 0.25, 0.75, 0.975)
        assert np.quantile(ours, at) == pytest.approx(
            np.quantile(wanted, at), abs=0.2 * wanted.std()
        )


@pytest.mark.parametrize("size", [6, 5000])
def test_each_draw_has_as_many_rows_of_a_label_as_there_are(size):
    truth, mine, theirs = answered(size, size, 1)
    own = TASK.statistics(logits(mine, 3), truth, "macro_f1")
    other = TASK.statistics(logits(theirs, 3), truth, "macro_f1")
    seen: list[np.ndarray] = []

    def score(sums: np.ndarray) -> np.ndarray:
        seen.append(sums.copy())
        return sums[:, 0]

    resampled(own, other, truth, score=score, seed=0)
    for sums in seen:
        right, rows, answers = np.split(sums, 3, axis=1)
        assert (rows == [size, size, 1]).all()
        assert (right <= rows).all() and (answers.sum(axis=1) <= len(truth)).all()
    mean = np.mean(np.concatenate(seen[0::2]), axis=0)
    assert mean == pytest.approx(own.sums(), rel=0.02, abs=0.1)


def test_sums_may_be_of_any_numbers_and_a_row_may_add_to_one_sum_twice():
    rng = np.random.default_rng(0)
    truth, gains = np.repeat([0, 1], 40), rng.normal(size=80)
    columns, values = np.zeros((80, 2), np.int64), np.stack([gains, 2 * gains], axis=1)
    own, other = resampled(
        Statistics(columns, values, 1), None, truth, score=lambda sums: sums[:, 0], seed=0
    )
    assert other is None
    spread = sum(40 * 9 * gains[truth == label].var() for label in (0, 1)) ** 0.5
    assert own.mean() == pytest.approx(3 * gains.sum(), abs=5 * spread / 100)
    assert own.std() == pytest.approx(spread, rel=0.03)


def test_rows_that_add_the_same_within_each_label_leave_no_doubt():
    truth = np.array([0, 0, 1, 1, 1, 2])
    own, other = scores(np.array([0, 0, 2, 2, 2, 2]), truth, truth, 3, "balanced_accuracy")
    assert own == pytest.approx(200 / 3) and (other == 100).all()


def test_it_agrees_with_the_formula_on_accuracy_and_is_the_same_every_time():
    truth, mine, theirs = answered(300, 300, 300)
    own, other = scores(mine, theirs, truth, 3, "accuracy", seed=3)
    again, _ = scores(mine, theirs, truth, 3, "accuracy", seed=3)
    assert (own == again).all()
    right, before = mine == truth, theirs == truth
    formula, _ = paired_drop(int((before & ~right).sum()), int((right & ~before).sum()), 900)
    low, high = np.quantile(other - own, (0.025, 0.975))
    assert (low, high) == pytest.approx((formula.low, formula.high), abs=0.35)


def test_small_chunks_give_the_same_interval(monkeypatch):
    truth, mine, theirs = answered(30, 30, 30)
    whole = np.subtract(*scores(mine, theirs, truth, 3, "macro_f1"))
    monkeypatch.setattr(resampling, "_ROOM", 3000)
    parts = np.subtract(*scores(mine, theirs, truth, 3, "macro_f1"))
    at = (0.025, 0.5, 0.975)
    assert np.quantile(parts, at) == pytest.approx(np.quantile(whole, at), abs=0.5)


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1"])
def test_what_is_held_does_not_grow_with_rows_times_labels(metric, monkeypatch):
    """A table of 4,000 rows by the sums of 2,000 labels would be 128 MB; outputs are 32 MB."""
    monkeypatch.setattr(resampling, "RESAMPLES", 200)
    monkeypatch.setattr(resampling, "_ROOM", 200_000)
    labels, rows = 2000, 4000
    rng = np.random.default_rng(0)
    truth = rng.integers(0, labels, rows)
    outputs = rng.random((rows, labels), dtype=np.float32)
    theirs = np.roll(outputs, 1, axis=0)
    names = [str(label) for label in range(labels)]
    tracemalloc.start()
    try:
        evaluate(outputs, truth, theirs, task=TASK, metric=metric, labels=names, temperature=1.0)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < outputs.nbytes
