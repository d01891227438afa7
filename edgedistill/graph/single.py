"""The graph of a single sequence: one row a run, without padding, so without mask and segments.

Of a row that is run by itself the mask is all ones, and of a single text the segments are all
zeros. An input that always holds one number needs not be fed, and what only carries that number
through the graph needs not be computed: it is folded here, exactly (x + 0 and x * 1 are x, and the
row of a table that is always looked up is a constant). The batch is fixed to one row, so that a
runtime refuses a batch of padded rows, which a graph without a mask would answer wrongly, and
attention is left without the dimension that is always one (`edgedistill.graph.heads`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgedistill.graph import clean, heads
from edgedistill.graph.simplify import Feed, Shapes, drop_unread, observed
from edgedistill.graph.weights import Additions, attributes, captured

CARRY = {"Identity", "Unsqueeze", "Squeeze", "Reshape", "Expand", "Transpose", "Slice", "Flatten"}
COMPUTE: Mapping[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": operator.truediv,
    "Equal": operator.eq,
    "And": np.logical_and,
}
NEUTRAL = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1, "And": True}
EITHER = ("Add", "Mul", "And")  # neutral on both sides


def single(model: Any, numbers: Mapping[str, int], feeds: Sequence[Feed]) -> Any | None:
    """Return the graph for one row without the inputs that always hold one number, or None.

    `numbers` are those inputs with their numbers; `feeds` are batches of unlike numbers of rows and
    lengths. None where the graph needs one of them all the same (a mean over the mask needs its
    sum).
    """
    from onnx import helper

    made = type(model)()
    made.CopyFrom(model)
    graph = made.graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    work = _Fold(graph, observed(model, feeds))
    for name, number in numbers.items():
        if name in types:
            kind = helper.tensor_dtype_to_np_dtype(types[name])
            work.numbers[name] = np.asarray(number, dtype=kind)
    work.run()
    drop_unread(graph)
    read = {name for node in graph.node for name in (*node.input, *captured(node))}
    if not work.numbers or read & {*numbers}:
        return None
    kept = [type(value).FromString(value.SerializeToString()) for value in graph.input]
    del graph.input[:]
    graph.input.extend(value for value in kept if value.name not in numbers)
    clean.fix(made, {"batch": 1})
    rows = [{name: value[:1] for name, value in feed.items()} for feed in feeds]
    return heads.without_batch(made, observed(made, rows))


class _Fold:
    """One pass over a graph: which tensors hold one number everywhere, and what that saves."""

    def __init__(self, graph: Any, shapes: Shapes) -> None:
        from onnx import numpy_helper

        self.graph, self.shapes = graph, shapes
        self.numbers: dict[str, np.ndarray] = {}  # tensors of one number, by name
        self.counting: set[str] = set()  # tensors of 0, 1, 2, ... and nothing below
        self.fixed = {value.name for value in graph.output}  # names that must stay
        self.fixed |= {name for node in graph.node for name in captured(node)}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.values = {
            name: numpy_helper.to_array(tensor).reshape(())
            for name, tensor in self.constants.items()
            if int(np.prod(tensor.dims)) == 1
        }
        self.additions = Additions(graph)
        self.renamed: dict[str, str] = {}

    def run(self) -> None:
        """Fold node by node, and name anew what reads a tensor that is another one."""
        kept = []
        for node in self.graph.node:
            for place, name in enumerate(node.input):
                node.input[place] = self.renamed.get(name, name)
            if not self._folded(node):
                kept.append(node)
        kept = [type(node).FromString(node.SerializeToString()) for node in kept]
        del self.graph.node[:]
        self.graph.node.extend(kept)

    def _folded(self, node: Any) -> bool:
        """Say whether a node needs not run: its readers read something else instead."""
        if node.domain or len(node.output) != 1:
            return False
        if self._counts(node):
            self.counting.add(node.output[0])
        number = self._number(node)
        if number is not None:
            self.numbers[node.output[0]] = number
            return False  # something may read it that is not known here
        same = None if node.output[0] in self.fixed else self._same(node) or self._row(node)
        if same:
            self.renamed[node.output[0]] = same
        return bool(same)

    def _number(self, node: Any) -> np.ndarray | None:
        """Return the one number that a node's result holds everywhere, or None."""
        from onnx import helper, numpy_helper

        first = self.numbers.get(node.input[0]) if node.input else None
        if node.op_type in (*CARRY, "Gather"):  # whatever is looked up
            return first
        if node.op_type == "ConstantOfShape":
            value = attributes(node).get("value")
            return numpy_helper.to_array(value).reshape(()) if value else np.zeros((), np.float32)
        if node.op_type == "Where" and first is not None:
            return self._known(node.input[1 if first else 2])
        if node.op_type == "GreaterOrEqual" and node.input[0] in self.counting:
            least = self._known(node.input[1])
            return np.asarray(True) if least is not None and least <= 0 else None
        if node.op_type == "Cast" and first is not None:
            kind = helper.tensor_dtype_to_np_dtype(attributes(node)["to"])
            return first.astype(kind)
        if node.op_type == "Not" and first is not None:
            return np.logical_not(first)
        if node.op_type not in COMPUTE or not {*node.input} & {*self.numbers}:
            return None
        left, right = map(self._known, node.input)
        if left is None or right is None:
            return None
        if node.op_type == "Div" and np.issubdtype(left.dtype, np.integer):
            return None  # rounds otherwise than numpy
        return np.asarray(COMPUTE[node.op_type](left, right))

    def _known(self, name: str) -> np.ndarray | None:
        """Return the number that a tensor holds everywhere: computed, or a constant of one."""
        return self.numbers.get(name, self.values.get(name))

    def _counts(self, node: Any) -> bool:
        """Say whether a node's result counts from 0, or from a constant above, upwards."""
        if node.op_type == "Range":
            start, step = self._known(node.input[0]), self._known(node.input[2])
            return start is not None and step is not None and bool(start >= 0 and step > 0)
        kept = node.op_type in ("Identity", "Unsqueeze", "Squeeze", "Reshape", "Expand", "Cast")
        return kept and node.input[0] in self.counting

    def _same(self, node: Any) -> str | None:
        """Return the input that a node's result equals: added to 0, multiplied by 1, chosen."""
        pick: str | None = None
        if node.op_type == "Where" and node.input[0] in self.numbers:
            pick = node.input[1 if self.numbers[node.input[0]] else 2]
        elif node.op_type in NEUTRAL:
            places = [0, 1] if node.op_type in EITHER else [1]
            for place in places:
                number = self.numbers.get(node.input[place])
                if number is not None and number == NEUTRAL[node.op_type]:
                    pick = node.input[1 - place]
        if pick is None or pick not in self.shapes:
            return None
        return pick if self._shape(pick) == self._shape(node.output[0]) else None

    def _row(self, node: Any) -> str | None:
        """Return a constant for a table's row that is always looked up, where it is only added."""
        from onnx import numpy_helper

        if node.op_type != "Gather" or attributes(node).get("axis", 0) != 0:
            return None
        table, number = self.constants.get(node.input[0]), self.numbers.get(node.input[1])
        readers = [each for each in self.graph.node if node.output[0] in each.input]
        if table is None or number is None or len(table.dims) != 2:
            return None
        for reader in readers:
            others = [name for name in reader.input if name != node.output[0]]
            if reader.op_type != "Add" or len(others) != 1:
                return None
            if self._shape(others[0]) != self._shape(reader.output[0]):
                return None
        row = numpy_helper.to_array(table)[int(number)]
        rank = len((self._shape(node.output[0]) or [()])[0])
        return self.additions.add(
            f"{node.input[0]}.row_{int(number)}", row.reshape((1,) * (rank - 1) + row.shape)
        )

    def _shape(self, name: str) -> Sequence[tuple[int, ...]] | None:
        return self.shapes.get(name)
