"""Clean a graph: what ships holds no path, no stack trace, no domain or weight bit for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill.errors import ExportError, first_line

LARGEST = 2**31 - 2**20  # protobuf's limit on one message, with some room
TINY = 1e-30  # weights below it become denormal products, which slow kernels many times


def clean(model: Any, *, opset: int | None = None, ir: int | None = None) -> Any:
    """Strip what a run does not need from an `onnx.ModelProto`, in place; returns it.

    Removes doc strings, metadata, producer, inferred shapes and unused opset domains; makes
    Constant nodes initializers; sets the IR version; flushes weights below 1e-30 to zero. Raises
    `ExportError` where the graph's opset is not the one told (an exporter may keep its own with no
    more than a warning).
    """
    strip(model)
    hoist(model)
    _prune_domains(model)
    flush(model)
    found = {each.domain: each.version for each in model.opset_import}.get("")
    if opset is not None and found != opset:
        raise ExportError(f"the exporter gave opset {found}, not {opset} as it was told")
    if ir is not None:
        model.ir_version = ir
    return model


def strip(model: Any) -> None:
    """Remove doc strings, metadata, producer and inferred shapes, in place."""
    for name in ("doc_string", "producer_name", "producer_version", "domain", "metadata_props"):
        model.ClearField(name)
    model.ClearField("model_version")
    for graph in graphs(model.graph):
        graph.ClearField("doc_string")
        graph.ClearField("metadata_props")
        graph.ClearField("value_info")
        graph.ClearField("quantization_annotation")
        for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
            item.ClearField("doc_string")
            item.ClearField("metadata_props")


def hoist(model: Any) -> None:
    """Make the outer graph's Constant nodes initializers, in place, as every session does."""
    graph = model.graph
    kept = []
    for node in graph.node:
        tensors = [each.t for each in node.attribute if each.name == "value"]
        if node.op_type != "Constant" or node.domain or not tensors:
            kept.append(node)
            continue
        graph.initializer.append(tensors[0])
        graph.initializer[-1].name = node.output[0]
    del graph.node[:]
    graph.node.extend(kept)


def flush(model: Any) -> None:
    """Set float weights below 1e-30 to zero, in place: denormals slow kernels."""
    from onnx import TensorProto, numpy_helper

    for graph in graphs(model.graph):
        for tensor in graph.initializer:
            if tensor.data_type != TensorProto.FLOAT:
                continue
            values = numpy_helper.to_array(tensor)
            tiny = (np.abs(values) < TINY) & (values != 0)
            if tiny.any():
                tensor.CopyFrom(
                    numpy_helper.from_array(np.where(tiny, np.float32(0), values), tensor.name)
                )


def narrow(model: Any) -> None:
    """Make the int64 inputs int32, in place: kinder to JavaScript.

    What takes either (an index of Gather, Shape) reads them as they are; before all else is a Cast.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    casts = []
    for value in graph.input:
        if value.type.tensor_type.elem_type != TensorProto.INT64:
            continue
        value.type.tensor_type.elem_type = TensorProto.INT32
        wide, read = f"{value.name}.int64", False
        for node in graph.node:
            for index, name in enumerate(node.input):
                either = (node.op_type, index) in (("Gather", 1), ("Shape", 0))
                if name == value.name and not either:
                    node.input[index], read = wide, True
        if read:
            casts.append(
                helper.make_node(
                    "Cast", [value.name], [wide], name=f"{wide}.Cast", to=TensorProto.INT64
                )
            )
    for index, cast in enumerate(casts):
        graph.node.insert(index, cast)


def fix(model: Any, dimensions: dict[str, int]) -> None:
    """Give named dimensions of inputs and outputs a fixed size, in place ("batch", "length")."""
    for value in (*model.graph.input, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in dimensions:
                dimension.dim_value = dimensions[dimension.dim_param]


def serialize(model: Any) -> bytes:
    """Return a graph's bytes, the same for the same graph. Raises `ExportError` at 2 GB."""
    if model.ByteSize() > LARGEST:
        raise ExportError("the graph is larger than 2 GB, which does not fit one .onnx file")
    return model.SerializeToString(deterministic=True)


def save(model: Any, path: Path) -> None:
    """Check a graph and write it as one file."""
    import onnx

    data = serialize(model)
    try:
        onnx.checker.check_model(data)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"{path.name} is no valid graph: {first_line(error)}") from error
    path.write_bytes(data)


def graphs(graph: Any) -> Iterator[Any]:
    """Yield a graph and all graphs inside its nodes (branches, loops)."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(
                attribute.graphs
            ):
                yield from graphs(inner)


def _prune_domains(model: Any) -> None:
    used = {node.domain for graph in graphs(model.graph) for node in graph.node} | {""}
    used |= {node.domain for function in model.functions for node in function.node}
    kept = sorted((each.domain, each.version) for each in model.opset_import if each.domain in used)
    del model.opset_import[:]
    for domain, version in kept:
        entry = model.opset_import.add()
        entry.domain, entry.version = domain, version
