"""Batches of encoded rows, as graphs are fed with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgedistill.errors import ExportError

Row = Mapping[str, np.ndarray]
Feed = Mapping[str, np.ndarray]


def of_shapes(rows: Sequence[Row], encoder: Any) -> list[dict[str, np.ndarray]]:
    """Make batches of four different shapes, the one to trace first.

    The first has two rows of unlike lengths, so real padding; the others have one row without
    padding, three and five rows. `encoder.batch` collates (int64).
    """
    if not rows:
        raise ExportError("there is no example to export the model with")
    ordered = sorted(rows, key=_size)
    short, long = ordered[0], ordered[-1]
    middle = _between(ordered)
    picks = [[middle, short], [short], [long, short, middle], [middle] * 3 + [short] * 2, [long]]
    return [dict(encoder.batch(list(pick), integers="int64")) for pick in picks]


def numbers(rows: Sequence[Row], encoder: Any) -> dict[str, int]:
    """Name the inputs that hold one and the same number in every row that is run by itself.

    The mask of tokens (1), and the segments where there is one text (0): what a graph for single
    rows needs not be fed.
    """
    found: dict[str, set[int]] = {}
    for row in rows:
        for name, value in encoder.batch([row], integers="int64").items():
            if np.issubdtype(value.dtype, np.integer):
                found.setdefault(name, set()).update(np.unique(value).tolist())
    return {name: values.pop() for name, values in found.items() if len(values) == 1}


def padded(
    rows: Sequence[Row], encoder: Any, *, integers: str, length: int = 0, batch: int = 0
) -> dict[str, np.ndarray]:
    """Collate rows into a feed; with `length`, padded to it as the encoder pads.

    For a graph of fixed shape: a companion row of that length goes through the encoder's own
    padding and is cut off again, so that pad values stay the encoder's business; and fewer rows
    than `batch` are filled up with the last one, whose answers are the caller's to leave out.
    """
    rows = [*rows, *[rows[-1]] * (batch - len(rows))]
    if not length:
        return dict(encoder.batch(rows, integers=integers))
    companion = {
        name: np.resize(value, length) if value.ndim == 1 else value
        for name, value in rows[0].items()
    }
    feed = encoder.batch([*rows, companion], integers=integers)
    return {name: np.ascontiguousarray(value[: len(rows)]) for name, value in feed.items()}


def _size(row: Row) -> int:
    return sum(value.size for value in row.values())


def _between(ordered: Sequence[Row]) -> Row:
    """Return a row of middle length that is longer than the shortest, where there is one."""
    longer = [row for row in ordered if _size(row) > _size(ordered[0])]
    return longer[(len(longer) - 1) // 2] if longer else ordered[-1]
