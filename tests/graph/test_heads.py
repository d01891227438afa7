"""Attention of one row without the dimension that is one: the same answers, fewer nodes run."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedistill.graph import fuse, heads, session, simplify

LENGTHS = (3, 5, 8)
CONSTANTS = {
    "queries": np.random.default_rng(1).normal(size=(8, 8)).astype(np.float32),
    "keys": np.random.default_rng(2).normal(size=(8, 8)).astype(np.float32),
    "split": np.array([0, 0, 2, 4], np.int64),
    "join": np.array([0, 0, 8], np.int64),
    "half": np.array(0.5, np.float32),
    "deep": np.array([[[[0.5]]]], np.float32),
}
SPLIT = (
    ("MatMul", ["x", "queries"], "q0"),
    ("MatMul", ["x", "keys"], "k0"),
    ("Reshape", ["q0", "split"], "q1"),
    ("Reshape", ["k0", "split"], "k1"),
    ("Transpose", ["q1"], "q", {"perm": [0, 2, 1, 3]}),
    ("Transpose", ["k1"], "k", {"perm": [0, 2, 3, 1]}),
    ("Transpose", ["k1"], "v", {"perm": [0, 2, 1, 3]}),
)
SCORES = (("MatMul", ["q", "k"], "scores"),)
SCALED = (("Mul", ["scores", "half"], "scaled"),)
SOFTENED = (("Softmax", ["scaled"], "p", {"axis": 3}),)
JOINED = (
    ("MatMul", ["p", "v"], "c"),
    ("Transpose", ["c"], "turned", {"perm": [0, 2, 1, 3]}),
    ("Reshape", ["turned", "join"], "out"),
)


def graph(*parts, batch=1):
    made = helper.make_model(
        helper.make_graph(
            [
                helper.make_node(kind, reads, [to], **dict(*told))
                for part in parts
                for kind, reads, to, *told in part
            ],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, "length", 8])],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(values, name) for name, values in CONSTANTS.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    simplify.drop_unread(made.graph)
    return made


def feed(length, batch=1):
    drawn = np.random.default_rng(length).normal(size=(batch, length, 8))
    return {"x": drawn.astype(np.float32)}


def flattened(whole, batch=1):
    copy = onnx.ModelProto()
    copy.CopyFrom(whole)
    feeds = [feed(length, batch) for length in LENGTHS]
    return heads.without_batch(copy, simplify.observed(whole, feeds))


def test_heads_of_one_row_have_three_dimensions_and_every_bit_stays():
    whole = graph(SPLIT, SCORES, SCALED, SOFTENED, JOINED)
    made = flattened(whole)
    perms = [
        list(node.attribute[0].ints) for node in made.graph.node if node.op_type == "Transpose"
    ]
    assert perms == [[1, 0, 2], [1, 2, 0], [1, 0, 2], [1, 0, 2]]
    assert {tensor.name for tensor in made.graph.initializer} <= {
        name for node in made.graph.node for name in node.input
    }
    before, after = (session.start(each.SerializeToString()) for each in (whole, made))
    for length in (1, 2, 9):
        np.testing.assert_array_equal(after.run(None, feed(length)), before.run(None, feed(length)))


def test_the_session_reads_heads_where_they_lie():
    """What the rewrite is for: of four dimensions the session turns each by itself."""
    whole = graph(SPLIT, SCORES, SCALED, SOFTENED, JOINED)

    def turned(model):
        nodes = fuse.optimized(model.SerializeToString()).graph.node
        return sum(node.op_type == "Transpose" for node in nodes)

    assert turned(whole) == 4
    assert turned(flattened(whole)) == 1  # what joins the heads again


@pytest.mark.parametrize(
    "scaled",
    (
        (("Mul", ["scores", "deep"], "scaled"),),  # a constant of four dimensions
        (("CumSum", ["scores", "axis"], "scaled"),),  # an operator that isn't known
        (("Transpose", ["scores"], "s", {"perm": [1, 0, 2, 3]}),
         ("Transpose", ["s"], "scaled", {"perm": [1, 0, 2, 3]})),
        (("Softmax", ["scores"], "scaled", {"axis": 0}),),
    ),
    ids=("deep", "unknown", "batch", "across"),
)  # fmt: skip
def test_what_is_joined_to_something_unknown_stays(scaled, monkeypatch):
    monkeypatch.setitem(CONSTANTS, "axis", np.array(1, np.int32))
    whole = graph(SPLIT, SCORES, scaled, SOFTENED, JOINED)
    assert flattened(whole) == whole


def test_two_sizes_that_are_not_known_stay(monkeypatch):
    """A Reshape whose target names neither the length nor the heads can't do without the axis."""
    monkeypatch.setitem(CONSTANTS, "split", np.array([0, 0, -1, 4], np.int64))
    whole = graph(SPLIT, SCORES, SCALED, SOFTENED, JOINED)
    assert flattened(whole) == whole


def test_a_dimension_that_is_moved_away_stays(monkeypatch):
    """One head: what comes first after turning is one too, but it is another dimension."""
    monkeypatch.setitem(CONSTANTS, "split", np.array([0, 0, 1, 8], np.int64))
    turned = (("Transpose", ["q1"], "q2", {"perm": [2, 1, 0, 3]}),)
    back = (("Transpose", ["q2"], "q", {"perm": [0, 2, 1, 3]}),)
    whole = graph(SPLIT[:4], turned, back, SPLIT[5:], SCORES, SCALED, SOFTENED, JOINED)
    assert flattened(whole) == whole


def test_a_dimension_that_is_one_by_chance_stays(monkeypatch):
    """Of windows of a text there was one in all that was observed."""
    monkeypatch.setitem(CONSTANTS, "split", np.array([-1, 3, 2, 4], np.int64))
    whole = graph(SPLIT, SCORES, SCALED, SOFTENED, JOINED)
    copy = onnx.ModelProto()
    copy.CopyFrom(whole)
    shapes = simplify.observed(whole, [feed(3), feed(3)])
    assert heads.without_batch(copy, shapes) == whole


def test_a_batch_keeps_its_dimension(monkeypatch):
    monkeypatch.setitem(CONSTANTS, "join", np.array([2, -1, 8], np.int64))
    whole = graph(SPLIT, SCORES, SCALED, SOFTENED, JOINED, batch=2)
    assert flattened(whole, batch=2) == whole


def test_what_has_no_product_stays():
    """Of images and other things of four dimensions there is nothing to save."""
    back = (("Transpose", ["q"], "turned", {"perm": [0, 2, 1, 3]}), JOINED[-1])
    whole = graph(SPLIT[:1], SPLIT[2:3], SPLIT[4:5], back)
    assert flattened(whole) == whole
