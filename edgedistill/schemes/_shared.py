"""What the schemes of int8 share: where the arithmetic is exact, and embedding tables by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgedistill.graph.weights import (
    FULL,
    SEVEN_BITS,
    Additions,
    Constants,
    attributes,
    symmetric,
)
from edgedistill.settings import setting

EXACT_AT_SEVEN_BITS = ("arm64", "arm64+dotprod", "x86-64+avx2", "x86-64+vnni")
EXACT_AT_FULL_RANGE = ("arm64", "arm64+dotprod", "x86-64+vnni")
SMALLEST_TABLE = 4096  # values; a smaller table (token types) saves nothing


@dataclass(frozen=True)
class Int8:
    """The settings that every scheme of int8 has."""

    reduce_range: bool = setting(
        False, "seven-bit weights: exact on x86 without VNNI, at nearly no cost in score"
    )
    embeddings: bool = setting(True, "quantize embedding tables too, one scale per row")
    floats: tuple[str, ...] = setting(
        (), "operators that stay in float, by the name of their result"
    )

    @property
    def largest(self) -> int:
        """The largest |weight| as an int8."""
        return SEVEN_BITS if self.reduce_range else FULL


def unproven(processor: str) -> str | None:
    """Say that no file of ours is proven exact on a processor; None where one is."""
    if processor in EXACT_AT_SEVEN_BITS:
        return None
    known = ", ".join(EXACT_AT_SEVEN_BITS)
    return f"its arithmetic is not proven exact on '{processor}' (proven: {known})"


def for_processors(processors: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the settings under which the arithmetic is exact on all of these processors."""
    return {"reduce_range": not set(processors) <= set(EXACT_AT_FULL_RANGE)}


def exact_on(settings: Int8) -> tuple[str, ...]:
    """Name the processors on which a file made with these settings is exact."""
    return EXACT_AT_SEVEN_BITS if settings.reduce_range else EXACT_AT_FULL_RANGE


def is_product(constants: Constants, node: Any) -> bool:
    """Say whether a node is a MatMul or Gemm with constant weights, of an input that is none."""
    if node.op_type not in ("MatMul", "Gemm"):
        return False
    told = attributes(node)
    plain = told.get("alpha", 1.0) == told.get("beta", 1.0) == 1.0 and not told.get("transA")
    weights = constants.floats(node.input[1], rank=2)
    return plain and weights is not None and node.input[0] not in constants


def is_lookup(constants: Constants, node: Any) -> bool:
    """Say whether a node takes rows from a large constant table."""
    if node.op_type != "Gather" or attributes(node).get("axis", 0) != 0:
        return False
    table = constants.floats(node.input[0], rank=2)
    return table is not None and table.size >= SMALLEST_TABLE


def quantizable(
    model: Any, settings: Int8, product: Callable[[Constants, Any], bool] = is_product
) -> list[str]:
    """Name the results of the products and lookups that can be int8, in the graph's order."""
    constants = Constants(model.graph)
    return [
        node.output[0]
        for node in model.graph.node
        if product(constants, node) or (settings.embeddings and is_lookup(constants, node))
    ]


def to_float(source: str, result: str) -> Any:
    """Return the Cast of a tensor to float32."""
    from onnx import TensorProto, helper

    return helper.make_node("Cast", [source], [result], name=f"{result}.Cast", to=TensorProto.FLOAT)


def lookup(constants: Constants, additions: Additions, node: Any) -> list[Any]:
    """Return what stands for a lookup: int8 rows, Cast, Mul by the scale of each row.

    A run touches only the rows that it needs; it costs less accuracy than one scale for the table
    (which is all that onnxruntime's own quantizer has), at the same size.
    """
    from onnx import helper

    name, ids, output = node.input[0], node.input[1], node.output[0]
    rows, row_scales = f"{name}.rows_int8", f"{name}.rows_scale"
    if rows not in additions:
        table = constants.floats(name, rank=2)
        assert table is not None
        values, scales = symmetric(table, axis=0)
        additions.add(rows, values)
        additions.add(row_scales, scales[:, None])
    return [
        helper.make_node("Gather", [rows, ids], [f"{output}.int8"], name=f"{output}.Gather"),
        to_float(f"{output}.int8", f"{output}.float"),
        helper.make_node("Gather", [row_scales, ids], [f"{output}.scale"], name=f"{output}.Scales"),
        helper.make_node(
            "Mul", [f"{output}.float", f"{output}.scale"], [output], name=f"{output}.Mul"
        ),
    ]
