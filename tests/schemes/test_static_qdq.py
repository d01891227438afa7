"""Static int8 of convolutions: integer kernels, folded Relus, biases that fit, streamed ranges."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedistill.errors import ModelError
from edgedistill.graph import calibrate, fuse, session
from edgedistill.schemes import static_qdq

DRAWS = np.random.default_rng(11)


def residual(*, bias=None, first=None):
    """Return conv, relu, conv, add to the first, relu, pool, head: a small residual network."""
    first = DRAWS.normal(size=(8, 3, 3, 3)) / 5 if first is None else first
    bias = DRAWS.normal(size=8) if bias is None else bias
    tensors = {
        "w": first,
        "b": bias,
        "v": DRAWS.normal(size=(8, 8, 3, 3)) / 8,
        "a": DRAWS.normal(size=8),
        "g": DRAWS.normal(size=(5, 8)),
        "c": DRAWS.normal(size=5),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["m", "v", "a"], ["i"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["i", "m"], ["s"]),
        helper.make_node("Relu", ["s"], ["t"]),
        helper.make_node("GlobalAveragePool", ["t"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "g", "c"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [
            numpy_helper.from_array(np.asarray(value, np.float32), name)
            for name, value in tensors.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


ROWS = DRAWS.normal(size=(64, 3, 8, 8)).astype(np.float32)


def batches(size=16):
    return lambda: ({"x": ROWS[start : start + size]} for start in range(0, len(ROWS), size))


def run(model, x=ROWS):
    return session.logits(session.start(model.SerializeToString()), {"x": x})


@pytest.mark.parametrize("reduce_range", (False, True))
def test_it_answers_as_the_float_graph(reduce_range):
    model = residual()
    before = model.SerializeToString(deterministic=True)
    made = static_qdq.apply(model, batches(), static_qdq.Settings(reduce_range=reduce_range))
    right, found = run(model), run(made)
    assert np.abs(right - found).max() < 0.1 * np.abs(right).max()
    assert model.SerializeToString(deterministic=True) == before


def test_every_product_runs_on_integers():
    made = static_qdq.apply(residual(), batches(), static_qdq.Settings())
    assert "Relu" not in {node.op_type for node in made.graph.node}
    found = fuse.count(made.SerializeToString(), {"optimization": "extended"})
    assert (found["QLinearConv"], found["QLinearAdd"], found["QGemm"]) == (2, 1, 1)


def test_seven_bits_where_they_are_asked_for():
    for reduce_range, largest in ((True, 64), (False, 127)):
        told = static_qdq.Settings(reduce_range=reduce_range)
        made = static_qdq.apply(residual(), batches(), told)
        weights = [
            numpy_helper.to_array(tensor)
            for tensor in made.graph.initializer
            if tensor.data_type == TensorProto.INT8 and len(tensor.dims) > 1
        ]
        assert len(weights) == 3
        assert max(np.abs(each.astype(int)).max() for each in weights) == largest


def test_a_dead_channel_keeps_its_bias():
    """A bias is int32 in steps of weight scale times activation scale: zeros have no scale."""
    first = DRAWS.normal(size=(8, 3, 3, 3)) / 5
    first[2], first[3] = 0.0, first[3] * 1e-9
    bias = np.array([0, 0, 3.0, -2.0, 5, 0, 0, 0])
    model = residual(first=first, bias=bias)
    right, found = run(model), run(static_qdq.apply(model, batches(), static_qdq.Settings()))
    assert np.abs(right - found).max() < 0.1 * np.abs(right).max()


def test_ranges_are_those_of_all_rows_whatever_the_batch():
    model = residual()
    wide = ROWS.copy()
    wide[0] *= 50  # what an early batch shows must not be forgotten

    def feeds(size):
        return ({"x": wide[start : start + size]} for start in range(0, 64, size))

    by_one, by_many = (calibrate.ranges(model, ["x", "s"], feeds(size)) for size in (1, 64))
    assert by_one["x"] == (float(wide.min()), float(wide.max()))
    np.testing.assert_allclose(by_one["s"], by_many["s"], rtol=1e-5)


def test_batches_are_taken_one_by_one():
    given: list[weakref.ref] = []
    held = []

    def counted():
        for start in range(0, 64, 4):
            held.append(sum(each() is not None for each in given))
            rows = ROWS[start : start + 4].copy()
            given.append(weakref.ref(rows))
            yield {"x": rows}
            del rows

    static_qdq.apply(residual(), counted, static_qdq.Settings())
    assert len(held) >= 16 and max(held) <= 1


def test_a_graph_that_is_too_old_is_named():
    model = residual()
    model.opset_import[0].version = 12
    with pytest.raises(ModelError, match="opset 13 or later, this one has 12"):
        static_qdq.apply(model, batches(), static_qdq.Settings())


def test_no_rows_or_rows_that_are_not_numbers_are_errors():
    with pytest.raises(ModelError, match="calibration"):
        static_qdq.apply(residual(), lambda: iter(()), static_qdq.Settings())
    with pytest.raises(ModelError, match="calibration"):
        static_qdq.apply(residual(), None, static_qdq.Settings())
    with pytest.raises(ModelError, match="not finite"):
        wrong = np.full((1, 3, 8, 8), np.nan, np.float32)
        static_qdq.apply(residual(), lambda: iter([{"x": wrong}]), static_qdq.Settings())


def test_a_relu_whose_result_is_an_output_stays():
    model = residual()
    model.graph.output.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, None))
    made = static_qdq.apply(model, batches(), static_qdq.Settings())
    running = session.start(made.SerializeToString())
    found, middle = running.run(["y", "r"], {"x": ROWS})
    (right,) = session.start(model.SerializeToString()).run(["r"], {"x": ROWS})
    assert middle.min() == 0 and np.abs(middle - right).max() < 0.1 * right.max()
    assert found.shape == (64, 5)
