"""The arrays artifact: rows of small arrays, by name one flat .npy and one of shapes.

    input_ids.npy           all rows one after another, flat
    input_ids.shapes.npy    (rows, dimensions) int32; a scalar row has no dimensions
    arrays.json             {"rows": n, "names": [...]}

Encoded rows, the teacher's logits and evaluated outputs are all stored so. Reading is by memory
map: what is opened is the shapes and where each row begins, some 12 bytes a row and array.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from edgedistill.errors import DataError


class Arrays:
    """The rows of an arrays folder, read by memory map."""

    def __init__(self, folder: Path) -> None:
        try:
            about = json.loads((folder / "arrays.json").read_text())
        except FileNotFoundError:
            raise DataError(f"'{folder}' holds no arrays (no arrays.json)") from None
        self.names: tuple[str, ...] = tuple(about["names"])
        self.rows: int = about["rows"]
        self._flat: dict[str, np.ndarray] = {}
        self._shapes: dict[str, np.ndarray] = {}
        self._starts: dict[str, np.ndarray] = {}
        for name in self.names:
            shapes = np.load(folder / f"{name}.shapes.npy")
            sizes = shapes.prod(axis=1, dtype=np.int64) if shapes.size else np.ones(self.rows, int)
            self._flat[name] = _map(folder / f"{name}.npy")
            self._shapes[name] = shapes
            self._starts[name] = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def __len__(self) -> int:
        return self.rows

    def value(self, name: str, index: int) -> np.ndarray:
        """Return one array of one row."""
        start, stop = self._starts[name][index], self._starts[name][index + 1]
        return np.asarray(self._flat[name][start:stop]).reshape(self._shapes[name][index])

    def row(self, index: int, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Return one row, by name."""
        return {name: self.value(name, index) for name in names or self.names}

    def flat(self, name: str) -> np.ndarray:
        """Return one array of all rows, one after another, as it lies on disk."""
        return self._flat[name]

    def lengths(self, name: str) -> np.ndarray:
        """Return the first dimension of every row of one array."""
        return self._shapes[name][:, 0] if self._shapes[name].size else np.ones(self.rows, int)

    def stacked(self, name: str) -> np.ndarray:
        """Return (rows, ...) of one array whose rows all have the same shape; a view, no copy."""
        shapes = self._shapes[name]
        if self.rows and (shapes != shapes[:1]).any():
            raise DataError(f"the rows of '{name}' differ in shape")
        return self._flat[name].reshape(self.rows, *(shapes[0] if self.rows else ()))


def write(folder: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows (all with the same names, dtypes and numbers of dimensions); returns how many.

    Rows are streamed: memory does not grow with their number. Raises `DataError`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    columns: dict[str, _Column] = {}
    count = 0
    try:
        for count, row in enumerate(rows, 1):
            if count == 1:
                columns = {name: _Column(folder, name, value) for name, value in row.items()}
            if row.keys() != columns.keys():
                names = f"{', '.join(row)}, those before: {', '.join(columns)}"
                raise DataError(f"arrays of row {count}: {names}")
            for name, value in row.items():
                columns[name].add(value, count)
        for column in columns.values():
            column.finish(count)
    finally:
        for column in columns.values():
            column.close()
    (folder / "arrays.json").write_text(
        json.dumps({"rows": count, "names": sorted(columns)}, sort_keys=True)
    )
    return count


class _Column:
    """The two files of one array, written row by row; headers last, when lengths are known."""

    def __init__(self, folder: Path, name: str, first: Any) -> None:
        self._name, self._total = name, 0
        self._dtype, self._dimensions = np.asarray(first).dtype, np.ndim(first)
        self._flat = (folder / f"{name}.npy").open("wb")
        self._shapes = (folder / f"{name}.shapes.npy").open("wb")
        for file in (self._flat, self._shapes):
            file.write(b"\0" * _HEADER)

    def add(self, value: Any, number: int) -> None:
        array = np.asarray(value, dtype=self._dtype)
        if array.ndim != self._dimensions:
            raise DataError(
                f"'{self._name}' of row {number}: {array.ndim} dimensions, "
                f"those before: {self._dimensions}"
            )
        self._flat.write(array.tobytes())
        self._shapes.write(np.array(array.shape, _SIDES).tobytes())
        self._total += array.size

    def finish(self, rows: int) -> None:
        for file, dtype, shape in (
            (self._flat, self._dtype, (self._total,)),
            (self._shapes, _SIDES, (rows, self._dimensions)),
        ):
            file.seek(0)
            file.write(_header(dtype, shape))

    def close(self) -> None:
        self._flat.close()
        self._shapes.close()


_SIDES = np.dtype("<i4")
_HEADER = 128  # room for the .npy header, written last, when the length is known


def _header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    text = repr({"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
    room = _HEADER - len(npy.MAGIC_PREFIX) - 4
    body = text.encode("latin1").ljust(room - 1) + b"\n"
    return npy.MAGIC_PREFIX + bytes([1, 0]) + len(body).to_bytes(2, "little") + body


def _map(path: Path) -> np.ndarray:
    if path.stat().st_size <= _HEADER:  # an empty file can't be mapped
        return np.load(path)
    return np.load(path, mmap_mode="r")
