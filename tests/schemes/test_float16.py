"""Float16 weights: half the bytes, float32 at work, nothing that float16 can't hold."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedistill.graph import clean, fuse, session
from edgedistill.schemes import float16

DRAWS = np.random.default_rng(3)
WEIGHTS = {
    "table": DRAWS.normal(size=(40, 16)).astype(np.float32),
    "w": DRAWS.normal(size=(16, 32)).astype(np.float32),
    "bias": DRAWS.normal(size=32).astype(np.float32),
    "huge": np.full((32, 16), 1e5, np.float32),
}
NODES = (
    ("Gather", ["table", "ids"], "x"),
    ("MatMul", ["x", "w"], "h"),
    ("Add", ["h", "bias"], "a"),
    ("MatMul", ["a", "huge"], "y"),
)


@pytest.fixture
def graph():
    return helper.make_model(
        helper.make_graph(
            [helper.make_node(kind, reads, [to]) for kind, reads, to in NODES],
            "g",
            [helper.make_tensor_value_info("ids", TensorProto.INT64, ["b", "l"])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(values, name) for name, values in WEIGHTS.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def test_matrices_are_halved_and_small_or_large_ones_stay(graph):
    before = clean.serialize(graph)
    made = float16.apply(graph, None, float16.Settings())
    types = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    assert types == {
        "bias": TensorProto.FLOAT,
        "huge": TensorProto.FLOAT,
        "table.float16": TensorProto.FLOAT16,
        "w.float16": TensorProto.FLOAT16,
    }
    assert clean.serialize(graph) == before


def test_it_answers_as_rounded_weights_do(graph):
    made = float16.apply(graph, None, float16.Settings())
    ids = np.array([[3, 39, 0]])
    (found,) = session.start(clean.serialize(made)).run(None, {"ids": ids})
    rounded = {name: WEIGHTS[name].astype(np.float16).astype(np.float32) for name in ("table", "w")}
    right = (rounded["table"][ids] @ rounded["w"] + WEIGHTS["bias"]) @ WEIGHTS["huge"]
    np.testing.assert_allclose(found, right, rtol=1e-4, atol=50)


def test_the_session_casts_once_but_for_rows_that_are_looked_up(graph):
    made = float16.apply(graph, None, float16.Settings())
    kinds = [node.op_type for node in fuse.optimized(clean.serialize(made)).graph.node]
    assert kinds.count("Cast") == 1, "the table's rows; a cast of the whole table would be kept"
