"""The first token alone: what nothing reads is not computed, and what is read stays the same."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedistill.graph import clean, first_token, session, simplify

WIDTH = 6
FEEDS = [
    {"x": np.random.default_rng(seed).normal(size=(rows, length, WIDTH)).astype(np.float32)}
    for seed, (rows, length) in enumerate(((2, 5), (1, 3), (4, 7)))
]
WEIGHTS = {
    "w": np.random.default_rng(9).normal(size=(WIDTH, WIDTH)).astype(np.float32),
    "b": np.linspace(0, 1, WIDTH, dtype=np.float32),
    "first": np.array(0, dtype=np.int64),
    "last": np.array(-1, dtype=np.int64),
    "heads": np.array([0, 0, 2, 3], dtype=np.int64),
    "wide": np.array([0, 0, WIDTH], dtype=np.int64),
    "axes": np.array([1], dtype=np.int64),
}
MIX = (  # an attention without projections: every row of y has seen all of x
    ("Reshape", ["x", "heads"], "s"),
    ("Transpose", ["s"], "q", {"perm": [0, 2, 1, 3]}),
    ("Transpose", ["s"], "k", {"perm": [0, 2, 3, 1]}),
    ("MatMul", ["q", "k"], "scores"),
    ("Softmax", ["scores"], "p", {"axis": -1}),
    ("MatMul", ["p", "q"], "c"),
    ("Transpose", ["c"], "t", {"perm": [0, 2, 1, 3]}),
    ("Reshape", ["t", "wide"], "mixed"),
)
BLOCK = (
    *MIX,
    ("MatMul", ["mixed", "w"], "m"),
    ("Add", ["b", "m"], "a"),
    ("Add", ["a", "x"], "r"),
    ("LayerNormalization", ["r", "b", "b"], "n", {"axis": -1}),
    ("Tanh", ["n"], "y"),
)


def graph(nodes, outputs=("out",)):
    made = helper.make_model(
        helper.make_graph(
            [
                helper.make_node(kind, reads, [to], **dict(*told))
                for kind, reads, to, *told in nodes
            ],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length", WIDTH])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(values, name) for name, values in WEIGHTS.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    simplify.drop_unread(made.graph)
    return made


def narrowed(nodes, outputs=("out",)):
    """Narrow a graph and hold its answers against the whole one's; returns it with its shapes."""
    whole = graph(nodes, outputs)
    right = [session.start(whole.SerializeToString()).run(None, feed) for feed in FEEDS]
    made = first_token.narrow(whole, simplify.observed(whole, FEEDS))
    running = session.start(clean.serialize(made))
    for feed, values in zip(FEEDS, right, strict=True):
        for ours, theirs in zip(running.run(None, feed), values, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    return made, simplify.observed(made, FEEDS)


def test_a_head_on_the_first_row_computes_that_row_alone():
    made, shapes = narrowed((*BLOCK, ("Gather", ["y", "first"], "out", {"axis": 1})))
    for name in ("mixed", "m", "r", "n", "y"):
        assert {shape[1] for shape in shapes[name]} == {1}, name
    assert {shape[2] for shape in shapes["scores"]} == {1}, "one query"
    assert [shape[3] for shape in shapes["scores"]] == [5, 3, 7], "every key"
    assert [shape[1] for shape in shapes["s"]] == [5, 3, 7], "keys and values need all rows"
    assert len([node for node in made.graph.node if node.op_type == "Slice"]) == 2


@pytest.mark.parametrize(
    ("tail", "outputs"),
    [
        ([("Gather", ["y", "last"], "out", {"axis": 1})], ("out",)),
        ([("ReduceMean", ["y"], "out", {"axes": [1], "keepdims": 0})], ("out",)),
        ([("Gather", ["y", "first"], "out", {"axis": 1})], ("out", "y")),
        ([("Gather", ["y", "first"], "out", {"axis": 2})], ("out",)),
    ],
    ids=("last row", "mean", "read elsewhere", "another axis"),
)
def test_what_reads_more_than_the_first_row_keeps_all(tail, outputs):
    before = graph((*BLOCK, *tail), outputs)
    made, _ = narrowed((*BLOCK, *tail), outputs)
    assert clean.serialize(made) == clean.serialize(before)


def test_a_row_of_constants_for_each_place_stops_it():
    """A table added row by row would have to be cut too: what is behind it stays whole."""
    WEIGHTS["places"] = np.ones((3, 1), np.float32)
    feeds, nodes = FEEDS[1:2], (("Tanh", ["x"], "y"), ("Add", ["y", "places"], "z"))
    whole = graph((*nodes, ("Gather", ["z", "first"], "out", {"axis": 1})))
    del WEIGHTS["places"]
    made = first_token.narrow(whole, simplify.observed(whole, feeds))
    assert [node.op_type for node in made.graph.node] == ["Tanh", "Add", "Gather"]


def test_a_target_that_names_the_number_of_rows_is_let_go():
    """Images have one number of patches: their Reshapes name it."""
    WEIGHTS["heads"], before = np.array([0, 5, 2, 3]), WEIGHTS["heads"]
    WEIGHTS["wide"], wide = np.array([0, 5, WIDTH]), WEIGHTS["wide"]
    feeds = [{"x": each["x"][:, :1].repeat(5, axis=1)} for each in FEEDS]
    try:
        whole = graph((*BLOCK, ("Gather", ["y", "first"], "out", {"axis": 1})))
    finally:
        WEIGHTS["heads"], WEIGHTS["wide"] = before, wide
    right = [session.start(whole.SerializeToString()).run(None, feed)[0] for feed in feeds]
    made = first_token.narrow(whole, simplify.observed(whole, feeds))
    assert {shape[1] for shape in simplify.observed(made, feeds)["mixed"]} == {1}
    read = {name for node in made.graph.node for name in node.input}
    assert {each.name for each in made.graph.initializer} <= read, "the targets of before"
    for feed, values in zip(feeds, right, strict=True):
        found = session.start(made.SerializeToString()).run(None, feed)[0]
        np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-6)
