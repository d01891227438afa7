"""Scores of resampled rows (a bootstrap), from what each row adds to the sums of a metric. Pure.

Rows are drawn with replacement within each label, as many as it has: a label keeps its rows in
every draw, and two models are scored by the same ones. Rows of a label that add the same are one
class, and a draw is how often each class came. What is held grows with the rows and with the sums,
never with their product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edgedistill.tasks import Statistics

RESAMPLES = 10_000
_ROOM = 1_000_000  # numbers of one array that is held while resampling
# A row that is drawn takes about 8 ns, a class of a multinomial about 40 to 150.
_FEW = 12  # rows a class, up to which a label's rows are drawn one by one


@dataclass(frozen=True)
class _Classes:
    """The classes of rows, in the order of their labels, and what they add to the sums.

    Labels with one class only are not drawn: they are part of `fixed`.
    """

    count: int
    fixed: np.ndarray  # (sums,) what is the same in every draw
    adds: tuple[np.ndarray, np.ndarray, np.ndarray]  # (added,) of each: class, column, value
    rows: tuple[np.ndarray, np.ndarray, np.ndarray]  # (rows,) drawn one by one: class, start, span
    many: tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]
    """Labels drawn by their classes, those with as many classes together: classes (labels, each),
    rows (labels,), shares (labels, each)."""


def resampled(
    mine: Statistics,
    theirs: Statistics | None,
    truth: np.ndarray,
    *,
    score: Callable[[np.ndarray], np.ndarray],
    seed: int,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return 10,000 bootstrap scores of both models (or one), of the same draws.

    `truth` (rows,) is the label of each row; `score` turns sums (draws, k) into scores (draws,).
    """
    both = mine if theirs is None else _beside(mine, theirs)
    classes = _classes(both, truth)
    rng = np.random.default_rng(seed)
    widest = max(both.size, classes.count, len(classes.adds[0]), len(classes.rows[0]))
    step = max(1, min(RESAMPLES, _ROOM // widest))
    own, other = [], []
    for first in range(0, RESAMPLES, step):
        times = _times(classes, min(step, RESAMPLES - first), rng)
        sums = _sums(classes, times)
        own.append(score(sums[:, : mine.size]))
        if theirs is not None:
            other.append(score(sums[:, mine.size :]))
    return np.concatenate(own), np.concatenate(other) if other else None


def _beside(mine: Statistics, theirs: Statistics) -> Statistics:
    """Return what each row adds to the sums of both."""
    columns = np.concatenate([mine.columns, theirs.columns + mine.size], axis=1)
    values = np.concatenate([mine.values, theirs.values], axis=1)
    return Statistics(columns, values, mine.size + theirs.size)


def _classes(both: Statistics, truth: np.ndarray) -> _Classes:
    width = both.columns.shape[1]
    columns = np.where(both.values != 0, both.columns, 0)  # where nothing is added, any is the same
    table = np.column_stack([truth, columns, both.values]).astype(np.float64)
    unique, counts = np.unique(table, axis=0, return_counts=True)
    columns, values = unique[:, 1 : 1 + width].astype(np.int64), unique[:, 1 + width :]
    _, first, label = np.unique(unique[:, 0], return_index=True, return_inverse=True)

    alike = (columns == columns[first][label]) & (values == values[first][label])
    alike = np.logical_and.reduceat(alike, first, axis=0)[label]  # all of a label add so
    weights = (values * counts[:, None])[alike]
    fixed = np.bincount(columns[alike], weights=weights, minlength=both.size)
    differ = ~alike & (values != 0)

    kinds, sizes = np.bincount(label), np.bincount(label, weights=counts).astype(np.int64)
    few = (kinds > 1) & (sizes <= _FEW * kinds)
    many = (kinds > 1) & ~few
    of_row = np.repeat(np.arange(len(counts)), np.where(few[label], counts, 0))
    spans = np.where(few, sizes, 0)
    starts = np.cumsum(spans) - spans
    return _Classes(
        count=len(counts),
        fixed=fixed,
        adds=(np.nonzero(differ)[0], columns[differ], values[differ]),
        rows=(of_row, starts[label[of_row]], spans[label[of_row]]),
        many=tuple(_together(many, kinds, first, sizes, counts)),
    )


def _together(
    many: np.ndarray, kinds: np.ndarray, first: np.ndarray, sizes: np.ndarray, counts: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    for each in np.unique(kinds[many]):
        labels = np.flatnonzero(many & (kinds == each))
        classes = first[labels][:, None] + np.arange(each)
        yield classes, sizes[labels], counts[classes] / sizes[labels][:, None]


def _times(classes: _Classes, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each class is drawn: (draws, classes)."""
    of_row, starts, spans = classes.rows
    picked = (rng.random((draws, len(of_row))) * spans).astype(np.int64)
    picked += starts
    drawn = of_row[picked]
    drawn += classes.count * np.arange(draws)[:, None]
    times = np.bincount(drawn.ravel(), minlength=draws * classes.count)
    times = times.reshape(draws, classes.count)
    for which, sizes, shares in classes.many:
        times[:, which] = rng.multinomial(sizes, shares, size=(draws, len(sizes)))
    return times


def _sums(classes: _Classes, times: np.ndarray) -> np.ndarray:
    """Return the sums of each draw: (draws, sums)."""
    (which, columns, values), size = classes.adds, len(classes.fixed)
    added = times[:, which] * values
    at = columns + size * np.arange(len(times))[:, None]
    sums = np.bincount(at.ravel(), weights=added.ravel(), minlength=len(times) * size)
    return classes.fixed + sums.reshape(len(times), size)
