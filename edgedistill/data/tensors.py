"""Rows of a large matrix of a checkpoint, read from where they lie: no torch, no whole tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgedistill.data import weights
from edgedistill.errors import ModelError

NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class Matrix:
    """A matrix (rows, columns) of a safetensors file, mapped into memory."""

    def __init__(self, path: Path, name: str) -> None:
        dtype, shape, place = weights.placed(path)[name]
        if len(shape) != 2 or dtype not in NUMPY:
            raise ModelError(f"'{path.name}': '{name}' is no matrix of floats")
        self.shape = shape
        self._short = dtype == "BF16"
        self._values = np.memmap(path, dtype=NUMPY[dtype], mode="r", offset=place, shape=shape)

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Return some rows as float32, (indices, columns)."""
        values = np.asarray(self._values[indices])
        if self._short:  # bfloat16 is the upper half of a float32
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32)


def embeddings(folder: Path, vocabulary: int) -> Matrix | None:
    """Return the table of input embeddings, by its name and its number of rows; None without one.

    Raises `ModelError` for weights that are damaged.
    """
    found = weights.read(folder)
    if found is None:
        return None
    for path in found.files:
        if path.suffix != ".safetensors":
            continue
        for name, (_, shape) in sorted(weights.header(path).items()):
            if "embed" in name and len(shape) == 2 and shape[0] == vocabulary:
                return Matrix(path, name)
    return None
