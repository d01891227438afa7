"""Dynamic int8: exact where it says so, per channel, per row."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedistill.graph import session
from edgedistill.schemes import dynamic_int8

DRAWS = np.random.default_rng(5)


def products(scales=(1.0, 0.001, 100.0, 1.0)):
    """Return a graph y = x w, whose columns are of very different size."""
    w = (DRAWS.normal(size=(32, 4)) * np.array(scales)).astype(np.float32)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(w, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), w


def lookup(table):
    ids = helper.make_tensor_value_info("x", TensorProto.INT64, ["n", "l"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "l", table.shape[1]])
    nodes = [helper.make_node("Gather", ["t", "x"], ["y"])]
    graph = helper.make_graph(nodes, "g", [ids], [y], [numpy_helper.from_array(table, "t")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def quantized(model, **settings):
    return dynamic_int8.apply(model, None, dynamic_int8.Settings(**settings))


def run(model, x):
    return session.logits(session.start(model.SerializeToString()), {"x": x})


def tensor(model, name):
    return numpy_helper.to_array({t.name: t for t in model.graph.initializer}[name])


@pytest.mark.parametrize("reduce_range", (False, True))
def test_each_channel_has_its_own_scale(reduce_range):
    model, w = products()
    x = DRAWS.normal(size=(50, 32)).astype(np.float32)
    right, found = x @ w, run(quantized(model, reduce_range=reduce_range), x)
    errors = np.abs(right - found).max(axis=0) / np.abs(right).max(axis=0)
    assert errors.max() < 0.03, "a small column keeps its precision beside a large one"


def test_the_arithmetic_is_that_of_whole_numbers():
    model, _ = products()
    x = DRAWS.normal(size=(20, 32)).astype(np.float32)
    made = quantized(model, reduce_range=True)
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = np.float32((high - low) / 255)
    zero = int(np.clip(np.rint(-low / scale), 0, 255))
    whole = np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.int64) - zero
    right = (whole @ tensor(made, "w.int8").astype(np.int64)) * (scale * tensor(made, "w.scale"))
    np.testing.assert_allclose(run(made, x), right, rtol=1e-4, atol=1e-3)


def test_seven_bits_never_saturate_sixteen():
    """On AVX2 two products of u8 and s8 are summed in 16 bits."""
    model, _ = products()
    seven = tensor(quantized(model, reduce_range=True), "w.int8").astype(np.int64)
    full = tensor(quantized(model, reduce_range=False), "w.int8").astype(np.int64)
    assert np.abs(seven).max() == 64 and 2 * 255 * 64 < 2**15
    assert np.abs(full).max() == 127 and 2 * 255 * 127 >= 2**15


def test_each_row_of_a_table_has_its_own_scale():
    sizes = np.geomspace(1e-3, 1e3, 600)[:, None]
    table = (DRAWS.normal(size=(600, 16)) * sizes).astype(np.float32)
    ids = DRAWS.integers(0, 600, (4, 9))
    found, right = run(quantized(lookup(table)), ids), table[ids]
    assert (np.abs(found - right).max(axis=-1) <= np.abs(right).max(axis=-1) / 250).all()
    made = quantized(lookup(table))
    assert sum(t.data_type == TensorProto.INT8 for t in made.graph.initializer) == 1
    assert len(made.SerializeToString()) < table.nbytes / 2.5


def test_small_tables_and_a_setting_keep_floats():
    small, large = np.ones((2, 16), np.float32), np.ones((600, 16), np.float32)
    assert [node.op_type for node in quantized(lookup(small)).graph.node] == ["Gather"]
    kept = quantized(lookup(large), embeddings="float32")
    assert [node.op_type for node in kept.graph.node] == ["Gather"]


def test_one_activation_is_quantized_once_and_the_model_is_not_changed():
    model, _ = products()
    model.graph.node.append(helper.make_node("MatMul", ["x", "w"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 4]))
    before = model.SerializeToString(deterministic=True)
    kinds = [node.op_type for node in quantized(model).graph.node]
    assert (kinds.count("DynamicQuantizeLinear"), kinds.count("MatMulInteger")) == (1, 2)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("turned", (0, 1))
def test_a_gemm_keeps_its_bias_and_its_turn(turned):
    w = DRAWS.normal(size=(5, 32)).astype(np.float32)
    c = DRAWS.normal(size=5).astype(np.float32)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])
    tensors = [
        numpy_helper.from_array(w if turned else w.T.copy(), "w"),
        numpy_helper.from_array(c, "c"),
    ]
    nodes = [helper.make_node("Gemm", ["x", "w", "c"], ["y"], transB=turned)]
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    rows = DRAWS.normal(size=(9, 32)).astype(np.float32)
    right, found = rows @ w.T + c, run(quantized(model), rows)
    assert np.abs(right - found).max() < 0.02 * np.abs(right).max()


def test_a_scaled_gemm_and_a_channel_of_zeros():
    model, _ = products(scales=(1.0, 0.0, 1.0, 1.0))
    found = run(quantized(model), np.ones((2, 32), np.float32))
    assert (found[:, 1] == 0).all() and np.isfinite(found).all()
    model.graph.node[0].op_type = "Gemm"
    model.graph.node[0].attribute.append(helper.make_attribute("alpha", 0.5))
    assert [node.op_type for node in quantized(model).graph.node] == ["Gemm"]


def test_it_is_no_worse_than_onnxruntimes_own(tmp_path):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model, w = products()
    theirs = tmp_path / "theirs.onnx"
    quantize_dynamic(model, theirs, per_channel=True, weight_type=QuantType.QInt8)
    x = DRAWS.normal(size=(200, 32)).astype(np.float32)
    right = x @ w
    ours = np.linalg.norm(run(quantized(model), x) - right, axis=0)
    other = np.linalg.norm(session.logits(session.start(theirs), {"x": x}) - right, axis=0)
    assert (ours <= 1.05 * other).all()
