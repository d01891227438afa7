"""What the outputs of a row show beside the baseline's: score, paired drop, labels, confidence.

Pure: arrays in, frozen records out. Scores, drops, recalls, agreement, coverage and calibration
error are in points (0 to 100). Rows whose truth is -1 carry no label and are left out. A row whose
outputs are not finite numbers counts as answered wrongly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgedistill.errors import DataError
from edgedistill.judge.confidence import Confidence, answers_of, confidence
from edgedistill.records import Interval, Score

Z = 1.959963984540054  # two-sided 95 %
POWER = 0.8416212335729143  # 80 % of a normal curve
RESAMPLES = 10_000
FEW = 5  # rows of a label below which its recall says nothing
WORST = 10  # labels that are listed
_ROOM = 4_000_000  # numbers held at once while resampling


class Scoring(Protocol):
    """The part of a task that scores; see `edgedistill.tasks.Task`."""

    METRICS: tuple[str, ...]
    UNIT: str
    HIGHER_IS_BETTER: bool

    def statistics(self, outputs: np.ndarray, truth: np.ndarray, metric: str) -> np.ndarray:
        """Return (examples, k) sums."""

    def score(self, sums: np.ndarray, metric: str) -> np.ndarray:
        """Turn summed statistics (..., k) into scores (...)."""


@dataclass(frozen=True)
class LabelRecall:
    """How often a label is found, by the row and by the baseline (points)."""

    label: str
    rows: int
    recall: float
    baseline_recall: float


@dataclass(frozen=True)
class Evaluation:
    """What one split shows of one row; what is paired is None for the baseline itself."""

    metric: str
    unit: str
    score: Score
    scores: Mapping[str, Score]  # every metric of the task; only the judged one has an interval
    drop: Interval | None = None
    drop_error: float | None = None  # one standard error of the drop
    agreement: float | None = None  # same answer as the baseline
    disagreement: float | None = None  # rows that just one of the two answers rightly
    worst_labels: tuple[LabelRecall, ...] = ()  # those that lost most, none that lost nothing
    worst_drop: Interval | None = None  # the largest loss of recall of a label with five rows
    vanished: tuple[str, ...] = ()  # found by the baseline in five rows, by this row in none
    confidence: Confidence | None = None
    not_finite: int = 0  # rows without a finite answer


# ---------------------------------------------------------------- the whole of one row


def evaluate(
    outputs: np.ndarray,
    truth: np.ndarray,
    baseline_outputs: np.ndarray | None = None,
    *,
    task: Scoring,
    metric: str,
    labels: Sequence[str],
    temperature: float | None = None,
    seed: int = 0,
) -> Evaluation:
    """Judge the outputs (rows, labels) of one row on one split, paired with the baseline's.

    `baseline_outputs` is None for the baseline itself; `temperature` None leaves confidence out.
    Raises `DataError` when no row has a label, or the two outputs differ in shape.
    """
    truth = np.asarray(truth).astype(np.int64).reshape(-1)
    if baseline_outputs is not None and np.shape(baseline_outputs) != np.shape(outputs):
        raise DataError(
            f"outputs of shape {np.shape(outputs)} can't be paired with the baseline's, "
            f"{np.shape(baseline_outputs)}"
        )
    known = truth >= 0
    if not known.any():
        raise DataError("no row carries a label: there is nothing to score")
    truth, mine = truth[known], np.asarray(outputs)[known]
    theirs = None if baseline_outputs is None else np.asarray(baseline_outputs)[known]
    score, drop, error = _scored(mine, theirs, truth, task=task, metric=metric, seed=seed)
    paired = {} if theirs is None else _paired(mine, theirs, truth, labels)
    return Evaluation(
        metric=metric,
        unit=task.UNIT,
        score=score,
        scores={name: _point(mine, truth, task, name) for name in task.METRICS} | {metric: score},
        drop=drop,
        drop_error=error,
        confidence=None if temperature is None else confidence(mine, truth, temperature),
        not_finite=int((~np.isfinite(mine).all(axis=1)).sum()),
        **paired,
    )


def gain(
    outputs: np.ndarray,
    others: np.ndarray,
    truth: np.ndarray,
    *,
    task: Scoring,
    metric: str,
    seed: int = 0,
) -> Interval:
    """Return by how many points the outputs score above others of the same rows, paired.

    What a teacher was worth: the student's outputs against its control's. Positive is better,
    whichever way the metric runs.
    """
    drop = evaluate(outputs, truth, others, task=task, metric=metric, labels=(), seed=seed).drop
    assert drop is not None and drop.low is not None and drop.high is not None
    return Interval(0.0 - drop.value, 0.0 - drop.high, 0.0 - drop.low)


# ---------------------------------------------------------------- intervals


def wilson(right: int, rows: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, as shares (Wilson, 1927)."""
    share, spread = right / rows, Z * Z / rows
    middle = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(share * (1 - share) / rows + spread / (4 * rows))
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_drop(lost: int, gained: int, rows: int) -> tuple[Interval, float]:
    """Return the drop of accuracy in points with its 95 % interval, and one standard error.

    `lost`: rows that only the baseline answers rightly; `gained`: those that only the other does.
    Adjusted Wald for paired proportions (Bonett and Price, 2012).
    """
    a, b = (lost + 1) / (rows + 2), (gained + 1) / (rows + 2)
    error = math.sqrt((a + b - (a - b) ** 2) / (rows + 2))
    low, high = max(-1.0, a - b - Z * error), min(1.0, a - b + Z * error)
    value = (lost - gained) / rows
    return Interval(100 * value, 100 * low, 100 * high), 100 * error


def resampled(
    mine: np.ndarray,
    theirs: np.ndarray | None,
    truth: np.ndarray,
    *,
    task: Scoring,
    metric: str,
    seed: int,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return 10,000 bootstrap scores of both, of the same draws within each label.

    Rows of a label with the same sums are drawn as one class of a multinomial: the same
    distribution as drawing rows, in memory that does not grow with them.
    """
    patterns, shares, sizes, starts = [], [], [], [0]
    for label in np.unique(truth):
        rows = np.flatnonzero(truth == label)
        sums = [task.statistics(mine[rows], truth[rows], metric)]
        if theirs is not None:
            sums.append(task.statistics(theirs[rows], truth[rows], metric))
        unique, counts = np.unique(np.concatenate(sums, axis=1), axis=0, return_counts=True)
        patterns.append(unique.astype(np.float64))
        shares.append(counts / len(rows))
        sizes.append(len(rows))
        starts.append(starts[-1] + len(unique))
    table = np.concatenate(patterns)
    width = table.shape[1] // (1 if theirs is None else 2)
    rng = np.random.default_rng(seed)
    step = max(1, min(RESAMPLES, _ROOM // max(table.shape)))
    own, other = [], []
    for first in range(0, RESAMPLES, step):
        count = min(step, RESAMPLES - first)
        draws = np.empty((count, len(table)))
        for index, (share, size) in enumerate(zip(shares, sizes, strict=True)):
            draws[:, starts[index] : starts[index + 1]] = rng.multinomial(size, share, size=count)
        summed = draws @ table
        own.append(task.score(summed[:, :width], metric))
        if theirs is not None:
            other.append(task.score(summed[:, width:], metric))
    return np.concatenate(own), np.concatenate(other) if other else None


def _scored(
    mine: np.ndarray,
    theirs: np.ndarray | None,
    truth: np.ndarray,
    *,
    task: Scoring,
    metric: str,
    seed: int,
) -> tuple[Score, Interval | None, float | None]:
    rows = len(truth)
    value = _point(mine, truth, task, metric).value
    if metric == "accuracy":
        right = _right(mine, truth)
        low, high = wilson(int(right.sum()), rows)
        score = Score(value, 100 * low, 100 * high, rows)
        if theirs is None:
            return score, None, None
        before = _right(theirs, truth)
        lost, gained = int((before & ~right).sum()), int((right & ~before).sum())
        return score, *paired_drop(lost, gained, rows)
    own, other = resampled(mine, theirs, truth, task=task, metric=metric, seed=seed)
    low, high = np.quantile(own, (0.025, 0.975))
    score = Score(value, float(low), float(high), rows)
    if theirs is None or other is None:
        return score, None, None
    sign = 1.0 if task.HIGHER_IS_BETTER else -1.0
    drops = sign * (other - own)
    low, high = np.quantile(drops, (0.025, 0.975))
    drop = sign * (_point(theirs, truth, task, metric).value - value)
    return score, Interval(drop, float(low), float(high)), float(drops.std())


def _point(outputs: np.ndarray, truth: np.ndarray, task: Scoring, metric: str) -> Score:
    total: Any = 0.0
    for first in range(0, len(truth), 4096):
        part = slice(first, first + 4096)
        sums = task.statistics(outputs[part], truth[part], metric)
        total = total + np.asarray(sums, dtype=np.float64).sum(axis=0)
    return Score(float(task.score(total, metric)), None, None, len(truth))


def _right(outputs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return answers_of(outputs) == truth


# ---------------------------------------------------------------- beside the baseline, by label


def _paired(
    mine: np.ndarray, theirs: np.ndarray, truth: np.ndarray, labels: Sequence[str]
) -> dict[str, Any]:
    """Return agreement, disagreement, the labels that lost most, and those that vanished."""
    answers, others = answers_of(mine), answers_of(theirs)
    right, before = answers == truth, others == truth
    size = len(labels)
    rows = np.bincount(truth, minlength=size)
    found = np.bincount(truth[right], minlength=size)
    had = np.bincount(truth[before], minlength=size)
    lost = np.bincount(truth[before & ~right], minlength=size)
    gained = np.bincount(truth[right & ~before], minlength=size)
    fallen = [i for i in range(size) if found[i] < had[i]]
    fallen.sort(key=lambda i: (-(had[i] - found[i]) / rows[i], -rows[i], labels[i]))
    worst = tuple(
        LabelRecall(
            labels[i], int(rows[i]), float(100 * found[i] / rows[i]), float(100 * had[i] / rows[i])
        )
        for i in fallen[:WORST]
    )
    drops = [
        paired_drop(int(lost[i]), int(gained[i]), int(rows[i]))[0]
        for i in range(size)
        if rows[i] >= FEW
    ]
    # the largest of each end: no label's interval reaches further than what is reported
    worst_drop = Interval(*(max(end) for end in zip(*drops, strict=True))) if drops else None
    return {
        "agreement": float(100 * ((answers == others) & (answers >= 0)).mean()),
        "disagreement": float(100 * (right != before).mean()),
        "worst_labels": worst,
        "worst_drop": worst_drop,
        "vanished": tuple(labels[i] for i in range(size) if had[i] >= FEW and not found[i]),
    }


# ---------------------------------------------------------------- what rows can show


def detectable(rows: int, disagreement: float) -> float:
    """Return the smallest drop in points that so many rows show with 80 % power.

    `disagreement`: points of rows that just one of the two models answers rightly (paired
    proportions, two-sided 5 %; Connor, 1987, without the term in the drop's own square).
    """
    return (Z + POWER) * math.sqrt(disagreement / 100 / rows) * 100


def can_show(rows: int, disagreement: float | None = None) -> str:
    """Say in one line what drop the test rows can show.

    Without a known `disagreement` (points) the usual 2 to 4 points of it are taken.
    """
    if rows < 1:
        return "no test rows: no drop can be shown"
    if disagreement is None:
        span = f"{detectable(rows, 2):.1f} to {detectable(rows, 4):.1f} points"
        where = "where 2 to 4 % of the answers differ"
    else:
        span = f"{detectable(rows, max(disagreement, 100 / rows)):.1f} points"
        where = f"where {disagreement:.1f} % of the answers differ"
        where = where if disagreement else "were one answer to differ; none does"
    return f"{rows:,} test rows can show a drop of {span} (80 % power, {where})"


def rows_to_settle(drop: Interval, allowed: float, rows: int) -> int | None:
    """Return about how many rows would bring the far end inside the limit; None if none would.

    Were the drop to stay as it is: the interval narrows with the root of the rows.
    """
    if drop.high is None or drop.value >= allowed:
        return None
    needed = rows * ((drop.high - drop.value) / (allowed - drop.value)) ** 2
    step = 10 ** max(0, math.floor(math.log10(needed)) - 1)  # two digits: it is a guess
    return math.ceil(needed / step) * step
