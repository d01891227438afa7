"""A checkpoint that lacks a layer, or holds one more than its config, is refused by name."""

from __future__ import annotations

import json

import pytest
import tiny

from edgedistill import plugins
from edgedistill.errors import ModelError
from edgedistill.train import weights


@pytest.fixture
def place(tmp_path):
    return tiny.model(tmp_path / "model", "bert", labels=tiny.LABELS) or tmp_path / "model"


def configured(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def without(folder, ending):
    from safetensors.numpy import load_file, save_file

    path = folder / "model.safetensors"
    tensors = {name: value for name, value in load_file(path).items() if not name.endswith(ending)}
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_hidden_layers": 9}, r"lack 80 tensors .*layer\.4\."),
        ({"num_hidden_layers": 2}, r"hold 32 tensors of layers .*layer\.2\."),
    ],
)
def test_layers_that_weights_and_config_do_not_share(place, changes, says):
    task = plugins.find("tasks", "text-classification")
    configured(place, **changes)
    with pytest.raises(ModelError, match=says):
        weights.load(place, task)
    with pytest.raises(ModelError, match=says):
        plugins.find("stages", "export").load(place, task)


def test_a_table_that_is_missing(place):
    without(place, "word_embeddings.weight")
    with pytest.raises(ModelError, match=r"lack 1 tensors .*word_embeddings"):
        weights.load(place, plugins.find("tasks", "text-classification"))


def test_a_new_head_of_several_modules_is_no_layer(tmp_path):
    tiny.model(tmp_path / "resnet", "resnet")
    without(tmp_path / "resnet", ("classifier.1.weight", "classifier.1.bias"))
    weights.load(tmp_path / "resnet", plugins.find("tasks", "image-classification"))


def test_a_head_may_be_missing_where_it_is_trained_and_not_where_it_is_exported(place):
    task = plugins.find("tasks", "text-classification")
    without(place, ("pooler.dense.weight", "classifier.weight"))
    weights.load(place, task)
    with pytest.raises(ModelError, match=r"lack 2 tensors"):
        plugins.find("stages", "export").load(place, task)
