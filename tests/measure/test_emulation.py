"""Another processor, by emulation: what it answers, and what is said where it can't be."""

import platform
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedistill.errors import ModelError, SurroundingsError, UsageError
from edgedistill.measure import emulation

there = pytest.mark.skipif(
    platform.machine() != "x86_64" or not any(map(shutil.which, emulation.QEMU)),
    reason="qemu-user-static is not installed",
)
SESSION = {"threads": 1, "optimization": "all"}


def product(path, terms=64):
    """Write u8 x s8 products of `terms` terms of 255 x 127, which saturate at 16 bits by pairs."""
    weights = numpy_helper.from_array(np.full((terms, 8), 127, np.int8), "weights")
    nodes = [
        helper.make_node("MatMulInteger", ["x", "weights"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["out"], to=TensorProto.FLOAT),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.UINT8, ["batch", terms])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 8])
    graph = helper.make_graph(nodes, "g", [given], [out], [weights])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


@there
@pytest.mark.parametrize(("cpu", "sum_"), [("haswell", 1_048_544), ("Nehalem", 2_072_640)])
def test_full_range_products_saturate_on_haswell_and_nowhere_else(tmp_path, cpu, sum_):
    model = product(tmp_path / "m.onnx")
    feeds = [{"x": np.full((1, 64), 255, np.uint8)}] * 2
    made = emulation.outputs(emulation.find(cpu), model, SESSION, feeds, "out")
    assert [each.shape for each in made] == [(1, 8), (1, 8)]
    assert {float(value) for each in made for value in each.ravel()} == {sum_}


@there
def test_a_model_that_cannot_be_run_there_is_one_line(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match="as Haswell: "):
        emulation.outputs(emulation.find("Haswell"), tmp_path / "m.onnx", SESSION, [], "out")


@there
def test_an_unknown_processor_names_the_nearest():
    with pytest.raises(UsageError, match="'haswel': did you mean 'Haswell'"):
        emulation.find("haswel")


def test_without_qemu_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(SurroundingsError, match="apt install qemu-user-static"):
        emulation.find("Haswell")
