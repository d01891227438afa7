"""Sessions: one mapping, one set of options; bad graphs are one clear line."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from edgedistill.errors import JobError, ModelError
from edgedistill.graph import inspect, session


def graph(first="batch", length="length"):
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [first, length]) for n in "xy"]
    return helper.make_model(
        helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def test_options_are_those_of_the_mapping():
    told = {"threads": 2, "spinning": True, "arena": False, "prepacking": False}
    made = session.options({**told, "optimization": "basic", "config": {"session.x": "7"}})
    assert made.intra_op_num_threads == 2 and made.inter_op_num_threads == 1
    assert made.enable_cpu_mem_arena is False
    assert made.graph_optimization_level.name == "ORT_ENABLE_BASIC"
    entry = made.get_session_config_entry
    assert entry("session.intra_op.allow_spinning") == "1"
    assert entry("session.disable_prepacking") == "1"
    assert entry("session.x") == "7"


def test_the_defaults_are_one_quiet_thread():
    made = session.options({})
    assert made.intra_op_num_threads == 1
    assert made.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert made.graph_optimization_level.name == "ORT_ENABLE_ALL"


def test_unknown_settings_name_the_nearest():
    with pytest.raises(JobError, match="did you mean 'spinning'"):
        session.options({"spining": True})
    with pytest.raises(JobError, match="did you mean 'extended'"):
        session.options({"optimization": "extend"})


def test_a_graph_that_is_none_is_one_line(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no graph at all")
    with pytest.raises(ModelError, match=r"^model\.onnx can't be loaded") as caught:
        session.start(path)
    assert "\n" not in str(caught.value)


def test_what_is_fixed_is_read_from_the_inputs():
    assert session.fixed(session.start(graph().SerializeToString())) == (0, 0)
    assert session.fixed(session.start(graph(1, 24).SerializeToString())) == (1, 24)


@pytest.mark.parametrize("data", (b"", b"junk", b"\x08\x08"))
def test_reading_a_file_that_is_no_graph(data, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="no ONNX graph"):
        inspect.read(path)


def test_external_data_that_is_missing_is_named(tmp_path):
    import numpy as np
    import onnx
    from onnx import numpy_helper

    made = graph()
    made.graph.initializer.append(numpy_helper.from_array(np.ones(4096, np.float32), "w"))
    made.graph.node[0].op_type = "Add"
    made.graph.node[0].input.append("w")
    path = tmp_path / "model.onnx"
    onnx.save(made, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match="another file"):
        inspect.read(path)


def test_a_description_says_what_is_there(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(graph().SerializeToString())
    assert inspect.describe(path) == {
        "nodes": 1,
        "operators": {"Relu": 1},
        "fusions": {},
        "opset": 17,
        "ir": 8,
        "domains": {},
        "inputs": {"x": {"type": "float", "shape": ["batch", "length"]}},
        "outputs": {"y": {"type": "float", "shape": ["batch", "length"]}},
        "parameters": 0,
        "bytes": path.stat().st_size,
    }
