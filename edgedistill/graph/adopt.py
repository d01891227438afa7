"""Adopt a graph that another tool wrote: its inputs, output and weights in the form of ours.

What is computed stays as it is; `edgedistill.stages.adopt` holds it against the file as given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from edgedistill.errors import ExportError, first_line
from edgedistill.graph import clean, folding, inspect
from edgedistill.graph.simplify import drop_unread

OLDEST = 13  # the first opset in which weights can have a scale a channel
OUTPUT = "logits"
QUANTIZED = (
    "Integer",
    "QLinear",
    "QuantizeLinear",
    "NBits",
    "DynamicQuantize",
    "QAttention",
    "QGemm",
)
PRODUCTS = ("MatMul", "Gemm")
AXES = ("batch", "length")
FLOATS = ("float32", "float16", "float64")
INTEGERS = ("int64", "int32")
FED = (*FLOATS, *INTEGERS, "bool")  # what a Cast can make of what an encoder gives
SOFTMAX = "the Softmax at its end taken off: it is applied when an answer is made"
Change = tuple[str, dict[str, Any]]  # an operator of one input, and its attributes


@dataclass(frozen=True)
class Port:
    """An input or output of a graph: its type as numpy names it, its shape (0: any size)."""

    name: str
    type: str
    shape: tuple[int, ...] | None  # None: the graph does not say

    def __str__(self) -> str:
        sides = "" if self.shape is None else ", ".join(str(each or "?") for each in self.shape)
        return f"'{self.name[:60]}' {self.type}[{sides[:60]}]"


class Adopted(NamedTuple):
    """A graph in our form."""

    model: Any  # `onnx.ModelProto`
    changed: tuple[str, ...]  # in words
    softmax: bool  # one was taken off its end


def inputs_of(model: Any) -> list[Port]:
    """Return the inputs that are fed."""
    return [_port(value) for value in inspect.real_inputs(model)]


def outputs_of(model: Any) -> list[Port]:
    """Return the outputs, in order."""
    return [_port(value) for value in model.graph.output]


def as_given(
    model: Any, feed: Mapping[str, np.ndarray], inputs: Mapping[str, str], *, channels_last: bool
) -> dict[str, np.ndarray]:
    """Return what our encoder made as the graph itself takes it: its names, types and axes."""
    types = {port.name: port.type for port in inputs_of(model)}
    made = {}
    for ours, theirs in inputs.items():
        value = feed[ours]
        if channels_last and value.ndim == 4:
            value = np.ascontiguousarray(value.transpose(0, 2, 3, 1))
        made[theirs] = value.astype(types[theirs])
    return made


def precision(model: Any) -> str:
    """Return "int8" where anything is quantized, "fp16" where most weights are, else "fp32"."""
    from onnx import TensorProto

    if any(word in name for name in operators(model) for word in QUANTIZED):
        return "int8"
    numbers = {TensorProto.FLOAT: 0, TensorProto.FLOAT16: 0}
    for graph in clean.graphs(model.graph):
        for tensor in graph.initializer:
            if tensor.data_type in numbers:
                numbers[tensor.data_type] += math.prod(tensor.dims)
    return "fp16" if numbers[TensorProto.FLOAT16] > numbers[TensorProto.FLOAT] else "fp32"


def operators(model: Any) -> dict[str, int]:
    """Count the operators, those inside of local functions among them."""
    found: dict[str, int] = {}
    bodies = [graph.node for graph in clean.graphs(model.graph)]
    for nodes in (*bodies, *(function.node for function in model.functions)):
        for node in nodes:
            found[node.op_type] = found.get(node.op_type, 0) + 1
    return found


def convolutional(found: Mapping[str, int]) -> bool:
    """Say whether the graph's products are convolutions: at least as many as of matrices."""
    products = sum(count for name, count in found.items() if name in PRODUCTS)
    return found.get("Conv", 0) >= max(1, products)


def saturates(model: Any) -> bool:
    """Say whether a quantized graph has products with signed weights of eight bits.

    On x86 without VNNI a product of unsigned and signed eight bits saturates; weights within
    seven bits never do, and tables from which rows are looked up are in no product.
    """
    from onnx import TensorProto, numpy_helper

    return any(
        tensor.data_type == TensorProto.INT8
        and len(tensor.dims) > 1
        and int(np.abs(numpy_helper.to_array(tensor).astype(np.int16)).max(initial=0)) > 64
        for tensor in _multiplied(model)
    )


def _multiplied(model: Any) -> Iterable[Any]:
    """Yield the constant tensors that anything reads but a lookup of rows."""
    bodies = [*clean.graphs(model.graph), *model.functions]
    read = {
        name
        for body in bodies
        for node in body.node
        for place, name in enumerate(node.input)
        if (node.op_type, place) != ("Gather", 0)
    }
    for body in bodies:
        for node in body.node:
            if node.op_type == "Constant" and read.intersection(node.output):
                yield from (each.t for each in node.attribute if each.name == "value")
    for graph in clean.graphs(model.graph):
        yield from (tensor for tensor in graph.initializer if tensor.name in read)


def adopted(
    model: Any,
    *,
    inputs: Mapping[str, str],
    output: str,
    channels_last: bool = False,
    opset: int = 17,
    ir: int = 8,
    integers: str = "int64",
) -> Adopted:
    """Return the graph in our form; `model` may change.

    `inputs`: the graph's own name of each input by ours; the others, if any, are an error of the
    caller's. Only `output` is kept, as (rows, labels) before a Softmax. An opset before 13 becomes
    `opset`; the IR version becomes `ir`, unless a type needs the newer one. Raises `ExportError`.
    """
    from onnx import TensorProto

    model, said = quantizable(model, opset=opset)
    graph = model.graph
    _one_output(graph, output, said)
    drop_unread(graph)
    taken = {ours: folding.free(graph, f"{ours}.given") for ours in inputs}
    for ours, theirs in inputs.items():  # all of them first: their names may be ours of others
        _rename(graph, theirs, taken[ours])
    for ours, inner in taken.items():
        value = next(each for each in graph.input if each.name == inner)
        _take(graph, value, ours, integers, channels_last)
    newer = any(
        tensor.data_type > TensorProto.BFLOAT16
        for each in clean.graphs(graph)
        for tensor in each.initializer
    )
    made = clean.clean(model, ir=max(ir, model.ir_version) if newer else ir)
    return Adopted(made, tuple(said), SOFTMAX in said)


def quantizable(model: Any, *, opset: int = 17) -> tuple[Any, list[str]]:
    """Return the same graph as schemes read it, and what was changed, in words; `model` may change.

    Local functions are inlined, constants are weights (turned where the graph does that in each
    run), weights are no inputs, normalisations are part of their convolutions, and an opset before
    13 becomes `opset`. Raises `ExportError`.
    """
    said: list[str] = []
    _one_domain(model)
    model = _raised(_inlined(model), opset, said)
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    fed = [value for value in graph.input if value.name not in weights]  # old files list weights
    if len(fed) < len(graph.input):  # a session can fold nothing of what might be fed
        said.append("weights that were listed as inputs made constants")
    del graph.input[:]
    graph.input.extend(fed)
    clean.hoist(model)
    folding.fold_constants(graph)
    said += folding.fold_norms(graph)
    return model, said


def _one_domain(model: Any) -> None:
    """Name the operators' own domain "", in place: "ai.onnx" is another name of it."""
    for body in (*clean.graphs(model.graph), *model.functions):
        for node in body.node:
            node.domain = "" if node.domain == "ai.onnx" else node.domain
    for told in (model, *model.functions):
        found = [(each.domain, each.version) for each in told.opset_import]
        versions = {("" if domain == "ai.onnx" else domain): version for domain, version in found}
        del told.opset_import[:]
        for domain, version in versions.items():
            told.opset_import.add(domain=domain, version=version)


def _port(value: Any) -> Port:
    import onnx

    told = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        return Port(value.name, str(value.type.WhichOneof("value") or "nothing"), None)
    try:
        kind = str(onnx.helper.tensor_dtype_to_np_dtype(told.elem_type))
    except (KeyError, ValueError, TypeError):
        kind = "unknown"
    return Port(value.name, kind, tuple(_sides(value)) if told.HasField("shape") else None)


def _sides(value: Any) -> list[int]:
    """Return the size of each dimension; 0 for any, which some tools write as -1."""
    return [max(0, each.dim_value) for each in value.type.tensor_type.shape.dim]


def _inlined(model: Any) -> Any:
    if not model.functions:
        return model
    from onnx import inliner

    return inliner.inline_local_functions(model)


def _raised(model: Any, opset: int, said: list[str]) -> Any:
    """Bring a graph of an old opset to a newer one, in which it can be quantized."""
    from onnx import version_converter

    old = {each.domain: each.version for each in model.opset_import}.get("", OLDEST)
    if old >= OLDEST:
        return model
    try:
        made = version_converter.convert_version(model, opset)
    except Exception as error:  # the converter raises whatever its C++ throws
        first = first_line(error)
        raise ExportError(
            f"the graph is of opset {old}, and onnx can't bring it to {opset} ({first[:200]}): "
            f"export it again with opset {opset}"
        ) from None
    said.append(f"opset {old} to {opset}")
    return made


def _one_output(graph: Any, output: str, said: list[str]) -> None:
    """Keep one output, named `logits`: float32 (rows, labels), without the Softmax at its end."""
    from onnx import TensorProto, helper

    value = next(each for each in graph.output if each.name == output)
    sides = _sides(value)
    kind = value.type.tensor_type.elem_type
    source = output
    last = next((node for node in graph.node if output in node.output), None)
    if last is not None and last.op_type == "Softmax":
        source = last.input[0]
        said.append(SOFTMAX)
    steps: list[Change] = [("Flatten", {"axis": 1})] if len(sides) != 2 else []
    steps += [("Cast", {"to": TensorProto.FLOAT})] if kind != TensorProto.FLOAT else []
    if source != OUTPUT or steps:
        inner = folding.free(graph, f"{OUTPUT}.inner")
        _rename(graph, OUTPUT, inner)
        source = inner if source == OUTPUT else source
    if steps:
        graph.node.extend(_chain(source, OUTPUT, steps))
    else:
        _rename(graph, source, OUTPUT)
    del graph.output[:]
    width = math.prod(sides[1:]) if sides[1:] and all(sides[1:]) else None
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [AXES[0], width]))


def _take(graph: Any, value: Any, ours: str, integers: str, channels_last: bool) -> None:
    """Give an input our name, type and order of axes; what the graph reads follows behind."""
    from onnx import TensorProto, helper

    kind = value.type.tensor_type.elem_type
    sides = _sides(value)
    pictures = len(sides) == 4
    wanted = TensorProto.FLOAT if pictures else TensorProto.DataType.Value(integers.upper())
    names = (AXES[0], "channels", "height", "width") if pictures else AXES
    steps: list[Change] = []
    if pictures and channels_last:
        sides = [sides[0], sides[3], sides[1], sides[2]]
        steps.append(("Transpose", {"perm": [0, 2, 3, 1]}))
    steps += [("Cast", {"to": kind})] if kind != wanted else []
    _rename(graph, ours, folding.free(graph, f"{ours}.inner"))
    if not steps:
        _rename(graph, value.name, ours)
    for index, node in enumerate(_chain(ours, value.name, steps)):
        graph.node.insert(index, node)
    shape = [side or names[axis] for axis, side in enumerate(sides)]
    value.CopyFrom(helper.make_tensor_value_info(ours, wanted, shape))


def _chain(source: str, result: str, steps: Sequence[Change]) -> list[Any]:
    """Make the nodes that lead from one tensor to another."""
    from onnx import helper

    made = []
    for index, (operator, told) in enumerate(steps):
        given = result if index == len(steps) - 1 else f"{result}.{operator}"
        name = f"{result}.{index}.{operator}"
        made.append(helper.make_node(operator, [source], [given], name=name, **told))
        source = given
    return made


def _rename(graph: Any, old: str, new: str) -> None:
    """Give a tensor another name wherever it stands, in the graphs inside too."""
    if old == new:
        return

    def renamed(names: Any) -> None:
        for index, name in enumerate(names):
            if name == old:
                names[index] = new

    for each in clean.graphs(graph):
        for node in each.node:
            renamed(node.input)
            renamed(node.output)
        for item in (*each.initializer, *each.input, *each.output):
            if item.name == old:
                item.name = new
