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
from edgedistill.judge.resampling import resampled
from edgedistill.records import Interval, Score
from edgedistill.tasks import Statistics

Z = 1.959963984540054  # two-sided 95 %
POWER = 0.8416212335729143  # 80 % of a normal curve
FEW = 5  # rows of a label below which its recall says nothing
WORST = 10  # labels that are listed


class Scoring(Protocol):
    """The part of a task that scores; see `edgedistill.tasks.Task`."""

    METRICS: tuple[str, ...]
    UNIT: str
    HIGHER_IS_BETTER: bool

    def statistics(self, outputs: np.ndarray, truth: np.ndarray, metric: str) -> Statistics:
        """Return what each example adds to the sums."""

    def score(self, sums: np.ndarray, metric: str) -> np.ndarray:
        """Turn sums (..., size) into scores (...)."""


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
    mine, theirs, truth = _labelled(outputs, baseline_outputs, truth)
    score, drop, error = _scored(mine, theirs, truth, task=task, metric=metric, seed=seed)
    scores = {
        name: score if name == metric else _point(mine, truth, task, name) for name in task.METRICS
    }
    paired = {} if theirs is None else _paired(mine, theirs, truth, labels)
    return Evaluation(
        metric=metric,
        unit=task.UNIT,
        score=score,
        scores=scores,
        drop=drop,
        drop_error=error,
        confidence=None if temperature is None else confidence(mine, truth, temperature),
        not_finite=int((answers_of(mine) < 0).sum()),
        **paired,
    )


def score_of(
    outputs: np.ndarray, truth: np.ndarray, *, task: Scoring, metric: str, seed: int = 0
) -> Score:
    """Score the outputs (rows, labels) by one metric alone, with its interval."""
    mine, _, truth = _labelled(outputs, None, truth)
    return _scored(mine, None, truth, task=task, metric=metric, seed=seed)[0]


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
    mine, theirs, truth = _labelled(outputs, others, truth)
    _, drop, _ = _scored(mine, theirs, truth, task=task, metric=metric, seed=seed)
    assert drop is not None and drop.low is not None and drop.high is not None
    return Interval(0.0 - drop.value, 0.0 - drop.high, 0.0 - drop.low)


def _labelled(
    outputs: np.ndarray, others: np.ndarray | None, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Return both outputs and the truth of the rows that carry a label; see `evaluate`."""
    truth = np.asarray(truth).astype(np.int64).reshape(-1)
    if others is not None and np.shape(others) != np.shape(outputs):
        raise DataError(
            f"outputs of shape {np.shape(outputs)} can't be paired with the baseline's, "
            f"{np.shape(others)}"
        )
    known = truth >= 0
    if not known.any():
        raise DataError("no row carries a label: there is nothing to score")
    which = slice(None) if known.all() else known  # a slice copies nothing
    theirs = None if others is None else np.asarray(others)[which]
    return np.asarray(outputs)[which], theirs, truth[which]


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


def _scored(
    mine: np.ndarray,
    theirs: np.ndarray | None,
    truth: np.ndarray,
    *,
    task: Scoring,
    metric: str,
    seed: int,
) -> tuple[Score, Interval | None, float | None]:
    """Return the score, the paired drop and one standard error of it."""
    rows = len(truth)
    if metric == "accuracy":
        right = answers_of(mine) == truth
        low, high = wilson(int(right.sum()), rows)
        score = Score(_point(mine, truth, task, metric).value, 100 * low, 100 * high, rows)
        if theirs is None:
            return score, None, None
        before = answers_of(theirs) == truth
        lost, gained = int((before & ~right).sum()), int((right & ~before).sum())
        return score, *paired_drop(lost, gained, rows)

    def score_of_sums(sums: np.ndarray) -> np.ndarray:
        return task.score(sums, metric)

    own = task.statistics(mine, truth, metric)
    other = None if theirs is None else task.statistics(theirs, truth, metric)
    own_scores, other_scores = resampled(own, other, truth, score=score_of_sums, seed=seed)
    value = float(score_of_sums(own.sums()))
    low, high = np.quantile(own_scores, (0.025, 0.975))
    score = Score(value, float(low), float(high), rows)
    if other is None or other_scores is None:
        return score, None, None
    sign = 1.0 if task.HIGHER_IS_BETTER else -1.0
    drops = sign * (other_scores - own_scores)
    low, high = np.quantile(drops, (0.025, 0.975))
    drop = sign * (float(score_of_sums(other.sums())) - value)
    return score, Interval(drop, float(low), float(high)), float(drops.std())


def _point(outputs: np.ndarray, truth: np.ndarray, task: Scoring, metric: str) -> Score:
    sums = task.statistics(outputs, truth, metric).sums()
    return Score(float(task.score(sums, metric)), None, None, len(truth))


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
