"""Tables in halves: the same numbers, from two tensors that no load holds twice at once."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedistill.graph import halves, session

TABLE = np.arange(60, dtype=np.int8).reshape(10, 6)


@pytest.fixture(autouse=True)
def _every_table_is_large(monkeypatch):
    monkeypatch.setattr(halves, "LEAST", 10)


def graph(nodes, table=TABLE):
    return helper.make_model(
        helper.make_graph(
            [helper.make_node(kind, reads, [to], **told) for kind, reads, to, told in nodes],
            "g",
            [helper.make_tensor_value_info("ids", TensorProto.INT64, ["b", "l"])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(table, "table")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


LOOKUP = ("Gather", ["table", "ids"], "rows", {})
FLOAT = ("Cast", ["rows"], "y", {"to": TensorProto.FLOAT})


def test_a_table_in_halves_gives_the_same_rows():
    made = halves.halve(graph([LOOKUP, FLOAT]))
    assert [list(tensor.dims) for tensor in made.graph.initializer] == [[10, 3], [10, 3]]
    ids = np.array([[0, 9, 4], [4, -1, 1]])
    (found,) = session.start(made.SerializeToString()).run(None, {"ids": ids})
    np.testing.assert_array_equal(found, TABLE[ids].astype(np.float32))


def test_the_smallest_weights_come_first():
    made = graph([LOOKUP, FLOAT])
    large = numpy_helper.from_array(np.zeros((2, 1, 6), np.float32), "offset")
    made.graph.initializer.insert(0, large)
    made.graph.node[-1].output[0] = "real"
    made.graph.node.append(helper.make_node("Sub", ["real", "offset"], ["y"]))
    sizes = [len(tensor.raw_data) for tensor in halves.halve(made).graph.initializer]
    assert sizes == [30, 30, 48]


@pytest.mark.parametrize(
    ("nodes", "table"),
    [
        ([LOOKUP, FLOAT], TABLE[:, :5]),
        ([("Gather", ["table", "ids"], "rows", {"axis": 1}), FLOAT], TABLE),
        ([LOOKUP, ("Cast", ["table"], "t", {"to": 1}), ("Cast", ["rows"], "r", {"to": 1}),
          ("ReduceSum", ["t"], "s", {}), ("Add", ["r", "s"], "y", {})], TABLE),
    ],
    ids=("odd width", "along columns", "read as a whole"),
)  # fmt: skip
def test_other_tables_stay_whole(nodes, table):
    made = graph(nodes, table)
    before = made.SerializeToString(deterministic=True)
    assert halves.halve(made).SerializeToString(deterministic=True) == before


def test_a_small_table_stays_whole(monkeypatch):
    monkeypatch.setattr(halves, "LEAST", 2_000_000)
    assert len(halves.halve(graph([LOOKUP, FLOAT])).graph.initializer) == 1
