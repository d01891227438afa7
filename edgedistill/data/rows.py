"""The rows artifact: one split of the data, as a folder.

    meta.json        {"examples": "text" | "image", "rows": n, "columns": [...]}
    truth.json       a list of label names, or null where the rows have no labels
    examples.jsonl   text: {"text": .., "text_pair": ..?}, one a line
    examples.bin     images: the encoded image files, one after another
    offsets.npy      images: (n + 1) int64, where each begins

The bytes depend on the content alone: the same rows give the same folder on every machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill.errors import DataError

Example = Mapping[str, Any]  # {"text": str, "text_pair": str?} or {"image": bytes}


class Rows:
    """The rows of a folder, read when asked for."""

    def __init__(self, folder: Path) -> None:
        try:
            about = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
            truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise DataError(f"'{folder}' holds no rows (no {Path(error.filename).name})") from None
        self.folder = folder
        self.kind: str = about["examples"]
        self.rows: int = about["rows"]
        self.columns: tuple[str, ...] = tuple(about["columns"])
        self.truth: list[str] | None = truth

    def __len__(self) -> int:
        return self.rows

    def example(self, index: int) -> Example:
        """Return one example; negative indices count from the end."""
        if not -self.rows <= index < self.rows:
            raise IndexError(index)
        index %= self.rows
        if self.kind == "text":
            return json.loads(self._lines[index])
        start, stop = self._offsets[index], self._offsets[index + 1]
        return {"image": self._bytes[start:stop].tobytes()}

    def examples(self) -> Iterator[Example]:
        """Yield all examples in order."""
        return (self.example(index) for index in range(self.rows))

    @cached_property
    def _lines(self) -> list[bytes]:
        return (self.folder / "examples.jsonl").read_bytes().split(b"\n")

    @cached_property
    def _offsets(self) -> np.ndarray:
        return np.load(self.folder / "offsets.npy")

    @cached_property
    def _bytes(self) -> np.ndarray:
        path = self.folder / "examples.bin"
        if path.stat().st_size == 0:  # an empty file can't be mapped
            return np.zeros(0, np.uint8)
        return np.memmap(path, dtype=np.uint8, mode="r")


def write(folder: Path, kind: str, examples: Iterable[Example], truth: Sequence[str] | None) -> int:
    """Write examples of a kind ("text" or "image") and their labels; returns how many.

    Examples are streamed: memory does not grow with their number.
    Raises `DataError` where there is not one label for each example.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count, columns = (_write_text if kind == "text" else _write_images)(folder, examples)
    if truth is not None and len(truth) != count:
        raise DataError(f"{count} examples, but {len(truth)} labels")
    _write_json(folder / "truth.json", None if truth is None else list(truth))
    _write_json(folder / "meta.json", {"examples": kind, "rows": count, "columns": columns})
    return count


def _write_text(folder: Path, examples: Iterable[Example]) -> tuple[int, list[str]]:
    count, columns = 0, ["text"]
    with (folder / "examples.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for example in examples:
            # ASCII alone: no character of a text can pass for the end of a line
            file.write(json.dumps(dict(example), sort_keys=True) + "\n")
            columns = sorted(example)
            count += 1
    return count, columns


def _write_images(folder: Path, examples: Iterable[Example]) -> tuple[int, list[str]]:
    offsets = [0]
    with (folder / "examples.bin").open("wb") as file:
        for example in examples:
            file.write(example["image"])
            offsets.append(offsets[-1] + len(example["image"]))
    np.save(folder / "offsets.npy", np.array(offsets, dtype=np.int64))
    return len(offsets) - 1, ["image"]


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, sort_keys=True), encoding="utf-8")
