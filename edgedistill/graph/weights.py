"""Quantize constant weights, and find what a graph's nodes are made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgedistill.errors import ModelError

FULL, SEVEN_BITS = 127, 64  # largest |int8| weight: u8 x s8 pairs up to 64 never pass 16 bits

SMALLEST_NORMAL = 2.0**-126  # of float32


def symmetric(
    weights: np.ndarray,
    *,
    axis: int,
    largest: int = FULL,
    floor: np.ndarray | float = SMALLEST_NORMAL,
) -> tuple[np.ndarray, np.ndarray]:
    """Quantize floats to int8, symmetric, one scale for each index of `axis`.

    Returns the int8 values and the float32 scales (weights ~ values x scale). No scale is below
    `floor`, so that nothing is divided by zero.
    """
    others = tuple(index for index in range(weights.ndim) if index != axis)
    peaks = np.abs(weights).max(axis=others) if weights.size else np.zeros(weights.shape[axis])
    scales = np.maximum(peaks / largest, floor).astype(np.float32)
    shape = [-1 if index == axis else 1 for index in range(weights.ndim)]
    values = np.rint(weights / scales.reshape(shape))
    return np.clip(values, -largest, largest).astype(np.int8), scales


def need_opset(model: Any, least: int, what_for: str) -> None:
    """Raise `ModelError` where a graph's opset is too old for the operators of a scheme."""
    found = {each.domain: each.version for each in model.opset_import}.get("", 1)
    if found < least:
        raise ModelError(
            f"{what_for} needs a graph of opset {least} or later, this one has {found}"
        )


class Constants:
    """The constant tensors of a graph by name: initializers and Constant nodes."""

    def __init__(self, graph: Any) -> None:
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self._tensors[node.output[0]] = node.attribute[0].t
            elif node.op_type == "Identity" and node.input[0] in self._tensors:
                self._tensors[node.output[0]] = self._tensors[node.input[0]]  # shared weights

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def floats(self, name: str, rank: int) -> np.ndarray | None:
        """Return a constant's values if it is float32 of that rank, else None."""
        from onnx import TensorProto, numpy_helper

        tensor = self._tensors.get(name)
        if tensor is None or tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != rank:
            return None
        return numpy_helper.to_array(tensor)


class Additions:
    """New initializers of a graph, each name once."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._names: set[str] = {tensor.name for tensor in graph.initializer}

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def add(self, name: str, values: np.ndarray) -> str:
        """Add an initializer unless it is there already; returns its name."""
        from onnx import numpy_helper

        if name not in self._names:
            self._graph.initializer.append(
                numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)
            )
            self._names.add(name)
        return name


def to_float(source: str, result: str) -> Any:
    """Return the Cast of a tensor to float32."""
    from onnx import TensorProto, helper

    return helper.make_node("Cast", [source], [result], name=f"{result}.Cast", to=TensorProto.FLOAT)


def captured(node: Any) -> list[str]:
    """List the outer names that the graphs inside a node read."""
    found: list[str] = []
    for attribute in node.attribute:
        for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            for each in inner.node:
                found += [*each.input, *captured(each)]
            found += [value.name for value in inner.output]
    return found


def attributes(node: Any) -> dict[str, Any]:
    """Return a node's attributes as Python values, by name."""
    from onnx import helper

    return {each.name: helper.get_attribute_value(each) for each in node.attribute}
