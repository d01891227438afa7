"""Golden vectors: inputs, encoded inputs and outputs, as JSON that any language reads.

    {"format": 1, "task": ..., "output": "logits", "tolerance": t, "rows": [
      {"input": {"text": ...} | {"image": base64 of a PNG},
       "encoded": {name: {"type": "int32", "shape": [7], "data": [...] | "base64": "..."}},
       "output": [...]}]}

`encoded` is one row as the encoder makes it, before padding and normalising: tokens, or pixels
(height, width, channels). Long arrays stand as base64 of little-endian bytes, row by row.
`output` is what the model gives for that row alone. The tolerance bounds |difference| of outputs.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgedistill.bundle.untrusted import blamed, is_number
from edgedistill.errors import BundleError, InternalError

NAME = "golden.json"
MOST_NUMBERS = 4096  # beyond it an array stands as base64
MOST_BYTES = 32_000_000  # of one encoded array
# Share of the outputs' typical spread by which they may differ between processors: float sums are
# ordered otherwise (1e-6 or so); int8 besides rounds an activation to the next of 255 steps.
SHARE = {"fp32": 0.001, "int8": 0.02}
_TYPES = ("uint8", "int8", "int32", "int64", "float32")

Row = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Agreement:
    """How far a bundle gives its golden outputs here."""

    rows: int
    tolerance: float
    max_difference: float  # largest |difference| of any output
    agreement: float  # share of the rows with the same best label
    holds: bool
    reason: str | None = None


def make(
    examples: Sequence[Mapping[str, Any]],
    encoded: Sequence[Row],
    outputs: np.ndarray,
    *,
    task: str,
    output: str,
    precision: str,
) -> dict[str, Any]:
    """Make the golden document of examples, their encoded rows and (rows, labels) outputs."""
    if not len(examples) or not np.isfinite(outputs).all():
        raise InternalError("the golden vectors are empty or hold values that are no numbers")
    spread = float(np.median(outputs.max(axis=1) - outputs.min(axis=1)))
    share = SHARE.get(precision, SHARE["int8"])
    tolerance = float(f"{max(share * max(spread, 1.0), 1e-4):.3g}")
    rows = [
        {
            "input": {name: _input(value) for name, value in example.items()},
            "encoded": {name: _pack(value) for name, value in sorted(row.items())},
            "output": [float(str(number)) for number in np.asarray(given, np.float32)],
        }
        for example, row, given in zip(examples, encoded, outputs, strict=True)
    ]
    return {"format": 1, "task": task, "output": output, "tolerance": tolerance, "rows": rows}


def dump(document: Mapping[str, Any]) -> str:
    """Write the document with one row a line, so that a difference can be read."""
    head = {name: value for name, value in document.items() if name != "rows"}
    text = json.dumps(head, ensure_ascii=False, sort_keys=True, allow_nan=False)[:-1]
    rows = (
        json.dumps(row, ensure_ascii=False, sort_keys=True, allow_nan=False)
        for row in document["rows"]
    )
    return text + ', "rows": [\n' + ",\n".join(rows) + "\n]}\n"


def compare(
    document: Any,
    *,
    labels: int,
    encode: Callable[[Mapping[str, Any]], Row],
    run: Callable[[Row], np.ndarray],
) -> Agreement:
    """Encode and run every golden row again. Raises `BundleError` for an unsound document.

    Tokens must be the same; pixels may differ by one step of 255 (another Pillow rounds otherwise).
    Outputs are held against the tolerance on the stored encoding, so that encoder and model are
    judged apart.
    """
    tolerance, rows = _sound(document, labels)
    largest, same, reason = 0.0, 0, None
    for index, (example, stored, expected) in enumerate(rows):
        with blamed(f"golden row {index}"):
            fresh = encode(example)
        if reason is None and not _same(stored, fresh):
            reason = f"golden row {index}: the encoder gives other inputs"
        with blamed(f"golden row {index}"):
            given = np.asarray(run(stored), np.float64).reshape(-1)
        if given.shape != expected.shape:
            raise BundleError(
                f"golden row {index}: the model gives {given.size} outputs, expected {labels}"
            )
        gap = float(np.abs(given - expected).max())
        gap = gap if math.isfinite(gap) else math.inf
        largest = max(largest, gap)
        same += int(given.argmax() == expected.argmax())
        if reason is None and not gap <= tolerance:
            reason = f"golden row {index}: an output differs by {gap:.4g}, allowed {tolerance:.4g}"
    return Agreement(len(rows), tolerance, largest, same / len(rows), reason is None, reason)


def _sound(document: Any, labels: int) -> tuple[float, list[tuple[dict, Row, np.ndarray]]]:
    """Bring an untrusted golden document into arrays, or raise `BundleError`."""
    try:
        tolerance = document["tolerance"]
        rows = document["rows"]
        if document["format"] != 1 or not is_number(tolerance) or not 0 < tolerance <= 1e6:
            raise ValueError("its format or tolerance")
        if not isinstance(rows, list) or not 0 < len(rows) <= 10_000:
            raise ValueError("its rows")
        return float(tolerance), [_sound_row(row, labels) for row in rows]
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise BundleError(f"{NAME} is unsound: {str(error)[:100]}") from None


def _sound_row(row: Any, labels: int) -> tuple[dict[str, Any], Row, np.ndarray]:
    example = {}
    for name, value in row["input"].items():
        if not isinstance(value, str):
            raise ValueError("an input that is no text")
        example[name] = base64.b64decode(value, validate=True) if name == "image" else value
    output = row["output"]
    if len(output) != labels or not all(map(is_number, output)):
        raise ValueError(f"an output that is not {labels} numbers")
    encoded = {name: _unpack(value) for name, value in row["encoded"].items()}
    return example, encoded, np.array(output, np.float64)


def _input(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _pack(value: Any) -> dict[str, Any]:
    array = np.asarray(value)
    packed: dict[str, Any] = {"type": array.dtype.name, "shape": list(array.shape)}
    if array.size <= MOST_NUMBERS:
        packed["data"] = array.reshape(-1).tolist()
    else:
        little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
        packed["base64"] = base64.b64encode(little.tobytes()).decode()
    return packed


def _unpack(packed: Mapping[str, Any]) -> np.ndarray:
    kind, shape = packed["type"], packed["shape"]
    if kind not in _TYPES or not isinstance(shape, list) or len(shape) > 4:
        raise ValueError("an encoded array of another kind")
    if not all(type(side) is int and 0 <= side <= 1_000_000 for side in shape):
        raise ValueError("an encoded array's shape")
    dtype = np.dtype(kind)
    count = math.prod(shape)
    if count * dtype.itemsize > MOST_BYTES:
        raise ValueError("an encoded array that is too large")
    if "base64" in packed:
        data = base64.b64decode(packed["base64"], validate=True)
        flat = np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype)
    else:
        data = packed["data"]
        if not isinstance(data, list) or not all(map(is_number, data)):
            raise ValueError("an encoded array's numbers")
        flat = np.array(data, np.float64)
        if dtype.kind in "iu":
            span = np.iinfo(dtype)
            if flat.size and (flat.min() < span.min or flat.max() > span.max):
                raise ValueError("an encoded array's numbers")
        flat = flat.astype(dtype)
    if flat.size != count:
        raise ValueError("an encoded array whose shape is not that of its numbers")
    return flat.reshape(shape)


def _same(stored: Row, fresh: Row) -> bool:
    if set(stored) != set(fresh):
        return False
    for name, one in stored.items():
        other = np.asarray(fresh[name])
        if one.shape != other.shape:
            return False
        allowed = 1 if one.dtype == np.uint8 else 0
        gaps = np.abs(one.astype(np.float64) - other.astype(np.float64))
        if one.size and not gaps.max() <= allowed:
            return False
    return True
