"""Count the matrix products of one run: what an estimate of its time on a device starts from."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from edgedistill.errors import ModelError
from edgedistill.graph import inspect, session

FLOAT, INT8 = "fp32", "int8"
MATRIX = {  # operator: (index of the left matrix, of the right one, arithmetic)
    "MatMul": (0, 1, FLOAT),
    "Gemm": (0, 1, FLOAT),
    "FusedMatMul": (0, 1, FLOAT),
    "FusedGemm": (0, 1, FLOAT),
    "MatMulInteger": (0, 1, INT8),
    "MatMulIntegerToFloat": (0, 1, INT8),
    "DynamicQuantizeMatMul": (0, 1, INT8),
    "QLinearMatMul": (0, 3, INT8),
    "QGemm": (0, 3, INT8),
}
CONVOLUTIONS = {  # operator: (index of the weights, arithmetic)
    "Conv": (1, FLOAT),
    "FusedConv": (1, FLOAT),
    "ConvTranspose": (1, FLOAT),
    "ConvInteger": (1, INT8),
    "QLinearConv": (3, INT8),
}
ATTENTION = {"Attention": FLOAT, "QAttention": INT8}  # arithmetic of its projections


def products(model: Path, shapes: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Count the operations of all matrix products in one run: {"fp32": flop, "int8": op}.

    Twice the multiply-adds of MatMul, Gemm, Conv, their integer and contrib forms and Attention,
    for inputs of these shapes. A MatMul, Gemm or Conv whose data and weights both come from a
    DequantizeLinear counts as int8. Shapes inside are taken from a run on zeros. Raises
    `ModelError` where an input has no shape.
    """
    graph = inspect.read(model).graph
    counted = [
        node
        for node in graph.node
        if node.op_type in MATRIX or node.op_type in CONVOLUTIONS or node.op_type in ATTENTION
    ]
    dequantized = {
        node.output[0] for node in graph.node if node.op_type == "DequantizeLinear" and node.output
    }
    known = _shapes(model, counted, shapes)
    found = {FLOAT: 0.0, INT8: 0.0}
    for node in counted:
        for arithmetic, operations in _of_node(node, known).items():
            wrapped = arithmetic == FLOAT and {*node.input[:2]} <= dequantized
            found[INT8 if wrapped else arithmetic] += operations
    return found


def _of_node(node: Any, known: Mapping[str, tuple[int, ...]]) -> dict[str, float]:
    """Count the operations of one node by arithmetic."""
    if node.op_type in MATRIX:
        left, _, arithmetic = MATRIX[node.op_type]
        inner = _inner(node, known[node.input[left]])
        return {arithmetic: 2.0 * prod(known[node.output[0]]) * inner}
    if node.op_type in CONVOLUTIONS:
        right, arithmetic = CONVOLUTIONS[node.op_type]
        weights = known[node.input[right]]
        # a weight serves each place of the result; a transposed one each place of the input
        places = known[node.input[0] if node.op_type == "ConvTranspose" else node.output[0]]
        return {arithmetic: 2.0 * prod(weights[1:]) * prod(places)}
    batch, length, hidden = known[node.input[0]]
    width = known[node.input[1]][1]
    inside = 2 * 2.0 * batch * length * length * width / 3
    made = {FLOAT: inside}
    arithmetic = ATTENTION[node.op_type]
    made[arithmetic] = made.get(arithmetic, 0.0) + 2.0 * batch * length * hidden * width
    return made


def _inner(node: Any, left: tuple[int, ...]) -> int:
    """Return the length of the dimension that a matrix product sums over."""
    turned = any(each.name == "transA" and each.i for each in node.attribute)
    if node.op_type in ("Gemm", "FusedGemm", "QGemm", "FusedMatMul") and turned:
        return left[-2]
    return left[-1]


def _shapes(
    model: Path, nodes: Sequence[Any], shapes: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what the nodes read and give, from a run on zeros."""
    import numpy as np
    import onnx

    opened = inspect.read(model)
    tensors = {tensor.name: tuple(tensor.dims) for tensor in opened.graph.initializer}
    names = {name for node in nodes for name in (*node.input, *node.output) if name}
    wanted = sorted(names - set(tensors) - {value.name for value in opened.graph.output})
    for name in wanted:
        opened.graph.output.add().name = name
    feed = {}
    for value in inspect.real_inputs(opened):
        if value.name not in shapes:
            raise ModelError(f"{model.name}: no shape is given for its input '{value.name}'")
        told = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        feed[value.name] = np.zeros(tuple(shapes[value.name]), dtype=told)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "opened.onnx"
        onnx.save(opened, path)
        running = session.start(path, {"optimization": "none"})
        outputs = [each.name for each in running.get_outputs()]
        results = running.run(outputs, feed)
    tensors.update({name: value.shape for name, value in zip(outputs, results, strict=True)})
    return tensors
