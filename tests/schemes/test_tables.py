"""Embedding tables in int4 and int8: what a lookup gives, and what it takes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedistill import plugins
from edgedistill.graph import operators, session
from edgedistill.graph.weights import Additions, Constants
from edgedistill.schemes import _tables

DRAWS = np.random.default_rng(3)


def graph_of(table, reads=1):
    ids = helper.make_tensor_value_info("x", TensorProto.INT64, ["n", "l"])
    shape = ["n", "l", table.shape[1]]
    names = [f"y{index}" for index in range(reads)]
    nodes = [helper.make_node("Gather", ["t", "x"], [name]) for name in names]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]
    graph = helper.make_graph(nodes, "g", [ids], made, [numpy_helper.from_array(table, "t")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def quantized(table, precision="int4", reads=1):
    model = graph_of(table, reads)
    constants, additions = Constants(model.graph), Additions(model.graph)
    nodes = [
        made
        for node in model.graph.node
        for made in _tables.lookup(constants, additions, node, precision=precision)
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.remove(model.graph.initializer[0])
    onnx.checker.check_model(model)
    return model


def run(model, ids):
    return session.start(model.SerializeToString()).run(None, {"x": ids})


def unpacked(packed, scales):
    """Read the bytes as the docstring says, in plain numpy."""
    both = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32) - 8
    return both * scales[:, None]


@pytest.fixture(scope="module")
def table():
    """Rows of very different size, more than a chunk of them; one of zeros."""
    sizes = np.geomspace(1e-3, 1e3, _tables.CHUNK + 10)[:, None]
    made = (DRAWS.normal(size=(len(sizes), 256)) * sizes).astype(np.float32)
    made[7] = 0
    return made


def test_the_runtime_reads_what_was_packed(table):
    ids = np.concatenate([DRAWS.integers(0, len(table), (2, 9)), [[7] * 9]])
    (found,) = run(quantized(table), ids)
    np.testing.assert_array_equal(found, unpacked(*_tables.four_bits(table))[ids])
    assert (found[2] == 0).all(), "a row of zeros stays one"
    assert operators.missing(quantized(table), "1.16") == []


def test_each_row_has_the_scale_of_the_smallest_error(table):
    found = unpacked(*_tables.four_bits(table))
    peaks = np.take_along_axis(table, np.abs(table).argmax(axis=1)[:, None], axis=1)
    steps = np.where(peaks == 0, 1, peaks / -8)  # the largest at -8, nothing clipped
    plain = np.clip(np.rint(table / steps), -8, 7) * steps
    error, at_most = (((each - table) ** 2).sum(axis=1) for each in (found, plain))
    assert (error <= 1.0001 * at_most).all()
    power = np.maximum((table**2).sum(axis=1), 1e-30)
    assert np.mean(error / power) < 0.9 * np.mean(at_most / power)
    assert (error < 0.03 * power).all(), "15 dB of signal, whatever the size of a row"


def test_it_is_half_of_int8_and_less_true(table):
    ids = np.arange(len(table))[None]
    errors, sizes = {}, {}
    for precision in ("int4", "int8"):
        made = quantized(table, precision)
        errors[precision] = float(((run(made, ids)[0][0] - table) ** 2).sum())
        sizes[precision] = len(made.SerializeToString())
    assert sizes["int4"] < 0.52 * sizes["int8"]
    assert errors["int8"] < errors["int4"]


@pytest.mark.parametrize("shape", [(600, 16), (_tables.LARGE // 200, 201)])
def test_small_tables_and_those_of_an_odd_width_are_in_int8(shape):
    table = DRAWS.normal(size=shape).astype(np.float32)
    kinds = {tensor.name: tensor.data_type for tensor in quantized(table).graph.initializer}
    assert kinds["t.rows_int8"] == TensorProto.INT8 and "t.rows_int4" not in kinds


def test_rows_of_any_size_keep_their_precision_and_what_is_no_number_stays_none():
    row = DRAWS.normal(size=(1, _tables.CHUNK)).astype(np.float32)
    table = np.concatenate([row * size for size in (1e-30, 1, 1e19, np.nan)] * 64)
    table[3, 1:] = 1.0  # one value is no number
    table[7] = row
    table[7, 5] = np.inf
    with np.errstate(invalid="ignore"):
        found = unpacked(*_tables.four_bits(table))
    parts = found[:3] / np.array([[1e-30], [1], [1e19]])
    np.testing.assert_allclose(parts, np.repeat(parts[1:2], 3, axis=0), rtol=1e-4)
    assert np.isnan(found[3::4]).all() and np.isfinite(np.delete(found, np.s_[3::4], axis=0)).all()


@pytest.mark.parametrize("precision", _tables.PRECISIONS)
@pytest.mark.parametrize("scheme", ("dynamic_int8", "static_qdq", "static_qoperator"))
def test_a_product_may_read_a_lookup_at_once(scheme, precision, table):
    weights = DRAWS.normal(size=(256, 8)).astype(np.float32)
    model = graph_of(np.tanh(table))
    model.graph.node.append(helper.make_node("MatMul", ["y0", "w"], ["z"]))
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    model.graph.output[0].name = "z"
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 8
    plugin = plugins.find("schemes", scheme)
    ids = DRAWS.integers(2000, 4000, (3, 5))
    made = plugin.apply(model, lambda: iter([{"x": ids}]), plugin.Settings(embeddings=precision))
    (right,), (found,) = run(model, ids), run(made, ids)
    assert np.abs(found - right).max() < 0.15 * np.abs(right).max()


def test_a_table_that_is_read_twice_is_packed_once(table):
    made = quantized(table, reads=2)
    names = [tensor.name for tensor in made.graph.initializer]
    assert len(names) == len(set(names)) and names.count("t.rows_int4") == 1
    first, second = run(made, np.array([[1, 2, 3]]))
    np.testing.assert_array_equal(first, second)
