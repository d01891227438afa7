"""What text and image classification share: metrics by sums, decoding, the default metric.

A score is computed from sums of per-example statistics, so that an interval by resampling costs
sums and not a scoring of every resample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgedistill.tasks import Statistics

METRICS = ("accuracy", "balanced_accuracy", "macro_f1")
UNIT = "points"
HIGHER_IS_BETTER = True
OUTPUTS = "classes"


def predicted(outputs: np.ndarray) -> np.ndarray:
    """Return the index of the highest output (examples,); -1 where an output is not a number."""
    # a row is finite where its ends are; `isfinite` of all would hold a second table
    finite = np.isfinite(outputs.max(axis=1)) & np.isfinite(outputs.min(axis=1))
    return np.where(finite, outputs.argmax(axis=1), -1)


def statistics(outputs: np.ndarray, truth: np.ndarray, metric: str) -> Statistics:
    """Return what each example adds to the sums that `score` turns into the metric.

    `outputs` (examples, labels), `truth` (examples,) with -1 for an unlabelled example, which
    counts nowhere. Sums: accuracy [right, counted]; balanced accuracy [right, rows] of each
    label; macro-F1 [right, rows, predicted] of each label. Raises `ValueError` for an unknown
    metric and, where sums are by label, for a truth that is no label.
    """
    outputs, truth = np.asarray(outputs), np.asarray(truth).astype(np.int64)
    if metric not in METRICS:
        raise ValueError(f"unknown metric '{metric}'")
    answer = predicted(outputs)
    known = truth >= 0
    right = known & (answer == truth)
    labels = outputs.shape[1]
    groups: list[tuple[Any, np.ndarray]] = [(0, right), (1, known)]  # the sum, and who adds 1 to it
    size = 2
    if metric != "accuracy":
        if len(truth) and truth.max() >= labels:
            raise ValueError(f"truth {truth.max()} is none of the {labels} labels")
        groups, size = [(truth, right), (labels + truth, known)], 2 * labels
        if metric == "macro_f1":
            groups.append((2 * labels + answer, known & (answer >= 0)))
            size = 3 * labels
    columns = np.stack([np.where(counts, column, 0) for column, counts in groups], axis=1)
    values = np.stack([counts for _, counts in groups], axis=1)
    return Statistics(columns.astype(np.int64), values.astype(np.float64), size)


def score(sums: np.ndarray, metric: str) -> np.ndarray:
    """Turn sums (..., size) into points (...); not a number where nothing was counted.

    Macro-F1 is the mean over the labels that occur in the truth or among the answers, balanced
    accuracy the mean recall over the labels that occur in the truth (as scikit-learn has them).
    """
    sums = np.asarray(sums, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        if metric == "accuracy":
            return np.asarray(100 * sums[..., 0] / sums[..., 1])
        if metric == "balanced_accuracy":
            right, of = np.split(sums, 2, axis=-1)
            most = 100
        elif metric == "macro_f1":
            right, rows, answers = np.split(sums, 3, axis=-1)
            of, most = rows + answers, 200
        else:
            raise ValueError(f"unknown metric '{metric}'")
        each = right / np.maximum(of, 1)  # counts: where there is none, none is right
        return np.asarray(most * each.sum(axis=-1) / np.count_nonzero(of, axis=-1))


def default_metric(rows: Mapping[str, int]) -> tuple[str, str | None]:
    """Choose the metric from the rows of each label; returns it with the reason, if there is one.

    Accuracy; balanced accuracy where the commonest label has over five times the rows of the
    median one, since accuracy would then be mostly that one label's.
    """
    if not rows:
        return "accuracy", None
    median = float(np.median(list(rows.values())))
    commonest = min(rows, key=lambda label: (-rows[label], label))
    if rows[commonest] <= 5 * median:
        return "accuracy", None
    return "balanced_accuracy", (
        f"'{commonest}' has {rows[commonest]:,} rows, the median label {median:,.0f}: "
        "accuracy would tell mostly of that one"
    )


def probabilities(outputs: np.ndarray, temperature: float) -> np.ndarray:
    """Return softmax(outputs / temperature) in float64, (examples, labels)."""
    scaled = np.asarray(outputs, dtype=np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def decode(
    outputs: np.ndarray, labels: Sequence[str], temperature: float
) -> list[list[tuple[str, float]]]:
    """Return for each row the labels with their probabilities, the most likely first.

    Equal ones stand in the order of the labels.
    """
    told = []
    for row in probabilities(outputs, temperature):
        order = np.argsort(-row, kind="stable")
        told.append([(labels[index], float(row[index])) for index in order])
    return told
