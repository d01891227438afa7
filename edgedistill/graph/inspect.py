"""Describe a graph: what it is made of, what it takes and gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgedistill.errors import ModelError, first_line
from edgedistill.graph import clean, fuse


def read(path: Path) -> Any:
    """Load an .onnx file that is complete in itself. Raises `ModelError`."""
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise ModelError(f"graph '{path}' does not exist") from None
    except Exception as error:  # protobuf's DecodeError has no public home
        raise ModelError(f"'{path.name}' is no ONNX graph, or a truncated one") from error
    for graph in clean.graphs(model.graph):
        for tensor in graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                return _with_external(path)
    if not model.graph.node:
        raise ModelError(f"'{path.name}' is no ONNX graph: it has no nodes")
    return model


def describe(path: Path, session: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Describe a graph file as small JSON.

    Keys: nodes, operators {type: count}, fusions {type: count} that the session makes, opset, ir,
    domains, inputs and outputs {name: {type, shape}}, parameters (numbers in weights), bytes.
    """
    model = read(path)
    operators = Counter(
        f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        for graph in clean.graphs(model.graph)
        for node in graph.node
    )
    domains = {each.domain: each.version for each in model.opset_import}
    return {
        "nodes": sum(operators.values()),
        "operators": dict(sorted(operators.items())),
        "fusions": fuse.count(path, session),
        "opset": domains.pop("", None),
        "ir": model.ir_version,
        "domains": domains,
        "inputs": {value.name: _kind(value) for value in real_inputs(model)},
        "outputs": {value.name: _kind(value) for value in model.graph.output},
        "parameters": parameters(model),
        "bytes": path.stat().st_size,
    }


def real_inputs(model: Any) -> list[Any]:
    """Return the inputs that are fed: old graphs list their weights as inputs too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def parameters(model: Any) -> int:
    """Count the numbers in weights: floats and 8-bit integers, no scales' shapes or indices."""
    from math import prod

    from onnx import TensorProto

    kinds = {
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.BFLOAT16,
        TensorProto.DOUBLE,
        TensorProto.INT8,
        TensorProto.UINT8,
        TensorProto.INT4,
        TensorProto.UINT4,
    }
    return sum(
        prod(tensor.dims)
        for graph in clean.graphs(model.graph)
        for tensor in graph.initializer
        if tensor.data_type in kinds
    )


def _kind(value: Any) -> dict[str, Any]:
    import onnx

    told = value.type.tensor_type
    shape = [each.dim_param or each.dim_value for each in told.shape.dim]
    return {"type": onnx.TensorProto.DataType.Name(told.elem_type).lower(), "shape": shape}


def _with_external(path: Path) -> Any:
    import onnx

    try:
        return onnx.load(path)
    except Exception as error:  # onnx raises several kinds here, each about the outside file
        first = first_line(error)
        raise ModelError(
            f"'{path.name}' keeps weights in another file, which can't be read "
            f"(missing, a link, or outside its folder): {first}"
        ) from error
