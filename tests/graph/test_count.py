"""Counting products: by hand for small graphs, the same for a graph and its int8."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedistill.errors import ModelError
from edgedistill.graph import count
from edgedistill.schemes import dynamic_int8, static_qdq


def weights(name, *shape):
    draws = np.random.default_rng(len(name))
    return numpy_helper.from_array(draws.normal(size=shape).astype(np.float32), name)


def model(nodes, x, y, tensors, domains=()):
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(each, 1) for each in domains)]
    return helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
            tensors,
        ),
        opset_imports=opsets,
        ir_version=8,
    )


def saved(made, folder):
    path = folder / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def encoder():
    """x (b, l, 8) -> MatMul to 16 -> scores with itself -> Gemm of the flat rows to 4."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Transpose", ["h"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["h", "t"], ["s"]),
        helper.make_node("MatMul", ["s", "h"], ["m"]),
        helper.make_node("ReduceMean", ["m"], ["p"], axes=[1], keepdims=0),
        helper.make_node("Gemm", ["p", "g", "c"], ["y"], transB=1),
    ]
    tensors = [weights("w", 8, 16), weights("g", 4, 16), weights("c", 4)]
    return model(nodes, ["b", "l", 8], ["b", 4], tensors)


def test_matrix_products_by_hand(tmp_path):
    found = count.products(saved(encoder(), tmp_path), {"x": (3, 5, 8)})
    projection, inside, head = 3 * 5 * 8 * 16, 2 * 3 * 5 * 5 * 16, 3 * 16 * 4
    assert found == {"fp32": 2.0 * (projection + inside + head), "int8": 0.0}


def test_int8_moves_the_products_with_weights(tmp_path):
    made = dynamic_int8.apply(encoder(), None, dynamic_int8.Settings())
    found = count.products(saved(made, tmp_path), {"x": (3, 5, 8)})
    projection, inside, head = 3 * 5 * 8 * 16, 2 * 3 * 5 * 5 * 16, 3 * 16 * 4
    assert found == {"fp32": 2.0 * inside, "int8": 2.0 * (projection + head)}


def convolutional():
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["h"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "d"], ["e"], group=6),
        helper.make_node("GlobalAveragePool", ["e"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "g", "c"], ["y"], transB=1),
    ]
    tensors = [weights("w", 6, 2, 3, 3), weights("b", 6), weights("d", 6, 1, 1, 1)]
    tensors += [weights("g", 5, 6), weights("c", 5)]
    return model(nodes, ["n", 2, 8, 8], ["n", 5], tensors)


def test_convolutions_by_hand_in_float_and_wrapped_int8(tmp_path):
    first, depthwise, head = 6 * 4 * 4 * 2 * 9, 6 * 4 * 4, 5 * 6
    wanted = 2.0 * 2 * (first + depthwise + head)
    shapes = {"x": (2, 2, 8, 8)}
    assert count.products(saved(convolutional(), tmp_path), shapes) == {"fp32": wanted, "int8": 0.0}
    rows = np.random.default_rng(0).normal(size=(4, 2, 8, 8)).astype(np.float32)
    made = static_qdq.apply(convolutional(), lambda: iter([{"x": rows}]), static_qdq.Settings())
    assert count.products(saved(made, tmp_path), shapes) == {"fp32": 0.0, "int8": wanted}


def test_the_graph_that_a_session_fused_counts_the_same(tmp_path):
    from edgedistill.graph import fuse

    made = dynamic_int8.apply(encoder(), None, dynamic_int8.Settings())
    path = saved(made, tmp_path)
    wanted = count.products(path, {"x": (3, 5, 8)})
    fused = fuse.optimized(path, {"optimization": "extended"})
    kinds = {node.op_type for node in fused.graph.node}
    assert kinds & {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"}
    assert count.products(saved(fused, tmp_path), {"x": (3, 5, 8)}) == wanted


def test_attention_counts_its_projections_and_its_inside(tmp_path):
    node = helper.make_node(
        "Attention", ["x", "w", "b"], ["y"], domain="com.microsoft", num_heads=2
    )
    tensors = [weights("w", 8, 24), weights("b", 24)]
    made = model([node], ["b", "l", 8], ["b", "l", 8], tensors, ("com.microsoft",))
    found = count.products(saved(made, tmp_path), {"x": (2, 5, 8)})
    assert found["fp32"] == 2.0 * (2 * 5 * 8 * 24 + 2 * 2 * 5 * 5 * 8)


def test_an_input_without_a_shape_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="input 'x'"):
        count.products(saved(encoder(), tmp_path), {})
