"""Initialize: a student from the teacher's own layers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tiny

from edgedistill import plugins, settings
from edgedistill.errors import ModelError
from edgedistill.progress import silent
from edgedistill.stages import initialize
from edgedistill.train import weights


def run(tmp_path, kind="bert", progress=silent, name="out", **told):
    if not (tmp_path / "teacher").exists():
        tiny.model(tmp_path / "teacher", kind)
    family = "resnet" if kind in ("resnet", "bottleneck") else "encoder"
    values = {"task": tiny.task(kind), "family": family, **told}
    made = settings.coerce(initialize.Settings, values, "initialize")
    return initialize.run({"teacher.0": tmp_path / "teacher"}, made, tmp_path / name, progress)


def test_the_student_is_a_model_folder_with_the_teachers_encoder_and_labels(tmp_path):
    facts = run(tmp_path, shape={"layers": 2})
    assert facts["layers"] == [0, 2] and facts["name"] == "2x32" and not facts["fresh"]
    assert facts["shape"]["layers"] == 2 and facts["shape"]["vocabulary"] == 50
    out, teacher = tmp_path / "out", tmp_path / "teacher"
    for name in ("tokenizer.json", "labels.json", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (teacher / name).read_bytes()
    task = plugins.find("tasks", "text-classification")
    student = weights.load(out, task)
    assert weights.parameters(student) == facts["parameters"] < facts["teacher_parameters"]
    config = json.loads((out / "config.json").read_text())
    assert config["num_hidden_layers"] == 2 and config["dtype"] == "float32"
    assert list(config["id2label"].values()) == list(tiny.LABELS)
    assert not {"_name_or_path", "transformers_version"} & set(config)


def test_layers_can_be_given(tmp_path):
    assert run(tmp_path, shape={"layers": 2}, layers=[2, 3])["layers"] == [2, 3]


def test_the_same_step_writes_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        run(tmp_path, shape={"layers": 1}, name=name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "two").iterdir())
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_random_start_warns(tmp_path):
    told = []
    facts = run(tmp_path, progress=told.append, shape={"layers": 2}, init="random")
    assert not facts["copied"]
    assert any("random" in event.get("text", "") for event in told)


def test_a_resnet_is_narrowed(tmp_path):
    shape = {"blocks": 2, "channels": 16, "embedding": 8}
    shape |= {"blocks.0": 1, "blocks.1": 1, "channels.0": 8, "channels.1": 16}
    facts = run(tmp_path, "resnet", shape=shape)
    assert facts["name"] == "2x16" and facts["sliced"] and not facts["fresh"]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["hidden_sizes"] == [8, 16] and config["depths"] == [1, 1]


@pytest.mark.parametrize("kind", ["bert", "vit", "resnet"])
def test_denormal_weights_become_zero(tmp_path, kind):
    tiny.model(tmp_path / "teacher", kind)
    model = weights.load(tmp_path / "teacher", plugins.find("tasks", tiny.task(kind)))
    _name, first = next(iter(model.named_parameters()))
    first.data.view(-1)[0] = 1e-39
    weights.save(model, tmp_path / "out", beside=tmp_path / "teacher")
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "out" / "model.safetensors")
    smallest = [t.abs()[t != 0].min() for t in saved.values() if t.is_floating_point() and t.any()]
    assert min(smallest) >= 1e-30


# ---------------------------------------------------------------- other checkpoints, other heads


def head(folder):
    from safetensors.numpy import load_file

    found = load_file(folder / "model.safetensors")
    return {name: value for name, value in found.items() if name.startswith("classifier")}


@pytest.mark.parametrize(
    "labels",
    [("red", "green"), ("red", "green", "blue", "pink"), ("red", "green", "pink")],
    ids=["fewer", "more", "another"],
)
def test_a_head_for_other_labels_is_made_new(tmp_path, labels):
    facts = run(tmp_path, shape={"layers": 4}, labels=labels)
    out = tmp_path / "out"
    assert facts["head"] == "new"
    assert json.loads((out / "labels.json").read_text()) == list(labels)
    config = json.loads((out / "config.json").read_text())
    assert list(config["id2label"].values()) == list(labels)
    made, theirs = head(out)["classifier.weight"], head(tmp_path / "teacher")["classifier.weight"]
    assert made.shape == (len(labels), 32)
    assert made.shape != theirs.shape or not np.allclose(made, theirs)
    run(tmp_path, shape={"layers": 4}, labels=labels, name="again")
    assert (head(tmp_path / "again")["classifier.weight"] == made).all()


def test_a_head_for_our_labels_in_our_order_is_kept(tmp_path):
    facts = run(tmp_path, shape={"layers": 2}, labels=tiny.LABELS)
    assert facts["head"] == "kept"
    ours, theirs = head(tmp_path / "out"), head(tmp_path / "teacher")
    assert all((ours[name] == theirs[name]).all() for name in theirs)


@pytest.mark.parametrize("kind", ["bert", "roberta", "vit", "resnet"])
def test_a_head_for_our_labels_in_another_order_is_put_in_ours(tmp_path, kind):
    shape = {} if kind == "resnet" else {"layers": 4}
    facts = run(tmp_path, kind, shape=shape, labels=("blue", "red", "green"))
    assert facts["head"] == "kept"
    from safetensors.numpy import load_file

    ours, theirs = (load_file(tmp_path / n / "model.safetensors") for n in ("out", "teacher"))
    moved = {name for name in theirs if not np.array_equal(ours[name], theirs[name])}
    assert moved and all(len(theirs[name]) == 3 for name in moved)
    for name in moved:
        assert np.array_equal(ours[name], theirs[name][[2, 0, 1]])


def test_a_config_alone_starts_from_random_weights_when_told_so(tmp_path):
    tiny.model(tmp_path / "whole", labels=None)
    (tmp_path / "teacher").mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(tmp_path / "whole" / name, tmp_path / "teacher" / name)
    with pytest.raises(ModelError, match=r"student\.init=random"):
        run(tmp_path, labels=tiny.LABELS)
    told = {"labels": tiny.LABELS, "init": "random", "shape": {"layers": 4}}
    facts = run(tmp_path, name="a", **told)
    assert facts["head"] == "new" and facts["parameters"] > 0
    run(tmp_path, name="b", **told)
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert one == two


def test_a_headless_checkpoint_of_another_type_learns_from_the_teacher(tmp_path):
    """DistilBERT from BERT: initialize, label, distill, export; the outputs are the labels."""
    from edgedistill.stages import distill, export, label

    tiny.model(tmp_path / "bert", "bert")
    tiny.model(tmp_path / "teacher", "distilbert", labels=None)  # the student's checkpoint
    labels = ("blue", "green", "red")
    facts = run(tmp_path, "distilbert", labels=labels, shape={"layers": 4}, seed=3)
    assert facts["head"] == "new"
    for name, seed in (("train", 0), ("validation", 1)):
        tiny.rows(tmp_path / name, tmp_path / "out", "distilbert", count=48, seed=seed)
    tiny.rows(tmp_path / "theirs", tmp_path / "bert", "bert", count=48)
    told = {"encoder": tiny.encoder(tmp_path / "bert", "bert")}
    inputs = {"teacher.0": tmp_path / "bert", "rows.0": tmp_path / "theirs"}
    label.run(inputs, settings.coerce(label.Settings, told, ""), tmp_path / "labels", silent)
    ours = {"encoder": tiny.encoder(tmp_path / "out", "distilbert"), "family": "encoder"}
    inputs = {
        "student.0": tmp_path / "out",
        "train.0": tmp_path / "train",
        "labels.0": tmp_path / "labels",
        "validation.0": tmp_path / "validation",
    }
    made = settings.coerce(distill.Settings, {**ours, "steps": 4, "batch": 16}, "")
    distill.run(inputs, made, tmp_path / "trained", silent)
    (tmp_path / "graph").mkdir()
    done = export.run(
        {"model.0": tmp_path / "trained"},
        settings.coerce(export.Settings, {"encoder": ours["encoder"]}, ""),
        tmp_path / "graph",
        silent,
    )
    assert done["compared"] and json.loads((tmp_path / "graph/labels.json").read_text()) == [
        *labels
    ]
