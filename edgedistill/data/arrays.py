"""The arrays artifact: rows of small arrays, by name one flat .npy and one of shapes.

    input_ids.npy           all rows one after another, flat
    input_ids.shapes.npy    (rows, dimensions) int32; a scalar row has no dimensions
    arrays.json             {"rows": n, "names": [...]}

Encoded rows, the teacher's logits and evaluated outputs are all stored so. Reading is by memory
map: opening costs nothing, and rows in any number never fill the memory.
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
    """Write rows (all with the same names and dtypes) into `folder`; returns how many.

    Rows are streamed: memory does not grow with their number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Any] = {}
    shapes: dict[str, list[tuple[int, ...]]] = {}
    dtypes: dict[str, np.dtype] = {}
    totals: dict[str, int] = {}
    count = 0
    try:
        for row in rows:
            for name, value in row.items():
                array = np.ascontiguousarray(value)
                array = array.reshape(np.shape(value))  # ascontiguousarray makes a scalar 1-d
                if name not in files:
                    files[name] = (folder / f"{name}.npy").open("wb")
                    files[name].write(b"\0" * _HEADER)
                    shapes[name], dtypes[name], totals[name] = [], array.dtype, 0
                files[name].write(array.astype(dtypes[name], copy=False).tobytes())
                shapes[name].append(array.shape)
                totals[name] += array.size
            count += 1
        for name, file in files.items():
            file.seek(0)
            file.write(_header(dtypes[name], totals[name]))
    finally:
        for file in files.values():
            file.close()
    for name, each in shapes.items():
        table = np.array(each, dtype=np.int32).reshape(count, -1 if count and each[0] else 0)
        np.save(folder / f"{name}.shapes.npy", table)
    (folder / "arrays.json").write_text(
        json.dumps({"rows": count, "names": sorted(files)}, sort_keys=True)
    )
    return count


_HEADER = 128  # room for the .npy header, written last, when the length is known


def _header(dtype: np.dtype, total: int) -> bytes:
    text = repr({"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": (total,)})
    room = _HEADER - len(npy.MAGIC_PREFIX) - 4
    body = text.encode("latin1").ljust(room - 1) + b"\n"
    return npy.MAGIC_PREFIX + bytes([1, 0]) + len(body).to_bytes(2, "little") + body


def _map(path: Path) -> np.ndarray:
    if path.stat().st_size <= _HEADER:  # an empty file can't be mapped
        return np.load(path)
    return np.load(path, mmap_mode="r")
