"""What text and image classification share: metrics by sums, decoding, the default metric.

A score is computed from sums of per-example statistics, so that an interval by resampling costs k
sums and not a scoring of every resample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

METRICS = ("accuracy", "balanced_accuracy", "macro_f1")
UNIT = "points"
HIGHER_IS_BETTER = True
OUTPUTS = "classes"


def predicted(outputs: np.ndarray) -> np.ndarray:
    """Return the index of the highest output (examples,); -1 where an output is not a number."""
    finite = np.isfinite(outputs).all(axis=1)
    return np.where(finite, np.nan_to_num(outputs).argmax(axis=1), -1)


def statistics(outputs: np.ndarray, truth: np.ndarray, metric: str) -> np.ndarray:
    """Return the (examples, k) float32 statistics whose sums `score` turns into the metric.

    `outputs` (examples, labels), `truth` (examples,) with -1 for an unlabelled example, which
    counts nowhere. Columns: accuracy [right, counted]; balanced accuracy [right, rows] of each
    label; macro-F1 [right, rows, predicted] of each label.
    """
    outputs, truth = np.asarray(outputs), np.asarray(truth).astype(np.int64)
    answer = predicted(outputs)
    known = truth >= 0
    right = known & (answer == truth)
    if metric == "accuracy":
        return np.stack([right, known], axis=1).astype(np.float32)
    labels = outputs.shape[1]
    parts = [_one_hot(truth, right, labels), _one_hot(truth, known, labels)]
    if metric == "macro_f1":
        parts.append(_one_hot(answer, known & (answer >= 0), labels))
    elif metric != "balanced_accuracy":
        raise ValueError(f"unknown metric '{metric}'")
    return np.concatenate(parts, axis=1)


def _one_hot(index: np.ndarray, where: np.ndarray, labels: int) -> np.ndarray:
    table = np.zeros((len(index), labels), dtype=np.float32)
    rows = np.flatnonzero(where)
    table[rows, index[rows]] = 1
    return table


def score(sums: np.ndarray, metric: str) -> np.ndarray:
    """Turn summed statistics (..., k) into points (...); not a number where nothing was counted.

    Macro-F1 is the mean over the labels that occur in the truth or among the answers, balanced
    accuracy the mean recall over the labels that occur in the truth (as scikit-learn has them).
    """
    sums = np.asarray(sums, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        if metric == "accuracy":
            return np.asarray(100 * sums[..., 0] / sums[..., 1])
        if metric == "balanced_accuracy":
            right, rows = np.split(sums, 2, axis=-1)
            each, occurs = right / rows, rows > 0
        elif metric == "macro_f1":
            right, rows, answers = np.split(sums, 3, axis=-1)
            each, occurs = 2 * right / (rows + answers), rows + answers > 0
        else:
            raise ValueError(f"unknown metric '{metric}'")
        return np.asarray(100 * np.where(occurs, each, 0).sum(axis=-1) / occurs.sum(axis=-1))


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
