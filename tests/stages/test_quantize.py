"""The stage quantize: every family to int8 that agrees with its parent; chance is visible."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgedistill import plugins
from edgedistill.data import arrays
from edgedistill.errors import JobError, ModelError
from edgedistill.graph import operators
from edgedistill.schemes import _tables

SCHEMES = ("static_qdq", "static_qoperator")
FAMILIES = ("bert", "roberta", "distilbert", "electra", "mpnet", "vit", "deit", "resnet")


def scheme_of(model_type: str) -> str:
    return "static_qdq" if model_type == "resnet" else "dynamic_int8"


@pytest.mark.parametrize("reduce_range", (False, True))
@pytest.mark.parametrize("model_type", FAMILIES)
def test_each_family_in_int8_agrees_with_its_parent(
    model_type, reduce_range, tiny, exported, stage
):
    source, (folder, parent) = tiny(model_type), exported(model_type)
    out, facts = stage(
        "quantize",
        {"graph.0": folder, "train.0": source.rows},
        **source.settings,
        scheme=scheme_of(model_type),
        scheme_settings={"reduce_range": reduce_range},
    )
    like = facts["against_parent"]
    assert like["rows"] == 60
    assert like["cosine"] > 0.99, like
    assert like["agreement_points"] >= 90, like
    assert facts["bytes"] < parent["bytes"]
    assert (facts["opset"], facts["ir"], facts["domains"]) == (17, 8, {})
    assert ("x86-64+avx2" in facts["processors"]) == reduce_range
    assert operators.missing(out / "model.onnx", "1.16") == []
    assert sorted(one.name for one in out.iterdir()) == sorted(one.name for one in folder.iterdir())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("model_type", ("bert", "distilbert", "mpnet", "vit", "resnet"))
def test_static_schemes_serve_encoders_and_convolutions(model_type, scheme, tiny, exported, stage):
    source, (folder, parent) = tiny(model_type), exported(model_type)
    out, facts = stage(
        "quantize",
        {"graph.0": folder, "train.0": source.rows},
        **source.settings,
        scheme=scheme,
        scheme_settings={"method": "percentile"},
    )
    like = facts["against_parent"]
    assert like["cosine"] > 0.99 and like["agreement_points"] >= 90, like
    assert facts["bytes"] < parent["bytes"]
    assert operators.missing(out / "model.onnx", "1.17") == []
    kernels = {"QLinearConv"} if model_type == "resnet" else {"MatMulIntegerToFloat"}
    assert kernels <= {*facts["fusions"]}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_large_weight_is_int8(model_type, tiny, exported, stage):
    source = tiny(model_type)
    out, _ = stage(
        "quantize",
        {"graph.0": exported(model_type)[0], "train.0": source.rows},
        **source.settings,
        scheme=scheme_of(model_type),
    )
    graph = onnx.load(out / "model.onnx").graph
    large = [
        (tensor.name, list(tensor.dims))
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
        and len(tensor.dims) > 1
        and (
            (len(tensor.dims) == 2 and tensor.name not in looked_up(graph))
            or np.prod(tensor.dims) >= 4096
        )
    ]
    assert large == [], "head, pooler and embeddings are quantized too"


def test_parameters_are_those_of_the_model(tiny, exported, stage, monkeypatch):
    monkeypatch.setattr(_tables, "LARGE", 4096)  # so that the tiny table is packed
    source = tiny("bert")
    graph, about = exported("bert")
    inputs = {"graph.0": graph, "train.0": source.rows}
    _, facts = stage("quantize", inputs, **source.settings)
    assert facts["operators"]["BitShift"] == 3
    assert facts["parameters"] == about["parameters"]


def looked_up(graph) -> set[str]:
    return {node.input[0] for node in graph.node if node.op_type == "Gather"}


def test_convolutions_and_sums_run_as_integers(tiny, exported, stage):
    source = tiny("resnet")
    _, facts = stage(
        "quantize",
        {"graph.0": exported("resnet")[0], "train.0": source.rows},
        **source.settings,
        scheme="static_qdq",
    )
    convolutions = facts["operators"]["Conv"]
    assert facts["fusions"]["QLinearConv"] == convolutions
    assert facts["fusions"]["QLinearAdd"] == 2
    assert facts["fusions"]["QGemm"] == 1


def test_several_parts_of_training_rows_are_drawn_from(tiny, exported, stage):
    source = tiny("bert")
    both = {"graph.0": exported("bert")[0], "train.0": source.rows, "train.1": source.rows}
    _, facts = stage("quantize", both, **source.settings, rows=100)
    assert facts["against_parent"]["rows"] == 100


def test_a_result_at_chance_is_said(tiny, exported, stage, tmp_path):
    broken = tmp_path / "at_chance.py"
    broken.write_text(BROKEN)
    events: list = []
    source = tiny("bert")
    _, facts = stage(
        "quantize",
        {"graph.0": exported("bert")[0], "train.0": source.rows},
        events.append,
        **source.settings,
        scheme=str(broken),
    )
    assert facts["against_parent"]["agreement_points"] < 90
    assert any(event["kind"] == "note" and "at_chance" in event["text"] for event in events)
    events.clear()
    inputs = {"graph.0": exported("bert")[0], "train.0": source.rows}
    told = {**source.settings, "scheme": str(broken), "trained": False}
    stage("quantize", inputs, events.append, **told)
    assert not events, "what an untrained graph answers is chance"


BROKEN = """
from dataclasses import dataclass
from edgedistill.schemes.dynamic_int8 import *
from edgedistill.schemes import dynamic_int8
@dataclass(frozen=True)
class Settings:
    pass
def exact_on(settings):
    return ()
def apply(model, calibration, settings):
    import numpy as np
    from onnx import numpy_helper
    made = dynamic_int8.apply(model, None, dynamic_int8.Settings())
    for tensor in made.graph.initializer:
        if tensor.data_type == 3:
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(values[::-1].copy() * -1, tensor.name))
    return made
"""


def test_an_unknown_setting_of_a_scheme_names_the_nearest(tiny, exported, stage):
    with pytest.raises(JobError, match="reduce_range"):
        stage(
            "quantize",
            {"graph.0": exported("bert")[0], "train.0": tiny("bert").rows},
            **tiny("bert").settings,
            scheme_settings={"reduce_rang": True},
        )


def test_a_graph_of_which_nothing_can_be_int8_is_not_called_so(tiny, exported, stage, monkeypatch):
    source = tiny("bert")
    scheme = plugins.find("schemes", "dynamic_int8")
    inputs = {"graph.0": exported("bert")[0], "train.0": source.rows}
    assert stage("quantize", inputs, **source.settings)[1]["precision"] == "int8"
    monkeypatch.setattr(scheme, "apply", lambda model, calibration, told: model)
    assert stage("quantize", inputs, **source.settings)[1]["precision"] == "fp32"


def test_no_rows_is_an_error(tiny, exported, stage, tmp_path):
    arrays.write(tmp_path / "none", [])
    with pytest.raises(ModelError, match="no training rows"):
        stage(
            "quantize",
            {"graph.0": exported("bert")[0], "train.0": tmp_path / "none"},
            **tiny("bert").settings,
        )
