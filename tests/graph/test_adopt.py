"""What schemes and choices read of a stranger's graph: weights as they are fed, domains, signs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedistill.graph import adopt, session
from edgedistill.schemes import dynamic_int8, static_qoperator

DRAWS = np.random.default_rng(3)
WEIGHTS = DRAWS.normal(size=(5, 8)).astype(np.float32)
BIAS = DRAWS.normal(size=(1, 5)).astype(np.float32)


def graph(nodes, weights, *, domain="", opset=17):
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid(domain, opset)], ir_version=8)


def answers(model):
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)
    return session.logits(session.start(model.SerializeToString()), {"x": x})


def turned():
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    return graph(nodes, {"w": WEIGHTS})


def shared():
    nodes = [
        helper.make_node("Identity", ["w"], ["same"]),
        helper.make_node("Gemm", ["x", "same", "b"], ["y"], transB=1),
    ]
    return graph(nodes, {"w": WEIGHTS, "b": BIAS})


@pytest.mark.parametrize("made", [turned, shared])
@pytest.mark.parametrize("scheme", [dynamic_int8, static_qoperator])
def test_weights_that_a_graph_turns_in_each_run_are_quantized(made, scheme):
    right = answers(made())
    model, _ = adopt.quantizable(made())
    assert np.allclose(answers(model), right, atol=1e-6)
    assert [node.op_type for node in model.graph.node] in (["MatMul"], ["Gemm"])
    told = scheme.Settings()
    assert scheme.quantizable(model, told) == ["y"]
    rows = [{"x": np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)}]
    found = scheme.apply(model, lambda: iter(rows), told)
    assert adopt.precision(found) == "int8"
    assert np.abs(answers(found) - right).max() < 0.05 * np.abs(right).max()


def test_the_operators_own_domain_by_its_other_name():
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1, domain="ai.onnx")
    right = answers(graph([helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)], {"w": WEIGHTS}))
    model, _ = adopt.quantizable(graph([node], {"w": WEIGHTS}, domain="ai.onnx"))
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 17)]
    assert model.graph.node[0].domain == ""
    onnx.checker.check_model(model)
    assert np.array_equal(answers(model), right)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(("largest", "saturates"), [(127, True), (64, False)])
def test_weights_of_products_saturate_and_tables_do_not(constant, largest, saturates):
    weights = np.full((8, 5), largest, np.int8)
    table = np.full((8, 8), 127, np.int8)
    tensors = {"table": table, "ids": np.array([0, 1]), "w": weights}
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("MatMulInteger", ["u", "w"], ["y"]),
    ]
    if constant:
        value = numpy_helper.from_array(tensors.pop("w"))
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=value))
    assert adopt.saturates(graph(nodes, tensors)) == saturates
