"""The sample: the fixed rows that every model and every round of a measuring run on."""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill.data import arrays
from edgedistill.errors import DataError

P90 = 0.9


def choose(lengths: Sequence[int] | np.ndarray, count: int = 48, *, seed: int = 0) -> list[int]:
    """Choose `count` rows by quantiles of length, the shortest first; fewer rows give all.

    Each of `count` equal slices of the rows sorted by length gives one row, drawn by the seed.
    """
    lengths = np.asarray(lengths)
    if not len(lengths):
        raise DataError("no rows to measure on: the test split is empty")
    random = np.random.Generator(np.random.PCG64(seed))
    shuffled = random.permutation(len(lengths))
    by_length = shuffled[np.argsort(lengths[shuffled], kind="stable")]
    slices = np.array_split(by_length, min(count, len(lengths)))
    return [int(random.choice(each)) for each in slices]


def write(folder: Path, batches: Iterable[Mapping[str, Any]]) -> int:
    """Write a graph's inputs as an arrays folder, one row a run (already batched); how many.

    Names are percent-encoded, so that any input name is a file name.
    """
    return arrays.write(
        folder,
        (
            {urllib.parse.quote(name, safe=""): value for name, value in each.items()}
            for each in batches
        ),
    )


def products(
    count: Callable[[Mapping[str, list[int]]], Mapping[str, float]],
    feeds: Sequence[Mapping[str, Any]],
) -> dict[str, float]:
    """Count the products of the run at the 90th percentile of size among the timed `feeds`.

    An estimate of a p90 starts from them. `count` takes the shapes of a graph's inputs by name and
    gives operations by arithmetic, {"fp32": .., "int8": ..}.
    """
    by_size = sorted(feeds, key=lambda feed: sum(np.size(value) for value in feed.values()))
    long = by_size[round(P90 * (len(by_size) - 1))]
    return dict(count({name: list(np.shape(value)) for name, value in long.items()}))


def time_each(call: Callable[[Any], Any], examples: Sequence[Any]) -> dict[str, float]:
    """Time a call (the encoder) on each example; {"p50", "p90"} in ms, the first three dropped."""
    for example in examples[:3]:
        call(example)
    times = []
    for example in examples:
        start = time.perf_counter()
        call(example)
        times.append((time.perf_counter() - start) * 1e3)
    p50, p90 = np.percentile(times, [50, 90])
    return {"p50": float(p50), "p90": float(p90)}
