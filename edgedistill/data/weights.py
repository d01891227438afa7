"""Weights of a checkpoint: read what safetensors headers say, without loading a tensor.

A safetensors file is 8 bytes (the header's length), the header (JSON), and the tensors' bytes one
after another; a file that is cut off or padded is noticed by its length.
Source: the format's own description, github.com/huggingface/safetensors.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgedistill.errors import ModelError, first_line, from_os_error

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"
BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "BOOL": 8,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8,
}  # fmt: skip
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
LONGEST_HEADER = 100_000_000  # the format's own limit
BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "position_ids")


@dataclass(frozen=True)
class Weights:
    """The files of a checkpoint's weights, and their tensors by name."""

    files: tuple[Path, ...]  # the index first, where there are several
    tensors: Mapping[str, tuple[str, tuple[int, ...]]] = field(repr=False)  # dtype and shape
    bytes: int

    def parameters(self) -> int:
        """Count the parameters: floats that are no buffers."""
        return sum(
            math.prod(shape)
            for name, (dtype, shape) in self.tensors.items()
            if dtype in DTYPES and not name.endswith(BUFFERS)
        )

    def dtype(self) -> str:
        """Name the type that most parameters have: "float16"."""
        counts: Counter[str] = Counter()
        for dtype, shape in self.tensors.values():
            if dtype in DTYPES:
                counts[DTYPES[dtype]] += math.prod(shape)
        return counts.most_common(1)[0][0] if counts else "float32"

    def digest(self) -> str:
        """Return the sha256 over the files' names and bytes."""
        digest = hashlib.sha256()
        for path in self.files:
            with path.open("rb") as file:
                digest.update(
                    f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()} ".encode()
                )
        return digest.hexdigest()


def read(folder: Path) -> Weights | None:
    """Read the headers of a folder's safetensors; None where it has none.

    Raises `ModelError` for a missing shard, and for a file that is cut off or damaged.
    """
    if (folder / FILE).is_file():
        files: tuple[Path, ...] = (folder / FILE,)
        shards = files
    elif (folder / INDEX).is_file():
        shards = _shards(folder / INDEX)
        files = (folder / INDEX, *shards)
    else:
        return None
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for shard in shards:
        tensors |= header(shard)
    return Weights(files, tensors, sum(path.stat().st_size for path in files))


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelError(f"'{index}' is no index of weights: it is damaged") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise ModelError(f"'{index}' names a file outside its folder: {name!r}")
        if not (index.parent / name).is_file():
            raise ModelError(f"'{index.parent}' lacks '{name}', which {index.name} names")
    return tuple(index.parent / name for name in names)


def header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Read the header of one safetensors file: type and shape by name. Raises `ModelError`."""
    return {name: (dtype, shape) for name, (dtype, shape, _) in placed(path).items()}


def placed(path: Path) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """Read the header of one file, held against its length: type, shape and place in the file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(8)
            length = struct.unpack("<Q", first)[0] if len(first) == 8 else -1
            if not 0 <= length <= min(size - 8, LONGEST_HEADER):
                raise ModelError(f"'{path}' is no safetensors file, or cut off or damaged")
            told = json.loads(file.read(length))
            tensors = {name: _tensor(about) for name, about in told.items() if name[:2] != "__"}
    except OSError as error:
        raise from_os_error(error, f"reading '{path.name}'") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelError(f"'{path}': its header can't be read: the file is damaged") from None
    end = 0
    for name, (dtype, shape, start, stop) in sorted(tensors.items(), key=lambda each: each[1][2:]):
        wanted = math.prod(shape) * BITS[dtype] // 8 if dtype in BITS else stop - start
        if start != end or stop - start != wanted:
            raise ModelError(f"'{path}': the tensor '{name}' lies wrong: the file is damaged")
        end = stop
    if 8 + length + end != size:
        raise ModelError(
            f"'{path}' is cut off or damaged: {size:,} bytes, its header tells of "
            f"{8 + length + end:,}"
        )
    return {
        name: (dtype, shape, 8 + length + at) for name, (dtype, shape, at, _) in tensors.items()
    }


def _tensor(about: Mapping[str, Any]) -> tuple[str, tuple[int, ...], int, int]:
    start, stop = about["data_offsets"]
    return str(about["dtype"]), tuple(int(side) for side in about["shape"]), int(start), int(stop)


def is_pickle_only(folder: Path) -> bool:
    """Say whether a folder's weights are a pickle, and nothing else."""
    return any((folder / name).is_file() for name in (PICKLE, PICKLE_INDEX))


def convert(folder: Path, out: Path) -> int:
    """Write pickled weights as safetensors, reading tensors alone; returns the pickles' bytes.

    Raises `ModelError` where the pickle holds anything but tensors.
    """
    import torch
    from safetensors.torch import save_file

    one = folder / PICKLE
    paths = (one,) if one.is_file() else _shards(folder / PICKLE_INDEX)
    tensors: dict[str, Any] = {}
    for path in paths:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("state_dict", state)
            tensors |= {name: value.contiguous().clone() for name, value in state.items()}
        except Exception as error:  # a pickle may raise anything
            reason = first_line(error)
            raise ModelError(
                f"'{path}' can't be read as tensors alone, and is not read otherwise: {reason}"
            ) from None
    save_file(tensors, out / FILE, metadata={"format": "pt"})
    return sum(path.stat().st_size for path in paths)
