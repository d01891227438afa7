"""Encode one split: tokens or pixels, as the model reads them.

The split's rows with their truth, or (with `made`) the rows made from them: unlabelled, for the
teacher to label. Some kinds are made by the weights of a model, which is an input then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgedistill import plugins as doors
from edgedistill.data import arrays
from edgedistill.data.rows import Rows
from edgedistill.errors import DataError, JobError, nearest
from edgedistill.progress import bar
from edgedistill.records import Progress
from edgedistill.settings import setting

INPUTS = {"rows": "rows", "encoder": "encoder", "model": "model"}
OUTPUT = "arrays"
PACKAGES = ("numpy",)
CHUNK = {"text": 512, "image": 32}  # rows that are encoded at once
Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What an encode step can be told."""

    task: str = setting("text-classification", "the task, by name")
    labels: tuple[str, ...] = setting((), "the labels in the order of the model's outputs")
    encoder: Mapping[str, Any] = setting({}, "the encoder's settings; max_length for texts")
    made: tuple[str, ...] = setting((), "kinds of rows to make instead of the rows themselves")
    seed: int = setting(0, "decides the draws of made rows", low=0)


def plugins(settings: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Name the plugins that a step with these settings uses."""
    return [("tasks", settings["task"])]


def run(
    inputs: Mapping[str, Path], settings: Settings, out: Path, progress: Progress
) -> Mapping[str, Any]:
    """Write the encoded rows with "truth" (-1 where there is none).

    Facts: {rows}.
    Raises `DataError` for labels that the model lacks and for rows that can't be encoded, each with
    the count and the first row's number: none is left out here, or the rows would be out of step
    with what other steps say of them.
    """
    task = doors.find("tasks", settings.task, allow_code=True)
    rows = Rows(inputs["rows.0"])
    if rows.kind != task.EXAMPLES:
        raise DataError(f"the task {settings.task} reads {task.EXAMPLES} rows, not {rows.kind}")
    encoder = task.open_encoder(inputs["encoder.0"], settings.encoder)
    truth = indices(rows.truth, settings.labels, len(rows))
    bad: list[Bad] = []
    if settings.made:
        _all_offered(task, settings.made)
        told = {"kinds": settings.made, "seed": settings.seed, "model": inputs.get("model.0")}
        stream = _made(partial(task.made, **told), encoder, rows, truth, bad)
    else:
        stream = _plain(encoder, rows, truth, bad)
    total = len(rows) * max(1, len(settings.made))
    written = arrays.write(out, bar(stream, progress, total=total))
    if bad:
        raise _refusal(bad, len(rows))
    if not written:
        raise DataError("there is no row to encode")
    return {"rows": written}


class Bad(NamedTuple):
    """A row that can't be encoded, and why."""

    row: int  # from 0
    reason: str


def indices(truth: Sequence[str] | None, labels: Sequence[str], rows: int) -> np.ndarray:
    """Return each row's index among the labels (int64); -1 everywhere where rows have no labels.

    Raises `DataError` naming the first unknown label, its row and how many there are.
    """
    if truth is None:
        return np.full(rows, -1, dtype=np.int64)
    order = {label: index for index, label in enumerate(labels)}
    found = np.array([order.get(label, -1) for label in truth], dtype=np.int64)
    unknown = np.flatnonzero(found < 0)
    if len(unknown):
        label = truth[int(unknown[0])]
        raise DataError(
            f"{len(unknown):,} rows have a label that the model does not know, first row "
            f"{unknown[0] + 1}: '{label}' ({nearest(label, labels)})"
        )
    return found


def _plain(encoder: Any, rows: Rows, truth: np.ndarray, bad: list[Bad]) -> Iterator[Row]:
    for index, row in _encoded(encoder, rows, bad):
        yield {**row, "truth": np.int64(truth[index])}


def _all_offered(task: Any, kinds: Sequence[str]) -> None:
    for kind in kinds:
        if kind not in task.MADE:
            raise JobError(f"unknown kind of made rows '{kind}': {nearest(kind, task.MADE)}")


def _made(
    make: Callable[..., Iterator[Row]], encoder: Any, rows: Rows, truth: np.ndarray, bad: list[Bad]
) -> Iterator[Row]:
    examples = _Examples(rows, range(len(rows)))
    try:
        for row in make(examples, truth, encoder):
            yield {**row, "truth": np.int64(-1)}
    except DataError:
        for _ in _encoded(encoder, rows, bad):  # which rows, and how many
            pass
        if not bad:
            raise


def _encoded(encoder: Any, rows: Rows, bad: list[Bad]) -> Iterator[tuple[int, Row]]:
    """Yield the rows that can be encoded with their index; note the others in `bad`."""
    size = CHUNK[rows.kind]
    for start in range(0, len(rows), size):
        chunk = range(start, min(len(rows), start + size))
        examples = [rows.example(index) for index in chunk]
        try:
            yield from zip(chunk, encoder.encode_many(examples), strict=True)
        except DataError:  # raised before any was yielded: find which
            for index, example in zip(chunk, examples, strict=True):
                try:
                    row = encoder.encode(example)
                except DataError as error:
                    bad.append(Bad(index, str(error)))
                else:
                    yield index, row


def _refusal(bad: Sequence[Bad], rows: int) -> DataError:
    return DataError(
        f"{len(bad):,} of {rows:,} rows can't be encoded, first row {bad[0].row + 1}: "
        f"{bad[0].reason}: mend them, or take them out of the rows"
    )


class _Examples(Sequence[Mapping[str, Any]]):
    """Some rows as a sequence, each read when asked for."""

    def __init__(self, rows: Rows, chosen: range) -> None:
        self._rows, self._chosen = rows, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _Examples(self._rows, self._chosen[index])
        return self._rows.example(self._chosen[index])
