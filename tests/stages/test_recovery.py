"""Recovery: what costs most returns to float, measured on validation, within a bound."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgedistill.data import arrays
from edgedistill.graph import session
from edgedistill.graph.weights import Constants
from edgedistill.progress import silent
from edgedistill.schemes import _tables
from edgedistill.stages import _recovery
from edgedistill.tasks import text_classification as task

COSTS = {"a": 0.1, "b": 3.0, "c": 0.0, "d": 1.0}  # points that each costs in int8


def recover(*, allowed, most, costs=COSTS):
    asked = []

    def lost(floats):
        asked.append(floats)
        return sum(cost for name, cost in costs.items() if name not in floats)

    def moved(floats):
        (alone,) = [name for name in costs if name not in floats]
        return costs[alone] ** 2

    trial = _recovery.Trial(lost, moved, tuple(costs))
    before = sum(costs.values())
    kept, tried = _recovery.recover(
        trial, before=before, allowed=allowed, most=most, progress=silent
    )
    return kept, tried, asked


def test_the_worst_returns_first_until_what_is_left_is_allowed():
    kept, tried, asked = recover(allowed=0.5, most=4)
    assert kept == ("b", "d") and asked == [("b",), ("b", "d")]
    assert [one["lost_points"] for one in tried] == pytest.approx([1.1, 0.1])
    assert [one["moves"] for one in tried] == pytest.approx([9.0, 1.0])


def test_the_bound_holds_and_what_was_reached_is_kept():
    kept, tried, _ = recover(allowed=0.01, most=1)
    assert kept == ("b",) and len(tried) == 1


def test_what_does_not_help_stays_int8():
    kept, tried, _ = recover(allowed=0.0, most=3, costs={"a": -1.0, "b": -2.0, "c": 4.0})
    assert kept == ("c",), "what comes after only costs"
    trial = _recovery.Trial(lambda floats: 5.0, lambda floats: 1.0, ("a", "b"))
    kept, tried = _recovery.recover(trial, before=4.0, allowed=1.0, most=2, progress=silent)
    assert kept == () and len(tried) == 2


def planted(source, exported, tmp_path):
    """Return a tiny encoder whose pooler int8 can't hold: a huge weight of an input that is 0."""
    return scaled(source, exported, tmp_path / "planted", weight=1e4, channel=0.0)


def outlying(source, exported, tmp_path):
    """Return a tiny encoder of which one channel before the pooler is 300 times as large."""
    return scaled(source, exported, tmp_path / "outlying", weight=1 / 300, channel=300.0)[0]


def scaled(source, exported, out, *, weight, channel):
    """Scale a channel before the pooler, and the weights that read it; names the pooler too."""
    folder, _ = exported("bert")
    model = onnx.load(folder / "model.onnx")
    constants = Constants(model.graph)
    pooler = next(node for node in model.graph.node if node.op_type == "Gemm")
    norm = [node for node in model.graph.node if node.op_type == "LayerNormalization"][-1]
    for node, index, change in ((pooler, 1, weight), (norm, 1, channel), (norm, 2, channel)):
        values = constants.floats(node.input[index], rank=2 if node is pooler else 1).copy()
        values[..., 0] *= change
        node.input[index] = f"scaled.{node.op_type}.{index}"
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, node.input[index]))
    return spread(model, source, folder, out), pooler.output[0]


def spread(model, source, folder, out):
    """Write a graph that answers no label always, with the files of `folder` beside it."""
    head = [node for node in model.graph.node if node.op_type == "Gemm"][-1]
    bias = Constants(model.graph).floats(head.input[2], rank=1)
    values = bias - answers(model, source).mean(axis=0)
    head.input[2] = "planted.bias"
    model.graph.initializer.append(onnx.numpy_helper.from_array(values, "planted.bias"))
    out.mkdir()
    for file in folder.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    onnx.save(model, out / "model.onnx")
    return out


def answers(model, source):
    """Run a graph on the rows one by one."""
    running = session.start(model.SerializeToString())
    encoder = task.open_encoder(source.model, source.settings["encoder"])
    rows = arrays.Arrays(source.rows)
    feeds = (encoder.batch([rows.row(index)], integers="int64") for index in range(len(rows)))
    return np.concatenate([session.logits(running, feed) for feed in feeds])


def labelled(folder, source, out):
    """Write the rows with the float graph's own answers as their truth."""
    found = answers(onnx.load(folder / "model.onnx"), source).argmax(axis=1)
    rows = arrays.Arrays(source.rows)
    arrays.write(out, ({**rows.row(i), "truth": np.int64(t)} for i, t in enumerate(found)))
    return out


@pytest.mark.parametrize("scheme", ("dynamic_int8", "static_qoperator"))
def test_a_product_that_int8_cannot_hold_returns_to_float(scheme, tiny, exported, stage, tmp_path):
    source = tiny("bert")
    folder, name = planted(source, exported, tmp_path)
    validation = labelled(folder, source, tmp_path / "validation")
    inputs = {"graph.0": folder, "train.0": source.rows, "validation.0": validation}
    events: list = []
    told = {**source.settings, "scheme": scheme, "recover_points": 4.0}
    out, facts = stage("quantize", inputs, events.append, **told)
    seen = facts["recovered"]
    assert seen["before_points"] > 4 >= seen["after_points"]
    assert seen["tried"][0]["operator"] == name and name in seen["floats"]
    assert {event["unit"] for event in events if event["kind"] == "bar"} >= {"operators"}
    again, same = stage("quantize", inputs, **told)
    assert (again / "model.onnx").read_bytes() == (out / "model.onnx").read_bytes()
    assert same == facts
    _, off = stage("quantize", inputs, **{**told, "recover": 0})
    assert off["recovered"] is None
    assert off["against_parent"]["agreement_points"] < facts["against_parent"]["agreement_points"]


def test_outliers_of_activations_move_into_weights_before_anything_returns_to_float(
    tiny, exported, stage, tmp_path
):
    source = tiny("bert")
    folder = outlying(source, exported, tmp_path)
    inputs = {
        "graph.0": folder,
        "train.0": source.rows,
        "validation.0": labelled(folder, source, tmp_path / "validation"),
    }
    told = {**source.settings, "scheme": "static_qoperator", "recover_points": 20.0}
    _, facts = stage("quantize", inputs, **told)
    seen = facts["recovered"]
    assert seen["before_points"] > 20 >= seen["after_points"] == seen["milder_points"]
    assert seen["milder"] == {"smooth": 0.5} and "floats" not in seen


@pytest.mark.parametrize("told", ({"method": "percentile"}, {"method": "entropy"}, {"smooth": 0.5}))
def test_operators_are_ranked_whatever_finds_the_ranges(
    told, tiny, exported, stage, tmp_path, monkeypatch
):
    """Among them a table, which alone in int8 leaves no activation to look at."""
    source = tiny("bert")
    folder, _ = planted(source, exported, tmp_path)
    monkeypatch.setattr(_tables, "SMALLEST", 16)
    inputs = {
        "graph.0": folder,
        "train.0": source.rows,
        "validation.0": labelled(folder, source, tmp_path / "validation"),
    }
    settings = {**source.settings, "scheme": "static_qoperator", "scheme_settings": told}
    _, facts = stage("quantize", inputs, **settings, recover_points=0.0, recover=1)
    assert facts["recovered"]["of"] > 10
    assert facts["recovered"]["tried"]


def test_an_operator_to_leave_in_float_that_is_not_there_is_told(tiny, exported, stage):
    source = tiny("bert")
    inputs = {"graph.0": exported("bert")[0], "train.0": source.rows}
    events: list = []
    told = {"scheme": "dynamic_int8", "scheme_settings": {"floats": ["logit"]}}
    stage("quantize", inputs, events.append, **source.settings, **told)
    texts = [event["text"] for event in events if event["kind"] == "note"]
    assert any("floats names 'logit'" in text and "did you mean 'logits'" in text for text in texts)


@pytest.mark.parametrize("scheme", ("dynamic_int8", "static_qoperator"))
def test_a_table_that_int4_cannot_hold_is_int8_before_anything_returns_to_float(
    scheme, tiny, exported, stage, tmp_path, monkeypatch
):
    source = tiny("bert")
    given, _ = exported("bert")
    model = onnx.load(given / "model.onnx")
    folder = spread(model, source, given, tmp_path / "spread")
    validation = labelled(folder, source, tmp_path / "validation")
    inputs = {"graph.0": folder, "train.0": source.rows, "validation.0": validation}
    told = {
        **source.settings,
        "scheme": scheme,
        "recover_points": 25.0,
    }  # its answers are near ties
    monkeypatch.setattr(_tables, "LARGE", 4096)  # so that the tiny table is a large one
    out, facts = stage("quantize", inputs, **told)
    seen = facts["recovered"]
    assert seen["before_points"] <= 25 and "milder" not in seen
    assert kind_of_table(out) == onnx.TensorProto.UINT8

    real = _tables.four_bits
    monkeypatch.setattr(_tables, "four_bits", lambda table: real(table[::-1]))
    events: list = []
    out, facts = stage("quantize", inputs, events.append, **told)
    seen = facts["recovered"]
    assert seen["before_points"] > 25 >= seen["after_points"] == seen["milder_points"]
    assert seen["milder"] == {"embeddings": "int8"} and "floats" not in seen
    assert kind_of_table(out) == onnx.TensorProto.INT8
    assert any("with embeddings=int8" in event.get("text", "") for event in events)

    most = (out / "model.onnx").stat().st_size / 1e6 - 0.001
    out, facts = stage("quantize", inputs, **told, size_mb=most)
    assert "milder" not in facts["recovered"], "a file above the limit would gain nothing"
    assert (out / "model.onnx").stat().st_size / 1e6 <= most


def kind_of_table(folder):
    """Return the type in which the table of pieces lies."""
    graph = onnx.load(folder / "model.onnx").graph
    wide = [tensor for tensor in graph.initializer if len(tensor.dims) == 2 and tensor.dims[1] > 1]
    return max(wide, key=lambda tensor: tensor.dims[0]).data_type


def test_answers_of_padded_batches_are_counted(tiny, exported, stage):
    source = tiny("bert")
    inputs = {"graph.0": exported("bert")[0], "train.0": source.rows}
    for scheme in ("dynamic_int8", "static_qoperator"):
        _, facts = stage("quantize", inputs, **source.settings, scheme=scheme)
        told = facts["batched"]
        assert (told["batch"], told["rows"]) == (8, 60)
        assert told["changed_points"] <= (10 if scheme == "dynamic_int8" else 0)
