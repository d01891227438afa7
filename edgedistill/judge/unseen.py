"""Rows with words that no training row holds: where a small vocabulary or student would show it.

Pure. A word is a run of letters, lower-cased. Rows whose truth is -1 carry no label and are left
out. Accuracy and drop are in points.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edgedistill.judge.confidence import answers_of
from edgedistill.judge.evidence import paired_drop
from edgedistill.records import Interval

WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class UnseenWords:
    """What those rows show of one model; the drop is None for the baseline itself."""

    rows: int
    accuracy: float | None  # None where there is no such row
    baseline_accuracy: float | None
    drop: Interval | None = None


def words(text: str) -> set[str]:
    """Return the words of a text."""
    return set(WORD.findall(text.lower()))


def holding(texts: Iterable[str], training: Iterable[str]) -> np.ndarray:
    """Say of each text whether it holds a word that no training text has: (texts,) bool."""
    known: set[str] = set()
    for text in training:
        known |= words(text)
    return np.array([not words(text) <= known for text in texts], dtype=bool)


def unseen_words(
    outputs: np.ndarray, truth: np.ndarray, baseline: np.ndarray | None, which: np.ndarray
) -> UnseenWords:
    """Judge the outputs (rows, labels) on the rows of `which` (rows,), beside the baseline's."""
    truth = np.asarray(truth).reshape(-1)
    chosen = np.asarray(which, dtype=bool) & (truth >= 0)
    rows = int(chosen.sum())
    if not rows:
        return UnseenWords(0, None, None)
    right = answers_of(np.asarray(outputs)[chosen]) == truth[chosen]
    accuracy = float(100 * right.mean())
    if baseline is None:
        return UnseenWords(rows, accuracy, accuracy)
    before = answers_of(np.asarray(baseline)[chosen]) == truth[chosen]
    drop, _ = paired_drop(int((before & ~right).sum()), int((right & ~before).sum()), rows)
    return UnseenWords(rows, accuracy, float(100 * before.mean()), drop)
