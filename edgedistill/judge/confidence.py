"""What probabilities are worth: a temperature, the calibration error, what a threshold keeps.

Pure. Apps show an answer only above some probability, so a model's probabilities are judged too.
The temperature here is fitted on validation for the app; distillation's never enters it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgedistill.errors import DataError

THRESHOLDS = (0.5, 0.7, 0.9)
BINS = 15  # of the calibration error (Guo et al., 2017)
COLDEST, HOTTEST = 0.1, 10.0  # a validation split without an error would ask for temperature 0
_ROWS, _NUMBERS = 4096, 2_000_000  # handled at once, at most


@dataclass(frozen=True)
class Coverage:
    """What an app keeps that asks for this probability, and how often that is right (points)."""

    threshold: float
    coverage: float
    accuracy: float | None  # None where nothing reaches the threshold


@dataclass(frozen=True)
class Confidence:
    """What the probabilities are worth, after the temperature fitted on validation."""

    ece: float
    temperature: float
    at: tuple[Coverage, ...]


def fit_temperature(outputs: np.ndarray, truth: np.ndarray) -> float:
    """Return the temperature that minimises the NLL of these (validation) rows, 0.1 to 10.

    The NLL is convex in 1 / T: Newton's steps on it, kept inside a shrinking bracket
    (Guo et al., "On calibration of modern neural networks", 2017).
    """
    truth = np.asarray(truth).astype(np.int64).reshape(-1)
    keep = (truth >= 0) & _finite(outputs)
    which = slice(None) if keep.all() else keep  # a slice copies nothing
    logits, truth = np.asarray(outputs)[which], truth[which]
    if not len(truth):
        raise DataError("no row carries a label: no temperature can be fitted")
    low, high, inverse = 1 / HOTTEST, 1 / COLDEST, 1.0
    for _ in range(60):
        slope, bend = _slope(logits, truth, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        new = inverse - slope / bend if bend > 0 else (low + high) / 2
        new = new if low < new < high else (low + high) / 2
        if abs(new - inverse) < 1e-9:
            break
        inverse = new
    return float(1 / inverse)


def confidence(outputs: np.ndarray, truth: np.ndarray, temperature: float) -> Confidence:
    """Return calibration error, and coverage and accuracy at the thresholds."""
    right = answers_of(outputs) == truth
    sure = np.empty(len(truth))
    for part in _parts(outputs):
        finite = _finite(outputs[part])[:, None]
        sure[part] = _softmax(np.where(finite, outputs[part], 0.0), 1 / temperature).max(axis=1)
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=right - sure, minlength=BINS)
    at = []
    for threshold in THRESHOLDS:
        kept = sure >= threshold
        accuracy = float(100 * right[kept].mean()) if kept.any() else None
        at.append(Coverage(threshold, float(100 * kept.mean()), accuracy))
    ece = float(100 * np.abs(gaps).sum() / len(truth))
    return Confidence(ece=ece, temperature=float(temperature), at=tuple(at))


def _softmax(logits: np.ndarray, inverse: float) -> np.ndarray:
    scaled = np.asarray(logits, dtype=np.float64) * inverse
    scaled -= scaled.max(axis=1, keepdims=True)
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum(axis=1, keepdims=True)
    return scaled


def _slope(logits: np.ndarray, truth: np.ndarray, inverse: float) -> tuple[float, float]:
    """Return the first and second derivative of the mean NLL by 1 / T."""
    slope = bend = 0.0
    for rows in _parts(logits):
        part = np.asarray(logits[rows], dtype=np.float64)
        wanted = truth[rows]
        part = part - part[np.arange(len(part)), wanted][:, None]
        p = _softmax(part, inverse)
        mean = (p * part).sum(axis=1)
        slope += float(mean.sum())
        bend += float(((p * part * part).sum(axis=1) - mean * mean).sum())
    return slope / len(truth), bend / len(truth)


def answers_of(outputs: np.ndarray) -> np.ndarray:
    """Return the highest output of each row, -1 (never right) where one is not finite."""
    return np.where(_finite(outputs), outputs.argmax(axis=1), -1)


def _finite(outputs: np.ndarray) -> np.ndarray:
    # a row is finite where its ends are; `isfinite` of all would hold a second table
    return np.isfinite(outputs.max(axis=1)) & np.isfinite(outputs.min(axis=1))


def _parts(outputs: np.ndarray) -> Iterator[slice]:
    """Yield slices of rows that are handled at once."""
    rows, labels = outputs.shape
    step = max(1, min(_ROWS, _NUMBERS // labels))
    for first in range(0, rows, step):
        yield slice(first, first + step)
