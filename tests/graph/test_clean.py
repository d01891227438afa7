"""Cleaning: nothing for nothing in the file, and the same bytes for the same graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedistill.errors import ExportError
from edgedistill.graph import clean, session


def graph(*, opset: int = 17, ids: bool = False):
    kind = TensorProto.INT64 if ids else TensorProto.FLOAT
    weights = numpy_helper.from_array(np.array([[1.0, 1e-38], [-1e-31, 2.0]], np.float32), "w")
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.float32([3]), "")),
        helper.make_node("Gather" if ids else "MatMul", ["w", "x"] if ids else ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "c"], ["y"], doc_string="/home/someone/model.py:12"),
    ]
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", kind, ["batch"] if ids else ["batch", 2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
            [weights],
        ),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)],
        ir_version=10,
    )
    made.graph.node[2].metadata_props.add(key="trace", value="/home/someone/model.py")
    made.metadata_props.add(key="path", value="/home/someone")
    made.graph.value_info.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, None))
    made.producer_name = "someone"
    return made


def test_paths_traces_and_unused_domains_go():
    made = clean.clean(graph(), opset=17, ir=8)
    data = clean.serialize(made)
    assert b"/home" not in data and b"someone" not in data
    assert [(each.domain, each.version) for each in made.opset_import] == [("", 17)]
    assert made.ir_version == 8
    assert not made.graph.value_info


def test_constants_become_initializers_and_the_result_stays():
    feed = {"x": np.float32([[1, 2], [3, 4]])}
    before = session.logits(session.start(graph().SerializeToString()), feed)
    made = clean.clean(graph())
    assert [node.op_type for node in made.graph.node] == ["MatMul", "Add"]
    np.testing.assert_array_equal(
        session.logits(session.start(clean.serialize(made)), feed), before
    )


def test_denormal_weights_are_zero():
    made = clean.clean(graph())
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    np.testing.assert_array_equal(tensors["w"], np.float32([[1, 0], [0, 2]]))


def test_an_opset_that_was_not_told_is_an_error():
    with pytest.raises(ExportError, match="opset 18, not 17"):
        clean.clean(graph(opset=18), opset=17)


def test_narrow_inputs_are_int32_with_a_cast_behind():
    made = graph(ids=True)
    clean.narrow(made)
    onnx.checker.check_model(made)
    running = session.start(made.SerializeToString())
    assert running.get_inputs()[0].type == "tensor(int32)"
    found = session.logits(running, {"x": np.int32([1, 0])})
    np.testing.assert_allclose(found, [[3, 5], [4, 3]])


def test_serializing_is_repeatable():
    assert clean.serialize(graph()) == clean.serialize(graph())


def test_an_invalid_graph_is_not_saved(tmp_path):
    made = graph()
    made.graph.node[1].input[0] = "nothing"
    with pytest.raises(ExportError, match="valid graph"):
        clean.save(made, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
