"""Static int8: activations in ranges that training rows showed. For convolutional networks.

The graph stays in floats with QuantizeLinear and DequantizeLinear around what is to be int8; every
session since onnxruntime 1.15 turns that into its integer kernels. Weights are signed and
symmetric, one scale per output channel; activations are unsigned with a zero point, which all
kernels on x86 and arm64 take; ranges are the extremes over the calibration rows. A Relu or Clip
behind a product disappears into the range. The last product's result stays float: logits keep
their steps.

On x86 without VNNI the product of u8 and s8 pairs is summed in 16 bits and saturates; weights of
seven bits never do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgedistill.errors import ModelError
from edgedistill.graph import calibrate
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
CALIBRATES = True
PACKAGES = ("onnx", "onnxruntime", "numpy")

EXACT_AT_SEVEN_BITS = ("arm64", "arm64+dotprod", "x86-64+avx2", "x86-64+vnni")
EXACT_AT_FULL_RANGE = ("arm64", "arm64+dotprod", "x86-64+vnni")
PRODUCTS = ("Conv", "Gemm")
CLIPS = ("Relu", "Clip")
SAME_RANGE = ("MaxPool", "Flatten", "Reshape", "Squeeze", "Transpose")  # values are only moved
OWN_RANGE = ("GlobalAveragePool", "AveragePool")
LARGEST_BIAS = 2.0**30  # of an int32, with a bit to spare for the sum
SMALLEST_SCALE = 1e-8  # of a channel without weights


@dataclass(frozen=True)
class Settings:
    reduce_range: bool = setting(
        False, "seven-bit weights: exact on x86 without VNNI, at nearly no cost in score"
    )


def valid(facts: Mapping[str, Any], target: Any, processor: str) -> str | None:
    """Return why the scheme can't serve, or None."""
    if not facts.get("convolutional"):
        return "static int8 of transformers is slower than dynamic and costs more score"
    if processor not in EXACT_AT_SEVEN_BITS:
        known = ", ".join(EXACT_AT_SEVEN_BITS)
        return f"its arithmetic is not proven exact on '{processor}' (proven: {known})"
    operators = facts.get("operators")
    if operators is not None and not set(PRODUCTS) & set(operators):
        return "the graph has no convolution to quantize"
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

    if calibration is None:
        raise ModelError("static int8 needs calibration rows")
    need_opset(model, 13, "static int8")
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made.graph.ClearField("value_info")
    plan = _Plan(made.graph)
    seen = calibrate.ranges(model, plan.calibrated, calibration())
    work = _Work(made.graph, plan, seen, SEVEN_BITS if settings.reduce_range else FULL)
    nodes: list[Any] = list(work.entering())
    for node in made.graph.node:
        nodes += work.rewritten(node)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    drop_unread(made.graph)
    return made


class _Plan:
    """Which tensors become int8, and which of them share a range."""

    def __init__(self, graph: Any) -> None:
        self.constants = Constants(graph)
        self._readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._outputs = {value.name for value in graph.output}
        self.folded: dict[str, str] = {}  # result of a product or sum -> result of its Relu
        self.products: set[str] = set()  # by result
        self.range_of: dict[str, str] = {}  # quantized tensor -> the tensor whose range it has
        for node in graph.node:
            self._add(node)
        self.calibrated = sorted(set(self.range_of.values()))

    def _add(self, node: Any) -> None:
        output = node.output[0]
        if node.op_type in PRODUCTS and self._is_product(node):
            self.products.add(output)
            self._quantize(node.input[0])
            if output not in self._outputs:
                self._quantize(self._after_clip(output))
        elif node.op_type == "Add" and all(name in self.range_of for name in node.input):
            self._quantize(self._after_clip(output))
        elif node.op_type in OWN_RANGE and node.input[0] in self.range_of:
            self._quantize(output)
        elif (
            node.op_type in SAME_RANGE
            and node.input[0] in self.range_of
            and output not in self._outputs
        ):
            self.range_of[output] = self.range_of[node.input[0]]

    def _quantize(self, name: str) -> None:
        if name not in self._outputs:
            self.range_of.setdefault(name, name)

    def _is_product(self, node: Any) -> bool:
        """Say whether the weights are constant, and the bias too."""
        told = attributes(node)
        if told.get("alpha", 1.0) != 1.0 or told.get("beta", 1.0) != 1.0 or told.get("transA"):
            return False
        bias = node.input[2] if len(node.input) > 2 else ""
        ranks = (2,) if node.op_type == "Gemm" else (3, 4, 5)
        return any(
            self.constants.floats(node.input[1], rank=rank) is not None for rank in ranks
        ) and (not bias or self.constants.floats(bias, rank=1) is not None)

    def _after_clip(self, name: str) -> str:
        """Return the result of the Relu that alone reads a tensor, else the tensor."""
        readers = self._readers.get(name, [])
        if len(readers) != 1 or readers[0].op_type not in CLIPS or name in self._outputs:
            return name
        if readers[0].op_type == "Clip" and not self._clips_from_zero(readers[0]):
            return name
        self.folded[name] = readers[0].output[0]
        return readers[0].output[0]

    def _clips_from_zero(self, node: Any) -> bool:
        low = self.constants.floats(node.input[1], rank=0) if len(node.input) > 1 else None
        return low is not None and float(low) == 0.0


class _Work:
    """One graph being quantized by its plan and the ranges that were seen."""

    def __init__(
        self, graph: Any, plan: _Plan, seen: Mapping[str, tuple[float, float]], largest: int
    ) -> None:
        self._graph = graph
        self._plan = plan
        self._largest = largest
        self._additions = Additions(graph)
        self._steps = {name: _step(*seen[name]) for name in plan.calibrated}
        self._clips = set(plan.folded.values())

    def entering(self) -> list[Any]:
        """Quantize those inputs of the graph that the plan names."""
        names = [value.name for value in self._graph.input if value.name in self._plan.range_of]
        return [node for name in names for node in self._pair(name, name)]

    def rewritten(self, node: Any) -> list[Any]:
        """Return the nodes that stand for one node: its inputs int8, its result int8."""
        output = node.output[0]
        if output in self._clips:
            return []  # the range begins at 0, so quantizing clips
        source = node.input[0] if node.input else ""
        for index, name in enumerate(node.input):
            if name in self._plan.range_of:
                node.input[index] = f"{name}.real"
        before = self._weights(node, source) if output in self._plan.products else []
        result = self._plan.folded.get(output, output)
        if result not in self._plan.range_of:
            return [*before, node]
        node.output[0] = f"{result}.float"
        return [*before, node, *self._pair(f"{result}.float", result)]

    def _pair(self, source: str, name: str) -> list[Any]:
        """Make the QuantizeLinear and DequantizeLinear of a tensor; "<name>.real" is its result."""
        from onnx import helper

        ranged = self._plan.range_of[name]
        scale, zero = self._steps[ranged]
        told = [
            self._additions.add(f"{ranged}.scale", np.array(scale, dtype=np.float32)),
            self._additions.add(f"{ranged}.zero_point", np.array(zero, dtype=np.uint8)),
        ]
        made = [f"{name}.uint8", f"{name}.real"]
        return [
            helper.make_node("QuantizeLinear", [source, *told], made[:1], name=f"{name}.Quantize"),
            helper.make_node(
                "DequantizeLinear", [made[0], *told], made[1:], name=f"{name}.Dequantize"
            ),
        ]

    def _weights(self, node: Any, source: str) -> list[Any]:
        """Quantize the weights and the bias of a product; its inputs are changed in place."""
        stem = node.output[0]  # weights may be shared, scales of biases can't be
        rank = 2 if node.op_type == "Gemm" else None
        weights = self._constant(node.input[1], rank)
        axis = 1 if node.op_type == "Gemm" and not attributes(node).get("transB") else 0
        bias = self._constant(node.input[2], 1) if len(node.input) > 2 and node.input[2] else None
        step = self._steps[self._plan.range_of[source]][0]
        values, scales = symmetric(
            weights, axis=axis, largest=self._largest, floor=_floor(bias, step, weights, axis)
        )
        nodes = [self._dequantize(f"{stem}.weight", values, scales, axis)]
        node.input[1] = nodes[0].output[0]
        if bias is not None:
            steps = (scales * np.float32(step)).astype(np.float32)
            whole = np.rint(bias.astype(np.float64) / steps)
            limit = 2.0**31 - 1
            whole = np.clip(whole, -limit, limit).astype(np.int32)
            nodes.append(self._dequantize(f"{stem}.bias", whole, steps, 0))
            node.input[2] = nodes[1].output[0]
        return nodes

    def _constant(self, name: str, rank: int | None) -> np.ndarray:
        for each in (rank,) if rank else (3, 4, 5):
            found = self._plan.constants.floats(name, rank=each)
            if found is not None:
                return found
        raise ModelError(f"'{name}' is no constant of floats")

    def _dequantize(self, stem: str, values: np.ndarray, scales: np.ndarray, axis: int) -> Any:
        from onnx import helper

        inputs = [
            self._additions.add(f"{stem}.{values.dtype}", values),
            self._additions.add(f"{stem}.scale", scales),
            self._additions.add(f"{stem}.zero_point", np.zeros(len(scales), dtype=values.dtype)),
        ]
        return helper.make_node(
            "DequantizeLinear", inputs, [f"{stem}.real"], name=f"{stem}.Dequantize", axis=axis
        )


def _step(low: float, high: float) -> tuple[float, int]:
    """Return scale and zero point (uint8) of a range, which always holds 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / 255)) or 1.0
    return scale, int(np.clip(np.rint(-low / scale), 0, 255))


def _floor(bias: np.ndarray | None, step: float, weights: np.ndarray, axis: int) -> np.ndarray:
    """Return the smallest scale of each channel: its bias must fit int32 at scale x step."""
    channels = weights.shape[axis]
    least = np.full(channels, SMALLEST_SCALE)
    if bias is None:
        return least
    return np.maximum(least, np.abs(bias) / (step * LARGEST_BIAS))
