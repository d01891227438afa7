"""Compute only what the head reads: after the last attention most encoders read one token.

A classifier on the first token leaves the other rows of the last layer unread, and yet an exported
graph computes them: queries, the attention's output and the whole feed-forward block, over half of
a small model's arithmetic. Here every result of which only the first row is read is computed for
that row alone, as far back as it goes: rows are cut where all of them are needed for something
else (keys and values). What is read stays the same, so this is exact; where nothing is read by
the first row alone (mean pooling) nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgedistill.graph.simplify import Shapes, drop_unread
from edgedistill.graph.weights import Additions, attributes, captured

ALL = -1  # need: every row; else the axis of which the first index alone is read

ONE_BY_ONE = {"Abs", "Cast", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish",
              "Identity", "LeakyRelu", "Neg", "Relu", "Sigmoid", "Softplus", "Sqrt", "Tanh",
}  # fmt: skip
BROADCAST = {"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Where"}


def narrow(model: Any, shapes: Shapes) -> Any:
    """Compute of each tensor only the first row where no more is read, in place; returns the model.

    `shapes` are those of every tensor for feeds of unlike batches and lengths, as observed.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    wants: list[list[int | None]] = []  # of each node from the last, what it reads of each input
    need: dict[str, int] = {value.name: ALL for value in graph.output}
    for node in reversed(graph.node):
        found = _origin(node, constants)
        if found is None:
            wanted = {need.get(name, ALL) for name in node.output}
            only = wanted.pop() if len(wanted) == 1 else ALL
            found = _reads(node, only, shapes, constants) if only != ALL else None
            if found is None:
                need.update(dict.fromkeys(node.output, ALL))
                found = [ALL] * len(node.input)
        wants.append(found)
        need.update(dict.fromkeys(captured(node), ALL))
        for name, axis in zip(node.input, found, strict=True):
            if axis is not None:
                need[name] = axis if need.get(name, axis) == axis else ALL
    wants.reverse()
    if not any(
        node.op_type == "MatMul" and axes[0] not in (None, ALL)
        for node, axes in zip(graph.node, wants, strict=True)
    ):
        return model  # a cut is a node of its own, and would save none that counts
    made = {name for node in graph.node for name in node.output}
    additions = Additions(graph)
    nodes: list[Any] = []
    cut: set[str] = set()
    for node, axes in zip(graph.node, wants, strict=True):
        if _origin(node, constants) is None:
            if node.op_type == "Reshape" and axes[0] is not None and axes[0] != ALL:
                _keep_axis(node, axes[0], constants, additions)
            for place, axis in enumerate(axes):
                name = node.input[place]
                if axis is None or axis == ALL or (name in made and need[name] == axis):
                    continue
                node.input[place] = f"{name}.first_{axis}"
                if node.input[place] not in cut:
                    cut.add(node.input[place])
                    nodes.append(_slice(name, node.input[place], axis, additions))
        nodes.append(node)
    kept = [_copy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    drop_unread(graph)  # a target that named the number of rows has another in its place
    return model


def _copy(node: Any) -> Any:
    made = type(node)()
    made.CopyFrom(node)
    return made


def _keep_axis(node: Any, axis: int, constants: Mapping[str, Any], additions: Additions) -> None:
    """Let a Reshape take the axis as it comes (0), where its target names a number."""
    from onnx import numpy_helper

    target = numpy_helper.to_array(constants[node.input[1]]).copy()
    if target[axis] > 0:
        target[axis] = 0
        node.input[1] = additions.add(f"{node.output[0]}.shape_first", target)


def _origin(node: Any, constants: Mapping[str, Any]) -> list[int | None] | None:
    """Return what a node reads of its inputs if it takes the first row of one, else None."""
    if node.op_type != "Gather" or node.input[1] not in constants:
        return None
    from onnx import numpy_helper

    index = numpy_helper.to_array(constants[node.input[1]])
    axis = attributes(node).get("axis", 0)
    if index.size != 1 or int(index.reshape(())) != 0 or axis < 1 or node.input[0] in constants:
        return None
    return [axis, None]


def _reads(
    node: Any, axis: int, shapes: Shapes, constants: Mapping[str, Any]
) -> list[int | None] | None:
    """Return of each input the axis whose first index is enough for the first of the output's.

    None for an input that is read whole and stays (a weight, a dimension of one); None for the
    whole where the operator is not known to work row by row along that axis.
    """
    if node.domain or not all(name in shapes for name in node.output):
        return None
    rule = _RULES.get(node.op_type)
    return rule(node, axis, shapes, constants) if rule else None


def _broadcast(
    node: Any, axis: int, shapes: Shapes, constants: Mapping[str, Any]
) -> list[int | None] | None:
    """Elementwise, numpy's broadcasting: inputs of one along the axis stay."""
    out = shapes[node.output[0]]
    found: list[int | None] = []
    for name in node.input:
        if name in constants:
            shape = tuple(constants[name].dims)
            place = axis - (len(out[0]) - len(shape))
            if place >= 0 and shape[place] != 1:
                return None  # a constant with a row each: it would have to be cut by itself
            found.append(None)
            continue
        if name not in shapes:
            return None
        place = axis - (len(out[0]) - len(shapes[name][0]))
        if place < 0 or all(shape[place] == 1 for shape in shapes[name]):
            found.append(None)
        elif all(a[place] == b[axis] for a, b in zip(shapes[name], out, strict=True)):
            found.append(place)
        else:
            return None
    return found


def _one_by_one(
    node: Any, axis: int, shapes: Shapes, constants: Mapping[str, Any]
) -> list[int | None] | None:
    return [axis, *[None] * (len(node.input) - 1)]


def _along_last(
    node: Any, axis: int, shapes: Shapes, constants: Mapping[str, Any]
) -> list[int | None] | None:
    """Softmax, LayerNormalization: rows by themselves where they work along the last axis."""
    rank = len(shapes[node.output[0]][0])
    along = attributes(node).get("axis", -1) % rank
    return [axis, *[None] * (len(node.input) - 1)] if along == rank - 1 > axis else None


def _product(
    node: Any, axis: int, shapes: Shapes, constants: Mapping[str, Any]
) -> list[int | None] | None:
    """MatMul: the first row of the result needs the left matrix' first row."""
    rank = len(shapes[node.output[0]][0])
    left = shapes.get(node.input[0])
    if axis != rank - 2 or left is None or len(left[0]) != rank:
        return None
    return [axis, None if node.input[1] in constants else ALL]


def _transpose(
    node: Any, axis: int, shapes: Shapes, constants: Mapping[str, Any]
) -> list[int | None] | None:
    rank = len(shapes[node.output[0]][0])
    return [int(attributes(node).get("perm", list(range(rank))[::-1])[axis])]


def _reshape(
    node: Any, axis: int, shapes: Shapes, constants: Mapping[str, Any]
) -> list[int | None] | None:
    """Reshape to a constant target that leaves the axis and those before it as they are."""
    source, out = shapes.get(node.input[0]), shapes[node.output[0]]
    if source is None or node.input[1] not in constants:
        return None
    same = all(a[: axis + 1] == b[: axis + 1] for a, b in zip(source, out, strict=True))
    return [axis, None] if same and not attributes(node).get("allowzero") else None


_Rule = Callable[[Any, int, Shapes, Mapping[str, Any]], list[int | None] | None]
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(ONE_BY_ONE, _one_by_one),
    **dict.fromkeys(BROADCAST, _broadcast),
    "Softmax": _along_last,
    "LayerNormalization": _along_last,
    "MatMul": _product,
    "Transpose": _transpose,
    "Reshape": _reshape,
}


def _slice(source: str, to: str, axis: int, additions: Additions) -> Any:
    from onnx import helper

    ends = [
        additions.add(f"first.{word}", np.array([value], dtype=np.int64))
        for word, value in (("start", 0), ("stop", 1), (f"axis_{axis}", axis))
    ]
    return helper.make_node("Slice", [source, *ends], [to], name=f"{to}.Slice")
