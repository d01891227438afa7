"""Static int8 of encoders: products alone are rounded, in both forms; outliers can be moved."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedistill.graph import fuse, operators, session
from edgedistill.schemes import dynamic_int8, static_qdq, static_qoperator

DRAWS = np.random.default_rng(23)
FORMS = (static_qdq, static_qoperator)
WIDTH = 16
IDS = DRAWS.integers(0, 600, (64, 7))
KEPT = (np.arange(7) < DRAWS.integers(3, 8, (64, 1))).astype(np.float32)


def block(*, masked=-10000.0, outlier=1.0):
    """Return a block of an encoder: table, norm, attention with a mask, sum, norm, head."""
    table = DRAWS.normal(size=(600, WIDTH))
    gamma = np.ones(WIDTH)
    gamma[3] = outlier
    tensors = {"t": table, "gamma": gamma, "beta": np.zeros(WIDTH), "one": np.ones(())}
    tensors |= {name: DRAWS.normal(size=(WIDTH, WIDTH)) / 4 for name in ("wq", "wk", "wv", "wo")}
    tensors |= {name: DRAWS.normal(size=WIDTH) / 4 for name in ("bq", "bk", "bv", "bo")}
    tensors |= {"wh": DRAWS.normal(size=(5, WIDTH)), "bh": DRAWS.normal(size=5)}
    tensors |= {"masked": np.full((), masked), "gamma2": np.ones(WIDTH)}
    for name in ("wq", "wk", "wv"):
        tensors[name][3] /= outlier
    node = helper.make_node
    nodes = [
        node("Gather", ["t", "ids"], ["e"]),
        node("LayerNormalization", ["e", "gamma", "beta"], ["x"], axis=-1),
        *(node("MatMul", ["x", f"w{each}"], [f"{each}0"]) for each in "qkv"),
        *(node("Add", [f"b{each}", f"{each}0"], [each]) for each in "qkv"),
        node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["s"]),
        node("Sub", ["one", "kept"], ["off"]),
        node("Mul", ["off", "masked"], ["m"]),
        node("Add", ["s", "m"], ["a"]),
        node("Softmax", ["a"], ["p"], axis=-1),
        node("MatMul", ["p", "v"], ["c"]),
        node("MatMul", ["c", "wo"], ["o0"]),
        node("Add", ["o0", "bo"], ["o"]),
        node("Add", ["o", "x"], ["r"]),
        node("LayerNormalization", ["r", "gamma2", "beta"], ["z"], axis=-1),
        node("ReduceMax", ["z"], ["pooled"], axes=[1], keepdims=0),
        node("Gemm", ["pooled", "wh", "bh"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "l"]),
            helper.make_tensor_value_info("kept", TensorProto.FLOAT, ["n", 1, "l"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def batches():
    return ({"ids": IDS[i : i + 8], "kept": KEPT[i : i + 8, None]} for i in range(0, 64, 8))


def run(model, ids=IDS, kept=KEPT):
    running = session.start(model.SerializeToString())
    return session.logits(running, {"ids": ids, "kept": kept[:, None]})


def far(model, made):
    right, made = run(model), run(made)
    return float(np.abs(right - made).max() / np.abs(right).max())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ("minmax", "percentile", "entropy"))
def test_it_answers_as_the_float_graph(form, method):
    model = block()
    before = model.SerializeToString(deterministic=True)
    made = form.apply(model, batches, form.Settings(method=method))
    assert far(model, made) < 0.06
    assert model.SerializeToString(deterministic=True) == before
    assert operators.missing(made, "1.17") == []


@pytest.mark.parametrize("form", FORMS)
def test_products_alone_are_rounded(form):
    made = form.apply(block(), batches, form.Settings())
    found = fuse.count(made.SerializeToString(), {"optimization": "extended"})
    assert (found["MatMulIntegerToFloat"], found["QGemm"]) == (4, 1)
    kinds = Counter(node.op_type for node in made.graph.node)
    assert kinds["LayerNormalization"] == 2 and kinds["Softmax"] == 1
    assert kinds["MatMul"] == (6 if form is static_qdq else 2), "attention's own products"
    told = {name: node.op_type for node in made.graph.node for name in node.output}
    sums = [n for n in made.graph.node if n.op_type == "Add" and n.output[0] == "r"]
    assert told[sums[0].input[1]] == "LayerNormalization", "the residual path reads floats"


def test_the_kernels_take_the_biases_in():
    made = static_qoperator.apply(block(), batches, static_qoperator.Settings())
    kinds = Counter(node.op_type for node in made.graph.node)
    assert kinds["Add"] == 2, "of mask and residual"
    assert kinds["QuantizeLinear"] == 3, "one for the three products that read the same"
    assert "DequantizeLinear" not in kinds


def test_both_forms_answer_alike():
    made = [form.apply(block_once, batches, form.Settings()) for form in FORMS]
    np.testing.assert_allclose(run(made[0]), run(made[1]), atol=1e-4)


block_once = block()


@pytest.mark.parametrize("form", FORMS)
def test_what_is_told_to_stay_in_float_does(form):
    model = block()
    names = form.quantizable(model, form.Settings())
    assert names == ["e", "q0", "k0", "v0", "o0", "y"]
    every = form.apply(model, batches, form.Settings(floats=tuple(names)))
    np.testing.assert_allclose(run(every), run(model), atol=1e-5)
    one = form.apply(model, batches, form.Settings(floats=("q0", "e")))
    kinds = Counter(t.data_type for t in one.graph.initializer if len(t.dims) == 2)
    assert kinds[TensorProto.INT8] == 4
    assert far(model, one) < 0.06


def test_dynamic_keeps_floats_too():
    model = block()
    names = dynamic_int8.quantizable(model, dynamic_int8.Settings())
    assert names == ["e", "q0", "k0", "v0", "o0", "y"]
    made = dynamic_int8.apply(model, None, dynamic_int8.Settings(floats=tuple(names)))
    np.testing.assert_allclose(run(made), run(model), atol=1e-5)


def test_answers_do_not_depend_on_batch_mates():
    made = static_qoperator.apply(block(), batches, static_qoperator.Settings())
    alone = np.concatenate([run(made, IDS[i : i + 1], KEPT[i : i + 1]) for i in range(16)])
    np.testing.assert_allclose(alone, run(made)[:16], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lowest", (float(np.finfo(np.float32).min), -1e30 * 10))
def test_the_masks_constant_is_clamped(lowest):
    model = block(masked=lowest)
    made = static_qdq.apply(model, batches, static_qdq.Settings())
    tensors = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    assert tensors["masked"] == -10000.0
    assert far(model, made) < 0.06


def test_smoothing_pays_where_a_channel_stands_out():
    model = block(outlier=200.0)
    plain, smooth = (
        far(model, static_qoperator.apply(model, batches, static_qoperator.Settings(smooth=alpha)))
        for alpha in (0.0, 0.5)
    )
    assert smooth < plain / 2
    assert smooth < 0.08


def test_smoothing_folds_into_a_norm_that_nothing_else_reads():
    model = block()
    kinds = Counter(
        node.op_type
        for node in static_qdq.apply(model, batches, static_qdq.Settings(smooth=0.5)).graph.node
    )
    assert kinds["Mul"] == 1 + 1 + 3, "the residual path reads x: Muls before x, c and the head"
    for node in model.graph.node:
        if node.output[0] == "r":
            node.input[1] = "e"  # as in a network that normalizes first
    made = static_qdq.apply(model, batches, static_qdq.Settings(smooth=0.5))
    assert Counter(node.op_type for node in made.graph.node)["Mul"] == 1 + 1 + 2
    assert far(model, made) < 0.08
