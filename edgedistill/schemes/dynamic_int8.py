"""Dynamic int8: weights quantized once, activations measured in each run. For transformers.

Matrix products with constant weights become DynamicQuantizeLinear, MatMulInteger and a Mul by
scales, which every session since onnxruntime 1.15 fuses. Weights are signed and symmetric, one
scale per output channel. Embedding tables get one scale per row (`_tables`).

On x86 without VNNI the product of u8 and s8 pairs is summed in 16 bits and saturates; weights of
seven bits ([-64, 64]) never do. Activations share one scale over the whole tensor, padding and
batch-mates included: evaluate with the batch that ships.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgedistill.graph.simplify import drop_unread
from edgedistill.graph.weights import (
    Additions,
    Constants,
    attributes,
    need_opset,
    symmetric,
    to_float,
)
from edgedistill.schemes import Calibration, _shared, _tables
from edgedistill.schemes._shared import Int8 as Settings
from edgedistill.schemes._shared import exact_on as exact_on
from edgedistill.schemes._shared import for_processors as for_processors
from edgedistill.schemes._shared import milder as milder

PRECISION = "int8"
CALIBRATES = False
PACKAGES = ("onnx", "numpy")


def valid(facts: Mapping[str, Any], target: Any, processor: str) -> str | None:
    """Return why the scheme can't serve, or None."""
    if facts.get("convolutional"):
        return "convolutions want static int8: ConvInteger is slow or missing"
    operators = facts.get("operators")
    if operators is not None and not {"MatMul", "Gemm"} & set(operators):
        return "the graph has no matrix product to quantize"
    return _shared.unproven(processor)


def spared(facts: Mapping[str, Any], target: Any) -> str | None:
    """Return why `auto` leaves the scheme to be named, or None."""
    batch = target.runtime.batch if target is not None else 1
    if batch > 1:
        return f"its answers depend on batch-mates, and '{target.name}' runs {batch} rows together"
    return None


def word(facts: Mapping[str, Any]) -> str:
    """Return what rows of this scheme are called by."""
    return PRECISION


def quantizable(model: Any, settings: Settings) -> list[str]:
    """Name the results of the operators that can be int8, in the graph's order."""
    return _shared.quantizable(model, settings)


def apply(model: Any, calibration: Calibration | None, settings: Settings) -> Any:
    """Return the quantized `onnx.ModelProto`; `model` is not changed."""
    import onnx

    need_opset(model, 11, "dynamic int8")
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made.graph.ClearField("value_info")  # the types of what was replaced
    work = _Work(made.graph, settings)
    nodes = [each for node in made.graph.node for each in work.rewritten(node)]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    drop_unread(made.graph)
    return made


class _Work:
    """One graph being quantized: its constants, its additions, what is quantized already."""

    def __init__(self, graph: Any, settings: Settings) -> None:
        self._constants = Constants(graph)
        self._additions = Additions(graph)
        self._settings = settings
        self._activations: set[str] = set()

    def rewritten(self, node: Any) -> list[Any]:
        """Return the nodes that stand for one node."""
        if node.output[0] in self._settings.floats:
            return [node]
        if _shared.is_product(self._constants, node):
            return self._product(node)
        if self._settings.tables and _tables.is_lookup(self._constants, node):
            told = {"precision": self._settings.embeddings}
            return _tables.lookup(self._constants, self._additions, node, **told)
        return [node]

    def _product(self, node: Any) -> list[Any]:
        """Return what stands for a MatMul or Gemm with constant weights."""
        from onnx import helper

        weights = self._constants.floats(node.input[1], rank=2)
        assert weights is not None
        turned = bool(attributes(node).get("transB"))
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
            to_float(f"{output}.int32", f"{output}.float"),
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

    def _matrix(self, name: str, weights: np.ndarray, turned: bool) -> tuple[str, str]:
        """Quantize a weight matrix (inputs, outputs) once; returns the names of both parts."""
        stem = f"{name}.turned" if turned else name
        if f"{stem}.int8" not in self._additions:
            values, scales = symmetric(weights, axis=1, largest=self._settings.largest)
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
