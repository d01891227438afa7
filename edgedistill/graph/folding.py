"""Bring a graph's weights into the form in which schemes look for them: folded, turned, named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from edgedistill.graph import clean
from edgedistill.graph.simplify import drop_unread
from edgedistill.graph.weights import Additions, Constants, attributes, captured

FOLDED = ("Transpose", "Identity")  # of weights: done once


def fold_constants(graph: Any) -> None:
    """Compute what is made of weights alone, in place: schemes look for weights as they are fed.

    Turned or handed on (not cast: a file of halves stays one); and a bias of Gemm that is one row
    becomes that row.
    """
    from onnx import numpy_helper

    known = {tensor.name: tensor for tensor in graph.initializer}
    ends = {value.name for value in graph.output}
    kept = []
    for node in graph.node:
        source = known.get(node.input[0]) if node.input else None
        if node.op_type == "Gemm" and len(node.input) > 2:
            bias = known.get(node.input[2])
            if bias is not None and len(bias.dims) == 2 and bias.dims[0] == 1:
                name = free(graph, f"{bias.name}.row")
                flat = numpy_helper.from_array(numpy_helper.to_array(bias)[0], name)
                node.input[2] = flat.name
                known[flat.name] = flat
        if source is None or node.op_type not in FOLDED or node.output[0] in ends:
            kept.append(node)
            continue
        values = numpy_helper.to_array(source)
        if node.op_type == "Transpose":
            values = np.ascontiguousarray(values.transpose(attributes(node).get("perm")))
        known[node.output[0]] = numpy_helper.from_array(values, node.output[0])
    if len(kept) < len(graph.node) or len(known) > len(graph.initializer):
        kept = [type(node).FromString(node.SerializeToString()) for node in kept]
        tensors = [type(each).FromString(each.SerializeToString()) for each in known.values()]
        del graph.node[:]
        graph.node.extend(kept)
        del graph.initializer[:]
        graph.initializer.extend(tensors)
        drop_unread(graph)


def fold_norms(graph: Any) -> list[str]:
    """Fold each BatchNormalization into the convolution before it, in place; says so in words.

    A session does so by itself, but not once QuantizeLinear stands between the two.
    """
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in (*node.input, *captured(node)):
            readers.setdefault(name, []).append(node)
    constants, additions = Constants(graph), Additions(graph)
    ends = {value.name for value in graph.output}
    folded: set[str] = set()
    for node in graph.node:
        if node.op_type != "Conv" or node.output[0] in ends:
            continue
        (norm, *more) = readers.get(node.output[0], [None])
        if norm is None or more or norm.op_type != "BatchNormalization":
            continue
        found = _folded(node, norm, constants)
        if found is None:
            continue
        stem = norm.output[0]
        names = [
            additions.add(free(graph, f"{stem}.{what}"), values)
            for what, values in zip(("weight", "bias"), found, strict=True)
        ]
        source = node.input[0]
        del node.input[:]
        node.input.extend([source, *names])
        node.output[0] = stem
        folded.add(stem)
    if not folded:
        return []
    norms = ("BatchNormalization",)
    kept = [n for n in graph.node if n.op_type not in norms or n.output[0] not in folded]
    del graph.node[:]
    graph.node.extend(kept)
    drop_unread(graph)
    some = f"{len(folded)} normalisation" + ("s" if len(folded) > 1 else "")
    return [f"{some} folded into the convolution before"]


def _folded(conv: Any, norm: Any, constants: Constants) -> Sequence[np.ndarray] | None:
    """Return weight and bias of a convolution with its normalisation; None where it can't be."""
    weight = next(
        (w for rank in (3, 4, 5) if (w := constants.floats(conv.input[1], rank)) is not None), None
    )
    told = [constants.floats(name, 1) for name in norm.input[1:5]]
    bias = constants.floats(conv.input[2], 1) if len(conv.input) > 2 and conv.input[2] else 0.0
    trains = attributes(norm).get("training_mode") or len([o for o in norm.output if o]) > 1
    if weight is None or bias is None or trains or any(each is None for each in told):
        return None
    scale, shift, mean, variance = (np.asarray(each, dtype=np.float64) for each in told)
    factor = scale / np.sqrt(variance + attributes(norm).get("epsilon", 1e-5))
    turned = factor.reshape(-1, *[1] * (weight.ndim - 1))
    moved = (np.asarray(bias, dtype=np.float64) - mean) * factor + shift
    return (weight * turned).astype(np.float32), moved.astype(np.float32)


def free(graph: Any, name: str) -> str:
    """Return a name that nothing in the graph has."""
    used = set(_names(graph))
    while name in used:
        name += "_"
    return name


def _names(graph: Any) -> Iterable[str]:
    for each in clean.graphs(graph):
        for node in each.node:
            yield from (*node.input, *node.output)
        yield from (tensor.name for tensor in each.initializer)
        yield from (value.name for value in (*each.input, *each.output))
