"""The stage export: every family, any batch and length, the same bytes everywhere."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

from edgedistill.errors import ExportError
from edgedistill.graph import session
from edgedistill.tasks import text_classification

FAMILIES = ("bert", "roberta", "distilbert", "electra", "mpnet", "vit", "deit", "resnet")
ENCODERS = FAMILIES[:-1]
TEXTS = FAMILIES[:5]


@pytest.mark.parametrize("model_type", FAMILIES)
def test_each_family_exports_and_agrees_with_torch(model_type, exported):
    folder, facts = exported(model_type)
    assert len(facts["compared"]["shapes"]) >= 3
    assert facts["compared"]["difference"] < 1e-5
    assert (facts["opset"], facts["ir"], facts["domains"]) == (17, 8, {})
    assert list(facts["outputs"]["logits"]["shape"]) == ["batch", 3]
    wanted = ["batch", "length"] if model_type in TEXTS else ["batch", 1, 16, 16]
    assert all(each["shape"] == wanted for each in facts["inputs"].values())
    kept = "tokenizer.json" if model_type in TEXTS else "image.json"
    assert sorted(file.name for file in folder.iterdir()) == [
        "labels.json",
        "model.onnx",
        kept,
    ] or (sorted(file.name for file in folder.iterdir()) == [kept, "labels.json", "model.onnx"])


@pytest.mark.parametrize("model_type", FAMILIES)
def test_no_initializer_is_left_that_nothing_reads(model_type, exported):
    """onnxruntime warns of each at every load."""
    graph = onnx.load(exported(model_type)[0] / "model.onnx").graph
    read = {name for node in graph.node for name in node.input}
    assert [each.name for each in graph.initializer if each.name not in read] == []


@pytest.mark.parametrize("model_type", ENCODERS)
def test_normalisation_is_fused(model_type, exported):
    fusions = exported(model_type)[1]["fusions"]
    assert fusions.get("LayerNormalization", 0) + fusions.get("SkipLayerNormalization", 0) >= 5


@pytest.mark.parametrize("model_type", ("bert", "electra", "distilbert"))
def test_no_shape_or_mask_is_computed_at_length(model_type, exported):
    operators = exported(model_type)[1]["operators"]
    assert operators.get("Concat", 0) == 0, "a target of a Reshape is still computed"
    assert operators.get("Expand", 0) == 0, "the mask is still spread over the batch"


@pytest.mark.parametrize("model_type", TEXTS)
def test_padding_changes_nothing(model_type, exported, tiny):
    folder = exported(model_type)[0]
    encoder = text_classification.open_encoder(folder, tiny(model_type).settings["encoder"])
    short, long = encoder.encode({"text": "play my song"}), encoder.encode({"text": "the " * 30})
    running = session.start(folder / "model.onnx")
    alone = session.logits(running, encoder.batch([short]))
    beside = session.logits(running, encoder.batch([short, long]))
    np.testing.assert_allclose(beside[:1], alone, rtol=1e-4, atol=1e-4)


def test_integers_can_be_int32(tiny, stage):
    source = tiny("bert")
    folder, facts = stage("export", {"model.0": source.model}, integers="int32", **source.settings)
    assert {each["type"] for each in facts["inputs"].values()} == {"int32"}
    encoder = text_classification.open_encoder(folder, source.settings["encoder"])
    feed = encoder.batch([encoder.encode({"text": "my bank"})], integers="int32")
    assert session.logits(session.start(folder / "model.onnx"), feed).shape == (1, 3)


@pytest.mark.parametrize("model_type", ("bert", "distilbert", "electra"))
def test_a_graph_for_single_rows_takes_ids_alone_and_answers_to_the_bit(
    model_type, tiny, stage, exported
):
    source = tiny(model_type)
    folder, facts = stage("export", {"model.0": source.model}, single=True, **source.settings)
    whole, before = exported(model_type)
    assert {name: each["shape"] for name, each in facts["inputs"].items()} == {
        "input_ids": [1, "length"]
    }
    assert facts["nodes"] < before["nodes"]
    nodes = onnx.load(folder / "model.onnx").graph.node
    perms = [list(node.attribute[0].ints) for node in nodes if node.op_type == "Transpose"]
    assert perms and all(len(perm) == 3 for perm in perms), "heads without the batch"
    encoder = text_classification.open_encoder(folder, source.settings["encoder"])
    ours, theirs = (session.start(each / "model.onnx") for each in (folder, whole))
    for text in ("my", "play my song", "the " * 30):
        feed = encoder.batch([encoder.encode({"text": text})])
        np.testing.assert_array_equal(session.logits(ours, feed), session.logits(theirs, feed))


def test_segments_stay_where_texts_come_in_pairs(tiny, stage):
    source = tiny("bert")
    settings = {**source.settings, "encoder": {**source.settings["encoder"], "pair": True}}
    _, facts = stage("export", {"model.0": source.model}, single=True, **settings)
    assert list(facts["inputs"]) == ["input_ids", "token_type_ids"]


@pytest.mark.parametrize("model_type", ("mpnet", "vit"))
def test_every_graph_for_single_rows_runs_what_ships(model_type, tiny, stage):
    """Where an input can't go, the graph stays whole; images have none to lose."""
    source = tiny(model_type)
    folder, facts = stage("export", {"model.0": source.model}, single=True, **source.settings)
    settings = {**source.settings, "batch": 1}
    made, _ = stage("evaluate", {"graph.0": folder, "rows.0": source.rows}, **settings)
    assert facts["compared"]["difference"] < 1e-5 and made.is_dir()


@pytest.mark.parametrize("model_type", ENCODERS)
def test_the_last_layer_runs_for_the_first_token_alone(model_type, exported):
    """A cut goes before the last queries; every product after it has one row."""
    nodes = onnx.load(exported(model_type)[0] / "model.onnx").graph.node
    assert any(".first_1" in name for node in nodes for name in node.output)


@pytest.mark.parametrize("model_type", ("bert", "roberta"))
def test_a_fixed_graph_takes_one_shape(model_type, tiny, stage, exported):
    source = tiny(model_type)
    folder, facts = stage("export", {"model.0": source.model}, fixed=24, **source.settings)
    assert all(each["shape"] == [1, 24] for each in facts["inputs"].values())
    settings = {**source.settings, "batch": 1}
    ours, _ = stage("evaluate", {"graph.0": folder, "rows.0": source.rows}, **settings)
    free, _ = stage(
        "evaluate", {"graph.0": exported(model_type)[0], "rows.0": source.rows}, **settings
    )
    from edgedistill.data.arrays import Arrays

    np.testing.assert_allclose(
        Arrays(ours).stacked("logits"), Arrays(free).stacked("logits"), rtol=1e-4, atol=1e-4
    )


def test_a_higher_opset_and_ir_are_what_was_told(tiny, stage):
    source = tiny("bert")
    _, facts = stage("export", {"model.0": source.model}, opset=20, ir=9, **source.settings)
    assert (facts["opset"], facts["ir"]) == (20, 9)


def test_a_float16_checkpoint_is_exported_in_float32(tiny, stage, tmp_path):
    import shutil

    from safetensors.numpy import load_file, save_file

    source = tiny("bert")
    shutil.copytree(source.model, tmp_path / "half")
    config = json.loads((tmp_path / "half/config.json").read_text())
    (tmp_path / "half/config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    weights = load_file(tmp_path / "half/model.safetensors")
    save_file(
        {name: value.astype(np.float16) for name, value in weights.items()},
        tmp_path / "half/model.safetensors",
        metadata={"format": "pt"},
    )
    folder, _ = stage("export", {"model.0": tmp_path / "half"}, **source.settings)
    graph = onnx.load(folder / "model.onnx").graph
    assert onnx.TensorProto.FLOAT16 not in {tensor.data_type for tensor in graph.initializer}


def test_labels_that_do_not_fit_the_head_are_an_error(tiny, stage, tmp_path):
    import shutil

    source = tiny("bert")
    shutil.copytree(source.model, tmp_path / "model")
    (tmp_path / "model/labels.json").write_text(json.dumps(["one", "two"]))
    with pytest.raises(ExportError, match=r"3 outputs.*names 2"):
        stage("export", {"model.0": tmp_path / "model"}, **source.settings)


def test_the_graph_holds_no_path_and_no_trace(exported, tiny):
    data = (exported("bert")[0] / "model.onnx").read_bytes()
    assert str(tiny("bert").model.parent).encode() not in data
    assert b".py" not in data and b"/home" not in data and b"/usr" not in data


SCRIPT = """
import sys
from pathlib import Path
from edgedistill.progress import silent
from edgedistill.settings import coerce
from edgedistill.stages import export, quantize
import json
model, rows, out = map(Path, sys.argv[1:4])
settings = json.loads(sys.argv[4])
(out / "float").mkdir(parents=True)
(out / "int8").mkdir()
del settings["family"]
export.run({"model.0": model}, coerce(export.Settings, settings, "export"), out / "float", silent)
told = coerce(quantize.Settings, {**settings, "scheme": sys.argv[5], "rows": 20}, "quantize")
quantize.run({"graph.0": out / "float", "train.0": rows}, told, out / "int8", silent)
"""


@pytest.mark.parametrize("model_type, scheme", [("bert", "dynamic_int8"), ("resnet", "static_qdq")])
def test_two_processes_in_two_folders_give_the_same_bytes(model_type, scheme, tiny, tmp_path):
    import shutil

    source = tiny(model_type)
    digests = []
    for seed in ("1", "2"):
        place = tmp_path / f"a folder of another name {seed}"
        shutil.copytree(source.model, place / "model")
        command = [str(place / "model"), str(source.rows), str(place / "out")]
        subprocess.run(
            [sys.executable, "-c", SCRIPT, *command, json.dumps(source.settings), scheme],
            check=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        files = sorted((place / "out").rglob("*.onnx"))
        digests.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
    assert len(digests[0]) == 2
    assert digests[0] == digests[1]
