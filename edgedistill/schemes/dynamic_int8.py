"""Dynamic int8: weights quantized once, activations measured in each run. For transformers.

Matrix products with constant weights become DynamicQuantizeLinear, MatMulInteger and a Mul by
scales, which every session since onnxruntime 1.15 fuses. Weights are signed and symmetric, one
scale per output channel. Embedding tables get one scale per row: Gather of int8 rows, Cast, Mul by
the gathered scales, so a run touches only the rows that it needs; it costs less accuracy than one
scale for the table (which is all that onnxruntime's own quantizer has), at the same size.

On x86 without VNNI the product of u8 and s8 pairs is summed in 16 bits and saturates; weights of
seven bits ([-64, 64]) never do. Activations share one scale over the whole tensor, padding and
batch-mates included: evaluate with the batch that ships.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgedistill.graph.simplify import drop_unread
from edgedistill.graph.weights import (
    FULL,
    SEVEN_BITS,
    Additions,
    Constants,
    attributes,
    need_opset,
    symmetric,
)
from edgedistill.settings import setting

PRECISION = "int8"
CALIBRATES = False
PACKAGES = ("onnx", "numpy")

EXACT_AT_SEVEN_BITS = ("arm64", "arm64+dotprod", "x86-64+avx2", "x86-64+vnni")
EXACT_AT_FULL_RANGE = ("arm64", "arm64+dotprod", "x86-64+vnni")
SMALLEST_TABLE = 4096  # values; a smaller table (token types) saves nothing


@dataclass(frozen=True)
class Settings:
    reduce_range: bool = setting(
        False, "seven-bit weights: exact on x86 without VNNI, at nearly no cost in score"
    )
    embeddings: bool = setting(True, "quantize embedding tables too, one scale per row")


def valid(facts: Mapping[str, Any], target: Any, processor: str) -> str | None:
    """Return why the scheme can't serve, or None."""
    if facts.get("convolutional"):
        return "convolutions want static int8: ConvInteger is slow or missing"
    if processor not in EXACT_AT_SEVEN_BITS:
        known = ", ".join(EXACT_AT_SEVEN_BITS)
        return f"its arithmetic is not proven exact on '{processor}' (proven: {known})"
    operators = facts.get("operators")
    if operators is not None and not {"MatMul", "Gemm"} & set(operators):
        return "the graph has no matrix product to quantize"
    return None


def for_processors(processors: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the settings under which the arithmetic is exact on all of these processors."""
    return {"reduce_range": not set(processors) <= set(EXACT_AT_FULL_RANGE)}


def exact_on(settings: Settings) -> tuple[str, ...]:
    """Name the processors on which a file made with these settings is exact."""
    return EXACT_AT_SEVEN_BITS if settings.reduce_range else EXACT_AT_FULL_RANGE


def apply(
    model: Any,
    calibration: Callable[[], Iterator[Mapping[str, np.ndarray]]] | None,
    settings: Settings,
) -> Any:
    """Return the quantized `onnx.ModelProto`; `model` is not changed."""
    import onnx

    need_opset(model, 11, "dynamic int8")
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made.graph.ClearField("value_info")  # the types of what was replaced
    work = _Work(made.graph, SEVEN_BITS if settings.reduce_range else FULL)
    nodes: list[Any] = []
    for node in made.graph.node:
        replaced = None
        if node.op_type in ("MatMul", "Gemm"):
            replaced = work.product(node)
        elif node.op_type == "Gather" and settings.embeddings:
            replaced = work.lookup(node)
        nodes += replaced if replaced is not None else [node]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    drop_unread(made.graph)
    return made


class _Work:
    """One graph being quantized: its constants, its additions, what is quantized already."""

    def __init__(self, graph: Any, largest: int) -> None:
        self._constants = Constants(graph)
        self._additions = Additions(graph)
        self._largest = largest
        self._activations: set[str] = set()

    def product(self, node: Any) -> list[Any] | None:
        """Replace a MatMul or Gemm with constant weights; None where it must stay float."""
        from onnx import TensorProto, helper

        told = attributes(node)
        plain = told.get("alpha", 1.0) == told.get("beta", 1.0) == 1.0 and not told.get("transA")
        weights = self._constants.floats(node.input[1], rank=2)
        if weights is None or not plain or node.input[0] in self._constants:
            return None
        turned = bool(told.get("transB"))
        values, scales = self._matrix(node.input[1], weights.T if turned else weights, turned)
        source, output = node.input[0], node.output[0]
        nodes = self._activation(source)
        bias = node.input[2] if node.op_type == "Gemm" and len(node.input) > 2 else ""
        scaled = f"{output}.product" if bias else output
        nodes += [
            helper.make_node(
                "MatMulInteger",
                [f"{source}.uint8", values, f"{source}.zero_point"],
                [f"{output}.int32"],
                name=f"{output}.MatMulInteger",
            ),
            helper.make_node(
                "Cast",
                [f"{output}.int32"],
                [f"{output}.float"],
                name=f"{output}.Cast",
                to=TensorProto.FLOAT,
            ),
            helper.make_node(
                "Mul", [f"{source}.scale", scales], [f"{output}.scales"], name=f"{output}.Scales"
            ),
            helper.make_node(
                "Mul", [f"{output}.float", f"{output}.scales"], [scaled], name=f"{output}.Mul"
            ),
        ]
        if bias:
            nodes.append(helper.make_node("Add", [scaled, bias], [output], name=f"{output}.Add"))
        return nodes

    def lookup(self, node: Any) -> list[Any] | None:
        """Replace a Gather from a large float table; None where it must stay float."""
        from onnx import TensorProto, helper

        table = self._constants.floats(node.input[0], rank=2)
        if table is None or attributes(node).get("axis", 0) != 0 or table.size < SMALLEST_TABLE:
            return None
        name, ids, output = node.input[0], node.input[1], node.output[0]
        rows, row_scales = f"{name}.rows_int8", f"{name}.rows_scale"
        if rows not in self._additions:
            values, scales = symmetric(table, axis=0)
            self._additions.add(rows, values)
            self._additions.add(row_scales, scales[:, None])
        return [
            helper.make_node("Gather", [rows, ids], [f"{output}.int8"], name=f"{output}.Gather"),
            helper.make_node(
                "Cast",
                [f"{output}.int8"],
                [f"{output}.float"],
                name=f"{output}.Cast",
                to=TensorProto.FLOAT,
            ),
            helper.make_node(
                "Gather", [row_scales, ids], [f"{output}.scale"], name=f"{output}.Scales"
            ),
            helper.make_node(
                "Mul", [f"{output}.float", f"{output}.scale"], [output], name=f"{output}.Mul"
            ),
        ]

    def _matrix(self, name: str, weights: np.ndarray, turned: bool) -> tuple[str, str]:
        """Quantize a weight matrix (inputs, outputs) once; returns the names of both parts."""
        stem = f"{name}.turned" if turned else name
        if f"{stem}.int8" not in self._additions:
            values, scales = symmetric(weights, axis=1, largest=self._largest)
            self._additions.add(f"{stem}.int8", values)
            self._additions.add(f"{stem}.scale", scales)
        return f"{stem}.int8", f"{stem}.scale"

    def _activation(self, name: str) -> list[Any]:
        """Quantize an activation, once for all products that read it."""
        from onnx import helper

        if name in self._activations:
            return []
        self._activations.add(name)
        outputs = [f"{name}.uint8", f"{name}.scale", f"{name}.zero_point"]
        return [
            helper.make_node(
                "DynamicQuantizeLinear", [name], outputs, name=f"{name}.DynamicQuantizeLinear"
            )
        ]
