"""Tiny graphs and samples for the measuring tests, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgedistill.measure import sample

WIDTH = 16


def graph(path: Path, layers: int = 2, width: int = WIDTH) -> Path:
    """Write a chain of MatMul and Tanh: x (rows, width) -> y (rows, width)."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.Generator(np.random.PCG64(layers))
    nodes, weights, last = [], [], "x"
    for layer in range(layers):
        weight = (random.standard_normal((width, width)) / width).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{layer}"))
        made = "y" if layer == layers - 1 else f"t{layer}"
        nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], [f"h{layer}"]))
        nodes.append(helper.make_node("Tanh", [f"h{layer}"], [made]))
        last = made
    taken, given = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width]) for name in "xy"
    )
    made_graph = helper.make_graph(nodes, "tiny", [taken], [given], weights)
    model = helper.make_model(made_graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def rows(count: int, width: int = WIDTH) -> list[dict[str, np.ndarray]]:
    """Return graph inputs of growing length."""
    random = np.random.Generator(np.random.PCG64(0))
    return [{"x": random.random((n + 1, width), np.float32)} for n in range(count)]


@pytest.fixture
def make_graph(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a graph by name."""

    def make(name: str, layers: int = 2, width: int = WIDTH) -> Path:
        return graph(tmp_path / f"{name}.onnx", layers, width)

    return make


@pytest.fixture
def sample_folder(tmp_path: Path) -> Path:
    """Return an arrays folder of six rows, sorted by length."""
    sample.write(tmp_path / "sample", rows(6))
    return tmp_path / "sample"
