"""What the static schemes share: which tensors become int8, and the graph around them (QDQ form).

The graph stays in floats with QuantizeLinear and DequantizeLinear around what is to be int8; every
session since onnxruntime 1.15 turns that into its integer kernels. Weights are signed and
symmetric, one scale per output channel; activations are unsigned with a zero point, which all
kernels on x86 and arm64 take. Between convolutions tensors stay int8, and a Relu or Clip behind a
product disappears into the range. Of an encoder only what a product with constant weights reads is
rounded: LayerNorm, GELU, softmax, both products of attention and the sums along the residual path
read and write floats, and logits keep their steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgedistill.errors import ModelError
from edgedistill.graph import calibrate, clean
from edgedistill.graph.simplify import MASKED, drop_unread
from edgedistill.graph.weights import Additions, Constants, attributes, need_opset, symmetric
from edgedistill.schemes import Calibration, _shared, _smooth, _tables
from edgedistill.schemes._shared import Int8
from edgedistill.settings import setting

PRODUCTS = ("Conv", "Gemm", "MatMul")
CLIPS = ("Relu", "Clip")
SAME_RANGE = ("MaxPool", "Flatten", "Reshape", "Squeeze", "Transpose")  # values are only moved
OWN_RANGE = ("GlobalAveragePool", "AveragePool")
LARGEST_BIAS = 2.0**30  # of an int32, with a bit to spare for the sum
SMALLEST_SCALE = 1e-8  # of a channel without weights
BALANCED = 0.5  # as SmoothQuant has it
LOWEST = -1e30  # a mask's constant is below it: the lowest float32, or -infinity


@dataclass(frozen=True)
class Settings(Int8):
    """What a static scheme can be told."""

    method: str = setting(
        "minmax", "how the ranges of activations are found", choices=calibrate.METHODS
    )
    percentile: float = setting(
        99.99, "values that a range holds, in percent (method percentile)", low=50, high=100
    )
    smooth: float = setting(
        0.0, "share of outliers moved into weights (SmoothQuant); 0: none", low=0, high=1
    )


def valid(facts: Mapping[str, Any], target: Any, processor: str) -> str | None:
    """Return why a static scheme can't serve, or None."""
    operators = facts.get("operators")
    if operators is not None and not set(PRODUCTS) & set(operators):
        return "the graph has no convolution or matrix product to quantize"
    return _shared.unproven(processor)


def quantizable(model: Any, settings: Settings) -> list[str]:
    """Name the results of the operators that can be int8, in the graph's order."""
    return _shared.quantizable(model, settings, is_product)


def milder(made: Any, settings: Settings) -> Sequence[Mapping[str, Any]]:
    """Return changes that may cost less of the score.

    After the tables: ranges that leave out the farthest values, then outliers moved into weights,
    where activations have them (of a network of convolutions that changes nothing).
    """
    ranges = [{"method": "percentile"}] if settings.method == "minmax" else []
    balanced = [] if settings.smooth else [{"smooth": BALANCED}]
    return [*_shared.milder(made, settings), *ranges, *balanced]


def apply(model: Any, calibration: Calibration | None, settings: Settings) -> Any:
    """Return the quantized `onnx.ModelProto` in QDQ form; `model` is not changed."""
    import onnx

    if calibration is None:
        raise ModelError("static int8 needs calibration rows")
    need_opset(model, 13, "static int8")
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made.graph.ClearField("value_info")
    clean.hoist(made)
    clamp_masks(made.graph)
    if settings.smooth:
        _smooth.smooth(made, calibration, settings.smooth, leave=settings.floats)
    plan = _Plan(made.graph, settings.floats)
    seen = calibrate.chosen(
        made, plan.calibrated, calibration, method=settings.method, percentile=settings.percentile
    )
    work = _Work(made.graph, plan, seen, settings)
    nodes: list[Any] = list(work.entering())
    for node in made.graph.node:
        nodes += work.rewritten(node)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    drop_unread(made.graph)
    return made


def clamp_masks(graph: Any) -> None:
    """Raise lone constants near the lowest float to -10000, in place.

    They stand for "masked" before a softmax, where both give exactly 0; a range that holds them
    leaves one step for all the rest (and a row that is masked whole gives no number at -infinity).
    """
    from onnx import TensorProto, numpy_helper

    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims, dtype=int) != 1:
            continue
        value = numpy_helper.to_array(tensor)
        if float(value.reshape(())) < LOWEST:
            tensor.CopyFrom(numpy_helper.from_array(np.full_like(value, MASKED), tensor.name))


def is_product(constants: Constants, node: Any) -> bool:
    """Say whether a node is a product whose weights are constant, and its bias too."""
    bias = node.input[2] if len(node.input) > 2 else ""
    if bias and constants.floats(bias, rank=1) is None:
        return False
    if node.op_type != "Conv":
        return _shared.is_product(constants, node)
    return any(constants.floats(node.input[1], rank=rank) is not None for rank in (3, 4, 5))


class _Plan:
    """Which tensors become int8, and which of them share a range."""

    def __init__(self, graph: Any, floats: tuple[str, ...]) -> None:
        self.constants = Constants(graph)
        self.floats = {*floats}
        self._readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._outputs = {value.name for value in graph.output}
        self.folded: dict[str, str] = {}  # result of a product or sum -> result of its Relu
        self.products: set[str] = set()  # by result
        self.whole: set[str] = set()  # results of nodes that read int8
        self.inside: set[str] = set()  # int8 results: whoever reads them reads int8
        self.range_of: dict[str, str] = {}  # quantized tensor -> the tensor whose range it has
        for node in graph.node:
            self._add(node)
        self.calibrated = sorted(set(self.range_of.values()))

    def _add(self, node: Any) -> None:
        output = node.output[0]
        if output in self.floats:
            return
        if node.op_type in PRODUCTS and is_product(self.constants, node):
            self.products.add(output)
            self.whole.add(output)
            self.range_of.setdefault(node.input[0], node.input[0])
            if output not in self._outputs and self._goes_on(node):
                self._keep(self._after_clip(output))
        elif (
            node.op_type == "Add"
            and all(name in self.range_of for name in node.input)
            and any(name in self.inside for name in node.input)
        ):
            self.whole.add(output)
            self._keep(self._after_clip(output))
        elif node.op_type in OWN_RANGE and node.input[0] in self.inside:
            self.whole.add(output)
            self._keep(output)
        elif (
            node.op_type in SAME_RANGE
            and node.input[0] in self.inside
            and output not in self._outputs
        ):
            self.whole.add(output)
            self.inside.add(output)
            self.range_of[output] = self.range_of[node.input[0]]

    def _keep(self, name: str) -> None:
        if name not in self._outputs:
            self.inside.add(name)
            self.range_of.setdefault(name, name)

    def _goes_on(self, node: Any) -> bool:
        """Say whether a product's result is int8: a Conv's always, others' where products read it.

        The kernels of MatMul and Gemm can give floats, which LayerNorm, GELU and biases want.
        """
        if node.op_type == "Conv":
            return True
        found = self._readers.get(node.output[0], [])
        if len(found) == 1 and found[0].op_type in CLIPS:
            found = self._readers.get(found[0].output[0], [])
        return node.op_type == "Gemm" and any(each.op_type in PRODUCTS for each in found)

    def _after_clip(self, name: str) -> str:
        """Return the result of the Relu that alone reads a tensor, else the tensor."""
        readers = self._readers.get(name, [])
        if len(readers) != 1 or readers[0].op_type not in CLIPS or name in self._outputs:
            return name
        if readers[0].output[0] in self._outputs:  # it has to be there as it is
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
        self, graph: Any, plan: _Plan, seen: Mapping[str, tuple[float, float]], settings: Settings
    ) -> None:
        self._graph = graph
        self._plan = plan
        self._settings = settings
        self._additions = Additions(graph)
        self._steps = {name: step(*seen[name]) for name in plan.calibrated}
        self._clips = set(plan.folded.values())
        self._made: set[str] = set()

    def entering(self) -> list[Any]:
        """Quantize those inputs of the graph that the plan names."""
        names = [value.name for value in self._graph.input if value.name in self._plan.range_of]
        return [node for name in names for node in self._pair(name, name)]

    def rewritten(self, node: Any) -> list[Any]:
        """Return the nodes that stand for one node: its inputs int8, its result int8."""
        output = node.output[0]
        if output in self._clips:
            return []  # the range begins at 0, so quantizing clips
        constants = self._plan.constants
        rows = self._settings.tables and output not in self._plan.floats
        if rows and _tables.is_lookup(constants, node):
            told = {"precision": self._settings.embeddings}
            found = _tables.lookup(constants, self._additions, node, **told)
            return [*found, *self._entered(output)]
        source = node.input[0] if node.input else ""
        whole = self._plan.inside | (
            {*self._plan.range_of} if output in self._plan.whole else set()
        )
        for index, name in enumerate(node.input):
            if name in whole:
                node.input[index] = f"{name}.real"
        before = self._weights(node, source) if output in self._plan.products else []
        result = self._plan.folded.get(output, output)
        if result in self._plan.inside:
            node.output[0] = f"{result}.float"
            return [*before, node, *self._pair(f"{result}.float", result)]
        entered = [made for name in node.output for made in self._entered(name)]
        return [*before, node, *entered]

    def _entered(self, name: str) -> list[Any]:
        """Quantize a float tensor for the products that read it; others read the floats."""
        return self._pair(name, name) if name in self._plan.range_of else []

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
        weights = self._constant(node.input[1], None if node.op_type == "Conv" else 2)
        axis = 1 if node.op_type != "Conv" and not attributes(node).get("transB") else 0
        bias = self._constant(node.input[2], 1) if len(node.input) > 2 and node.input[2] else None
        scale = self._steps[self._plan.range_of[source]][0]
        values, scales = symmetric(
            weights,
            axis=axis,
            largest=self._settings.largest,
            floor=_floor(bias, scale, weights, axis),
        )
        nodes = [self._dequantize(f"{stem}.weight", values, scales, axis)]
        node.input[1] = nodes[0].output[0]
        if bias is not None:
            steps = (scales * np.float32(scale)).astype(np.float32)
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


def step(low: float, high: float) -> tuple[float, int]:
    """Return scale and zero point (uint8) of a range, which always holds 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / 255)) or 1.0
    return scale, int(np.clip(np.rint(-low / scale), 0, 255))


def _floor(bias: np.ndarray | None, scale: float, weights: np.ndarray, axis: int) -> np.ndarray:
    """Return the smallest scale of each channel: its bias must fit int32 at scale x step."""
    channels = weights.shape[axis]
    least = np.full(channels, SMALLEST_SCALE)
    if bias is None:
        return least
    return np.maximum(least, np.abs(bias) / (scale * LARGEST_BIAS))
