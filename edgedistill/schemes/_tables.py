"""Embedding tables in int4 or int8, one scale a row: a run touches only the rows that it needs.

onnxruntime's own quantizer has one scale for a whole table, which costs more of the score at the
size of int8. Large tables are most of a small model's file, and bear four bits: of a student of
CLINC150 (2 layers x 384, a table of 30,522 rows) 99.5 % of the answers stay as they were, and its
file of 15.9 MB becomes one of 10.0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgedistill.graph.weights import Additions, Constants, attributes, symmetric, to_float

INT4, INT8 = ".rows_int4", ".rows_int8"  # how a table's whole numbers are called
PRECISIONS = ("int4", "int8", "float32")
SMALLEST = 4096  # values; a smaller table (token types) saves nothing
LARGE = 1_000_000  # values, of which four bits each save half a megabyte and more
MIDDLE = 8  # what is added to -8 ... 7, so that two values share a byte
SHARES = np.linspace(0.6, 1.0, 9)  # of a row's largest value, that its scale is tried for
CHUNK = 4096  # rows at a time: memory does not grow with a table


def is_lookup(constants: Constants, node: Any) -> bool:
    """Say whether a node takes rows from a constant table that is worth quantizing."""
    if node.op_type != "Gather" or attributes(node).get("axis", 0) != 0:
        return False
    table = constants.floats(node.input[0], rank=2)
    return table is not None and table.size >= SMALLEST


def has_int4(model: Any) -> bool:
    """Say whether a quantized graph has a table in int4."""
    return any(INT4 in tensor.name for tensor in model.graph.initializer)


def lookup(
    constants: Constants, additions: Additions, node: Any, *, precision: str = "int8"
) -> list[Any]:
    """Return what stands for a lookup: whole numbers, in float32, times the scale of each row.

    In int4 are large tables of an even width, if that is asked for; all others are in int8.
    """
    from onnx import helper

    name, ids, output = node.input[0], node.input[1], node.output[0]
    table = constants.floats(name, rank=2)
    assert table is not None
    small = precision == "int4" and table.size >= LARGE and table.shape[1] % 2 == 0
    rows, scales = f"{name}{INT4 if small else INT8}", f"{name}.rows_scale"
    if rows not in additions:
        values, each = four_bits(table) if small else symmetric(table, axis=0)
        additions.add(rows, values)
        additions.add(scales, each[:, None])
    taken = f"{output}.{'packed' if small else 'int8'}"
    whole = _unpacked(additions, taken, output) if small else [to_float(taken, f"{output}.float")]
    return [
        helper.make_node("Gather", [rows, ids], [taken], name=f"{output}.Gather"),
        *whole,
        helper.make_node("Gather", [scales, ids], [f"{output}.row_scale"], name=f"{output}.Scales"),
        helper.make_node(
            "Mul", [f"{output}.float", f"{output}.row_scale"], [output], name=f"{output}.Mul"
        ),
    ]


def four_bits(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantize the rows of a table, (rows, even width), to -8 ... 7 times a scale of their own.

    Returns (rows, width / 2) uint8, two values a byte: the low half has one of the first half of
    the row, the high half one of the second, each with 8 added; and the scales, (rows,) float32.
    A scale has a sign, so that what is largest lies at -8. The share of the largest that it is made
    for leaves the smallest squared error: a few clipped values make the steps of all others finer.
    Rows of zeros have the scale 0; rows that are not finite have such a scale, and give no number.
    """
    half = table.shape[1] // 2
    packed = np.empty((len(table), half), dtype=np.uint8)
    scales = np.zeros(len(table), dtype=np.float32)
    for start in range(0, len(table), CHUNK):
        rows = table[start : start + CHUNK].astype(np.float32)
        peaks = np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = np.nan_to_num(rows / peaks)  # of the largest: -1 ... 1, whatever its size
        least = np.full(len(rows), np.inf, dtype=np.float32)
        whole, shares = np.zeros_like(parts), np.ones(len(rows), dtype=np.float32)
        for share in SHARES.astype(np.float32):
            tried = np.clip(np.rint(parts * (-MIDDLE / share)), -MIDDLE, MIDDLE - 1)
            error = ((tried * (share / -MIDDLE) - parts) ** 2).sum(axis=1)
            better = error < least
            least[better], whole[better], shares[better] = error[better], tried[better], share
        shifted = (whole + MIDDLE).astype(np.uint8)
        packed[start : start + CHUNK] = shifted[:, :half] | (shifted[:, half:] << 4)
        scales[start : start + CHUNK] = peaks[:, 0] * shares / -MIDDLE
    return packed, scales


def _unpacked(additions: Additions, packed: str, output: str) -> list[Any]:
    """Return the nodes that take two values from each byte: "<output>.float" holds all."""
    from onnx import helper

    four = additions.add("int4.bits", np.array(4, dtype=np.uint8))
    middle = additions.add("int4.middle", np.array(MIDDLE, dtype=np.float32))
    shifts = [
        (packed, "LEFT", f"{output}.shifted"),
        (f"{output}.shifted", "RIGHT", f"{output}.low"),
        (packed, "RIGHT", f"{output}.high"),
    ]
    halves = [f"{output}.low", f"{output}.high"]
    return [
        *(
            helper.make_node("BitShift", [source, four], [made], name=made, direction=way)
            for source, way, made in shifts
        ),
        helper.make_node("Concat", halves, [f"{output}.int4"], name=f"{output}.Concat", axis=-1),
        to_float(f"{output}.int4", f"{output}.shifted_float"),
        helper.make_node(
            "Sub", [f"{output}.shifted_float", middle], [f"{output}.float"], name=f"{output}.Sub"
        ),
    ]
