"""Rows of several arrays folders as one, and the order in which they are read."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill.data.arrays import Arrays
from edgedistill.errors import DataError, InternalError, JobError

LONGEST = 4096  # tokens of a batch that is only answered, padding included
WINDOW = 50  # batches whose rows are sorted by length together: little padding, still random


class Examples:
    """The rows of several arrays folders as one, with a teacher's logits beside them.

    `repeats`: how often the rows of each folder stand there; they are opened once.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        labels: Sequence[Path] = (),
        *,
        repeats: Sequence[int] = (),
    ) -> None:
        if labels and len(labels) != len(folders):
            raise InternalError(f"{len(folders)} folders of rows, but {len(labels)} of labels")
        if repeats and len(repeats) != len(folders):
            raise JobError(f"repeats: {len(repeats)} numbers for {len(folders)} inputs of rows")
        self.parts = _repeated([Arrays(folder) for folder in folders], repeats)
        self.labels = _repeated([Arrays(folder) for folder in labels], repeats)
        for part, label in zip(self.parts, self.labels, strict=False):
            if len(part) != len(label):
                raise InternalError(f"{len(part)} rows, but labels of {len(label)}")
        self.starts = np.concatenate([[0], np.cumsum([len(part) for part in self.parts])])
        if not self.starts[-1]:
            raise DataError("there are no rows to train or score on")
        self.names = tuple(name for name in self.parts[0].names if name != "truth")
        self.lengths = np.concatenate([part.lengths(self.names[0]) for part in self.parts])
        self.truth = np.concatenate([part.stacked("truth") for part in self.parts])
        self.truth = self.truth.astype(np.int64)
        self._which: np.ndarray | None = None  # of the rows of all parts; none: all

    def __len__(self) -> int:
        return len(self.truth)

    def few(self, most: int) -> Examples:
        """Return at most that many of the rows that have a truth (of all, where none has one).

        Evenly spread, for files are often sorted by their labels.
        """
        known = np.flatnonzero(self.truth >= 0)
        known = known if len(known) else np.arange(len(self))
        count = min(most, len(known))
        chosen = known[np.arange(count) * len(known) // count]
        made = copy.copy(self)
        made._which = self._places(chosen)
        made.lengths, made.truth = self.lengths[chosen], self.truth[chosen]
        return made

    def _places(self, indices: Sequence[int] | np.ndarray) -> Any:
        return indices if self._which is None else self._which[np.asarray(indices)]

    def rows(self, indices: Sequence[int] | np.ndarray) -> list[dict[str, np.ndarray]]:
        """Return encoded rows, without their truth."""
        found = []
        for index in self._places(indices):
            part = int(np.searchsorted(self.starts, index, side="right")) - 1
            found.append(self.parts[part].row(int(index - self.starts[part]), self.names))
        return found

    def logits(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the teacher's logits of some rows, (rows, labels) float32."""
        found = []
        for index in self._places(indices):
            part = int(np.searchsorted(self.starts, index, side="right")) - 1
            found.append(self.labels[part].value("logits", int(index - self.starts[part])))
        return np.stack(found).astype(np.float32)

    def used(self, name: str) -> np.ndarray:
        """Return the distinct values of an integer array, sorted: the pieces that occur."""
        once = {id(part): part for part in self.parts}.values()
        return np.unique(np.concatenate([np.unique(part.flat(name)) for part in once]))


def _repeated(parts: list[Arrays], repeats: Sequence[int]) -> list[Arrays]:
    counts = repeats or (1,) * len(parts)
    return [part for part, count in zip(parts, counts, strict=False) for _ in range(count)]


def order(lengths: np.ndarray, batch: int, *, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the batches (arrays of row numbers) of one epoch, rows of like length together.

    Drawn from (seed, epoch) alone. Rows too few for a whole batch are left out, others each time.
    """
    batch = min(batch, len(lengths))
    draw = np.random.default_rng([seed, epoch])
    shuffled = draw.permutation(len(lengths))
    shuffled = shuffled[: len(shuffled) - len(shuffled) % batch]
    batches = []
    for start in range(0, len(shuffled), batch * WINDOW):
        window = shuffled[start : start + batch * WINDOW]
        window = window[np.argsort(lengths[window], kind="stable")]
        batches += [window[at : at + batch] for at in range(0, len(window), batch)]
    return [batches[index] for index in draw.permutation(len(batches))]


def sequential(lengths: np.ndarray, batch: int) -> list[np.ndarray]:
    """Return batches that hold every row once, sorted by length: at most `batch` rows each.

    Long rows are fewer at once: `LONGEST` tokens of them, but one row at least, for the attention
    of a few hundred tokens is what takes memory.
    """
    ranked = np.argsort(lengths, kind="stable")
    batches, start = [], 0
    while start < len(ranked):
        count = min(batch, len(ranked) - start)
        while count > 1 and count * lengths[ranked[start + count - 1]] > LONGEST:
            count -= 1
        batches.append(ranked[start : start + count])
        start += count
    return batches


def tensors(batch: Mapping[str, np.ndarray], device: str) -> dict[str, Any]:
    """Turn a batch of numpy arrays into tensors."""
    import torch

    return {name: torch.from_numpy(array).to(device) for name, array in batch.items()}
