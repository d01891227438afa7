"""Read the outline of an ONNX file without protobuf: opset, IR, and whether it reads other files.

A device has onnxruntime but not onnx. Protobuf's wire form is small: a stream of (field number,
wire type, value). Only the fields that lead to a tensor are followed; weights are stepped over, so
a file of any size costs a few milliseconds.

Field numbers: onnx.proto3 of the ONNX project (ModelProto, GraphProto, NodeProto, AttributeProto,
TensorProto, SparseTensorProto, FunctionProto).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedistill.bundle.untrusted import FILE_BYTES, printable, size_of
from edgedistill.errors import BundleError

MOST_FIELDS = 5_000_000  # a large encoder's file has some 100,000; beyond this someone plays

# message -> field number -> the message that lies there
_INSIDE = {
    "model": {7: "graph", 8: "opset", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_TRAINING, _EXTERNAL, _LOCATION = 20, 13, 14


@dataclass(frozen=True)
class Outline:
    """What an ONNX file says of itself."""

    ir: int
    opsets: dict[str, int]  # domain -> version; "" is ONNX's own
    self_contained: bool  # no tensor lies in another file


def outline(folder: Path, name: str) -> Outline:
    """Read the outline of one ONNX file. Raises `BundleError` when it is no sound protobuf."""
    size = size_of(folder, name)
    if not 0 < size <= FILE_BYTES:
        raise BundleError(f"'{printable(folder / name)}' holds {size:,} bytes: no ONNX file")
    try:
        with (
            (folder / name).open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole,
        ):
            return _read(whole)
    except (ValueError, IndexError) as error:
        raise BundleError(f"'{printable(folder / name)}' is no sound ONNX file: {error}") from None


def _read(data: mmap.mmap) -> Outline:
    ir, opsets, contained, visited = 0, {}, True, 0
    left: list[tuple[str, int, int]] = [("model", 0, len(data))]
    while left:
        message, start, stop = left.pop()
        if message == "opset":
            domain, version = _opset(data, start, stop)
            opsets[domain] = version
            continue
        for number, value in _fields(data, start, stop):
            visited += 1
            if visited > MOST_FIELDS:
                raise ValueError("it has too many parts")
            if message == "tensor":
                if number == _EXTERNAL or (number == _LOCATION and value != 0):
                    contained = False
            elif message == "model" and number == 1 and isinstance(value, int):
                ir = value
            elif message == "model" and number == _TRAINING:
                raise ValueError("it carries training information")
            elif isinstance(value, tuple) and number in _INSIDE[message]:
                left.append((_INSIDE[message][number], *value))
    if not ir or not opsets:
        raise ValueError("it names no opset")
    return Outline(ir, opsets, contained)


def _opset(data: mmap.mmap, start: int, stop: int) -> tuple[str, int]:
    domain, version = "", 0
    for number, value in _fields(data, start, stop):
        if number == 1 and isinstance(value, tuple):
            domain = data[value[0] : value[1]].decode("utf-8")
        elif number == 2 and isinstance(value, int):
            version = value
    return ("" if domain == "ai.onnx" else domain), version


def _fields(data: mmap.mmap, at: int, stop: int) -> Iterator[tuple[int, Any]]:
    """Yield (field number, integer | (start, stop) of a nested value | None for fixed widths)."""
    while at < stop:
        tag, at = _varint(data, at, stop)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at, stop)
            yield number, value
        elif wire == 2:
            length, at = _varint(data, at, stop)
            if at + length > stop:
                raise ValueError("it is cut short")
            yield number, (at, at + length)
            at += length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
            yield number, None
        else:
            raise ValueError("it is no protobuf")
    if at != stop:
        raise ValueError("it is cut short")


def _varint(data: mmap.mmap, at: int, stop: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        if at >= stop:
            raise ValueError("it is cut short")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("it is no protobuf")
