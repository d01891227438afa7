"""Compare a graph with what it was made from, on real inputs: success is not what a tool says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgedistill.errors import ExportError

TOLERANCE = 1e-3  # largest difference of a logit, relative to the largest logit; noise is near 1e-6
SCALE_FLOOR = 1e-2  # a fresh head's logits may all be near zero
SHAPES = 3  # at least so many different shapes of batch and length

Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Likeness:
    """How like two sets of logits are; cosine and agreement are over rows."""

    rows: int
    cosine: float  # mean
    cosine_lowest: float
    agreement_points: float  # rows with the same largest logit, in points
    difference: float  # largest |difference|, relative to the largest |logit|


def likeness(expected: np.ndarray, found: np.ndarray) -> Likeness:
    """Compare logits (rows, labels) with those of the graph's parent."""
    expected, found = expected.astype(np.float64), found.astype(np.float64)
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    cosines = (expected * found).sum(axis=1) / np.maximum(lengths, 1e-12)
    same = (expected.argmax(axis=1) == found.argmax(axis=1)).mean()
    scale = max(float(np.abs(expected).max()), SCALE_FLOOR)
    return Likeness(
        rows=len(expected),
        cosine=float(cosines.mean()),
        cosine_lowest=float(cosines.min()),
        agreement_points=100 * float(same),
        difference=float(np.abs(expected - found).max()) / scale,
    )


def hold(
    expected: Callable[[Feed], np.ndarray],
    found: Callable[[Feed], np.ndarray],
    feeds: Sequence[Feed],
    *,
    tolerance: float = TOLERANCE,
    shapes: int = SHAPES,
) -> dict[str, Any]:
    """Hold a graph's logits against its model's on batches of different shapes.

    `tolerance` is relative to the largest logit of the batch. Returns facts: shapes, tolerance and
    the largest difference. Raises `ExportError` at the first batch that differs, or where fewer
    than `shapes` shapes of inputs were given.
    """
    seen = sorted({next(iter(feed.values())).shape for feed in feeds})
    if len(seen) < shapes:
        raise ExportError(f"a comparison needs {shapes} shapes of inputs, there are {len(seen)}")
    worst = 0.0
    for feed in feeds:
        where = " ".join(f"{name}{list(value.shape)}" for name, value in feed.items())
        right, left = expected(feed), found(feed)
        if right.shape != left.shape:
            raise ExportError(
                f"the graph's logits have the shape {list(left.shape)}, "
                f"the model's {list(right.shape)} at {where}"
            )
        scale = max(float(np.abs(right).max()), SCALE_FLOOR)
        difference = float(np.abs(right - left).max()) / scale
        if not difference <= tolerance:  # also true for NaN
            raise ExportError(
                f"the graph differs from the model by {difference:.3g} of the largest logit "
                f"(at most {tolerance:g}) at {where}"
            )
        worst = max(worst, difference)
    return {
        "shapes": [list(shape) for shape in seen],
        "tolerance": tolerance,
        "difference": worst,
    }
