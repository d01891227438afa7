"""The graph of a single sequence: the same answers to the bit, with nothing to feed but ids."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedistill.graph import feeds, session, simplify, single

NUMBERS = {"mask": 1, "kinds": 0}
FEEDS = [
    {
        "ids": np.random.default_rng(seed).integers(0, 9, (rows, length)),
        "mask": np.ones((rows, length), np.int64),
        "kinds": np.zeros((rows, length), np.int64),
    }
    for seed, (rows, length) in enumerate(((2, 5), (1, 3), (4, 7)))
]
WEIGHTS = {
    "words": np.random.default_rng(5).normal(size=(9, 4)).astype(np.float32),
    "sorts": np.random.default_rng(6).normal(size=(2, 4)).astype(np.float32),
    "one": np.array(1, np.float32),
    "far": np.array(-10000, np.float32),
    "axes": np.array([1], np.int64),
    "nought": np.array(0, np.float32),
}
EMBED = (
    ("Gather", ["words", "ids"], "w"),
    ("Gather", ["sorts", "kinds"], "k"),
    ("Add", ["w", "k"], "e"),
    ("Transpose", ["e"], "t", {"perm": [0, 2, 1]}),
    ("MatMul", ["e", "t"], "scores"),
)
ADDED = (
    ("Unsqueeze", ["mask", "axes"], "m4"),
    ("Cast", ["m4"], "m", {"to": TensorProto.FLOAT}),
    ("Sub", ["one", "m"], "left"),
    ("Mul", ["left", "far"], "added"),
    ("Add", ["scores", "added"], "masked"),
    ("Softmax", ["masked"], "p", {"axis": -1}),
    ("MatMul", ["p", "e"], "out"),
)
MEAN = (
    ("Cast", ["mask"], "m", {"to": TensorProto.FLOAT}),
    ("ReduceSum", ["m"], "count"),
    ("Div", ["scores", "count"], "out"),
)


def graph(nodes):
    kind = (TensorProto.INT64, ["batch", "length"])
    made = helper.make_model(
        helper.make_graph(
            [
                helper.make_node(kind, reads, [to], **dict(*told))
                for kind, reads, to, *told in nodes
            ],
            "g",
            [helper.make_tensor_value_info(name, *kind) for name in ("ids", "mask", "kinds")],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(values, name) for name, values in WEIGHTS.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    simplify.drop_unread(made.graph)
    return made


def test_mask_and_segments_go_and_every_bit_stays():
    whole = graph((*EMBED, *ADDED))
    made = single.single(whole, NUMBERS, FEEDS)
    assert [value.name for value in made.graph.input] == ["ids"]
    kinds = [node.op_type for node in made.graph.node]
    assert kinds == ["Gather", "Add", "Transpose", "MatMul", "Softmax", "MatMul"]
    before = session.start(whole.SerializeToString())
    after = session.start(made.SerializeToString())
    for length in (1, 2, 9):
        ids = np.random.default_rng(length).integers(0, 9, (1, length))
        fed = {"ids": ids, "mask": np.ones_like(ids), "kinds": np.zeros_like(ids)}
        np.testing.assert_array_equal(after.run(None, {"ids": ids}), before.run(None, fed))


def test_what_is_compared_with_zero_need_not_be_above():
    """x >= 0 is known of what counts from 0, and of nothing else."""
    whole = graph(
        (
            ("Cast", ["ids"], "i", {"to": TensorProto.FLOAT}),
            ("GreaterOrEqual", ["i", "nought"], "c"),
            ("Cast", ["c"], "f", {"to": TensorProto.FLOAT}),
            ("Cast", ["mask"], "m", {"to": TensorProto.FLOAT}),
            ("Mul", ["f", "m"], "same"),
            ("Neg", ["same"], "out"),
        )
    )
    made = single.single(whole, NUMBERS, FEEDS)
    assert "GreaterOrEqual" in [node.op_type for node in made.graph.node]
    (out,) = session.start(made.SerializeToString()).run(None, {"ids": np.array([[-1, 0, 1]])})
    assert out.tolist() == [[0, -1, -1]]


def test_a_batch_is_refused_by_the_runtime():
    """Padded rows would be answered wrongly: there is no mask to tell them from text."""
    whole = graph((*EMBED, *ADDED))
    made = single.single(whole, NUMBERS, FEEDS)
    running = session.start(made.SerializeToString())
    assert session.fixed(running) == (1, 0)
    with pytest.raises(Exception, match=r"invalid dimensions"):
        running.run(None, {"ids": np.zeros((2, 3), np.int64)})


def test_a_graph_that_needs_the_mask_is_left_alone():
    whole = graph((*EMBED, *MEAN))
    before = whole.SerializeToString(deterministic=True)
    assert single.single(whole, NUMBERS, FEEDS) is None
    assert whole.SerializeToString(deterministic=True) == before


def test_a_sum_that_spreads_what_it_adds_to_is_kept():
    """x + 0 is x only where the zeros are no larger than x."""
    whole = graph(
        (("Cast", ["kinds"], "zeros", {"to": TensorProto.FLOAT}), ("Add", ["one", "zeros"], "out"))
    )
    assert single.single(whole, {"kinds": 0}, FEEDS) is None


def test_inputs_of_one_number_are_found_by_encoding():
    class Encoder:
        def batch(self, rows, integers):
            (row,) = rows
            return {"ids": row["ids"], "mask": np.ones_like(row["ids"]), "kinds": row["kinds"]}

    one = [{"ids": np.array([[3, 4]]), "kinds": np.array([[0, 0]])} for _ in range(2)]
    assert feeds.numbers(one, Encoder()) == {"mask": 1, "kinds": 0}
    pair = [{**one[0], "kinds": np.array([[0, 1]])}]
    assert feeds.numbers(pair, Encoder()) == {"mask": 1}
