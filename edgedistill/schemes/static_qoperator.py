"""Static int8, QOperator form: the integer kernels themselves stand in the graph. For encoders.

What `static_qdq` describes with QuantizeLinear and DequantizeLinear pairs is written as the kernels
that sessions make of them: MatMulIntegerToFloat with its bias inside, QGemm, QLinearConv,
QLinearAdd and the pools. No version of the session has to find them, and an encoder has a node less
for every bias. The arithmetic, and where it is exact, is that of `static_qdq`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgedistill.graph.simplify import drop_unread
from edgedistill.schemes import Calibration, _static
from edgedistill.schemes._shared import exact_on as exact_on
from edgedistill.schemes._shared import for_processors as for_processors
from edgedistill.schemes._static import Settings as Settings
from edgedistill.schemes._static import milder as milder
from edgedistill.schemes._static import quantizable as quantizable
from edgedistill.schemes._static import valid as valid

PRECISION = "int8"
CALIBRATES = True
PACKAGES = ("onnx", "onnxruntime", "numpy")

CONTRIB = "com.microsoft"
POOLS = {"GlobalAveragePool": "QLinearGlobalAveragePool", "AveragePool": "QLinearAveragePool"}


def spared(facts: Mapping[str, Any], target: Any) -> str | None:
    """Return why `auto` leaves the scheme to be named, or None."""
    return "sessions make the same of static_qdq" if facts.get("convolutional") else None


def word(facts: Mapping[str, Any]) -> str:
    """Return what rows of this scheme are called by."""
    return f"{PRECISION} static"


def apply(model: Any, calibration: Calibration | None, settings: Settings) -> Any:
    """Return the quantized `onnx.ModelProto`; `model` is not changed."""
    from onnx import helper

    made = _static.apply(model, calibration, settings)
    work = _Work(made.graph)
    nodes = [each for node in made.graph.node for each in work.rewritten(node)]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    drop_unread(made.graph)
    if CONTRIB not in {each.domain for each in made.opset_import}:
        made.opset_import.append(helper.make_opsetid(CONTRIB, 1))
    return made


class _Work:
    """A graph in QDQ form being rewritten."""

    def __init__(self, graph: Any) -> None:
        self._vectors = {each.name for each in graph.initializer if len(each.dims) == 1}
        self._given = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._outputs = {value.name for value in graph.output}
        self._gone: set[str] = set()  # results of nodes that went into another

    def rewritten(self, node: Any) -> list[Any]:
        """Return what stands for one node: itself, or the kernel that reads and gives integers."""
        if node.output and node.output[0] in self._gone:
            return []
        read = [self._dequantized(name) for name in node.input]
        if not node.input or read[0] is None:
            return [node]
        if node.op_type == "MatMul" and read[1] is not None:
            return [self._matmul(node, read)]
        given = self._quantized(node.output[0])
        if node.op_type == "Gemm" and read[1] is not None:
            return [self._gemm(node, read, given)]
        if given is None:
            return [node]
        if node.op_type == "Conv" and read[1] is not None:
            inputs = [*self._parts(read[0]), *self._parts(read[1]), *given.input[1:]]
            inputs += [read[2].input[0]] if len(read) > 2 and read[2] is not None else []
            return [self._kernel(node, "QLinearConv", inputs, given, domain="")]
        if node.op_type == "Add" and read[1] is not None:
            inputs = [*self._parts(read[0]), *self._parts(read[1]), *given.input[1:]]
            return [self._kernel(node, "QLinearAdd", inputs, given)]
        if node.op_type in POOLS:
            inputs = [*self._parts(read[0]), *given.input[1:]]
            return [self._kernel(node, POOLS[node.op_type], inputs, given, channels_last=0)]
        if node.op_type in _static.SAME_RANGE:
            node.input[0], node.output[0] = read[0].input[0], given.output[0]
            self._gone.add(given.output[0])
        return [node]

    def _matmul(self, node: Any, read: list[Any]) -> Any:
        """Make the product with its scales, and with the bias that alone reads it."""
        from onnx import helper

        (a, a_scale, a_zero), (b, b_scale, _) = self._parts(read[0]), self._parts(read[1])
        inputs, output = [a, b, a_scale, b_scale, a_zero], node.output[0]
        readers = self._readers.get(output, [])
        if len(readers) == 1 and readers[0].op_type == "Add" and output not in self._outputs:
            biases = [name for name in readers[0].input if name in self._vectors]
            if biases:
                inputs += ["", biases[0]]
                output = readers[0].output[0]
                self._gone.add(output)
        return helper.make_node(
            "MatMulIntegerToFloat", inputs, [output], name=node.name, domain=CONTRIB
        )

    def _gemm(self, node: Any, read: list[Any], given: Any) -> Any:
        """Make the product; of its floats where nothing quantizes the result."""
        bias = read[2].input[0] if len(read) > 2 and read[2] is not None else ""
        inputs = [*self._parts(read[0]), *self._parts(read[1]), bias]
        return self._kernel(
            node, "QGemm", [*inputs, *(given.input[1:] if given is not None else ())], given
        )

    def _kernel(
        self,
        node: Any,
        operator: str,
        inputs: list[str],
        given: Any,
        *,
        domain: str = CONTRIB,
        **more: Any,
    ) -> Any:
        """Make a kernel that gives what the QuantizeLinear behind a node gave."""
        from onnx import helper

        output = given.output[0] if given is not None else node.output[0]
        self._gone.add(output)
        made = helper.make_node(operator, inputs, [output], name=node.name, domain=domain, **more)
        skipped = ("beta",) if operator == "QGemm" else ()
        made.attribute.extend(each for each in node.attribute if each.name not in skipped)
        return made

    def _dequantized(self, name: str) -> Any:
        """Return the DequantizeLinear that gives a tensor, or None."""
        found = self._given.get(name)
        return found if found is not None and found.op_type == "DequantizeLinear" else None

    def _quantized(self, name: str) -> Any:
        """Return the QuantizeLinear that alone reads a tensor, or None."""
        readers = self._readers.get(name, [])
        alone = len(readers) == 1 and readers[0].op_type == "QuantizeLinear"
        return readers[0] if alone and name not in self._outputs else None

    def _parts(self, node: Any) -> tuple[str, str, str]:
        """Return the names of a dequantized tensor's integers, its scale and its zero point."""
        return node.input[0], node.input[1], node.input[2]
