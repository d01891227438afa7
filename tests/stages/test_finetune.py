"""Finetune: a base model gets its head."""

from __future__ import annotations

import json

import pytest
import tiny

from edgedistill import settings
from edgedistill.errors import ModelError
from edgedistill.progress import silent
from edgedistill.stages import finetune


@pytest.fixture
def place(tmp_path):
    tiny.model(tmp_path / "base", labels=None)
    tiny.rows(tmp_path / "train", tmp_path / "base", count=240)
    tiny.rows(tmp_path / "validation", tmp_path / "base", count=60, seed=1)
    return tmp_path


def run(place, name="out", **told):
    values = {"steps": 20, "rate": 3e-3, "embedding_rate": 1.0, "labels": tiny.LABELS}
    values |= {"encoder": tiny.encoder(place / "base", "bert"), **told}
    made = settings.coerce(finetune.Settings, values, "finetune")
    inputs = {name: place / name.partition(".")[0] for name in ("train.0", "validation.0")}
    return finetune.run({"model.0": place / "base", **inputs}, made, place / name, silent)


def test_the_model_has_a_head_that_knows_the_labels(place):
    facts = run(place, steps=120)
    assert facts["best"]["score"] > 85 and facts["train_score"] > 85
    config = json.loads((place / "out" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "red", "1": "green", "2": "blue"}
    assert json.loads((place / "out" / "labels.json").read_text()) == list(tiny.LABELS)
    assert (place / "out" / "tokenizer.json").is_file()


def test_the_head_is_the_seeds(place):
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        run(place, name, seed=seed, steps=3)
    one, two, three = (
        (place / n / "model.safetensors").read_bytes() for n in ("one", "two", "three")
    )
    assert one == two != three


def test_a_head_of_another_size_is_made_new(place):
    tiny.model(place / "base", labels=("a", "b", "c", "d", "e"))
    run(place)
    assert len(json.loads((place / "out" / "config.json").read_text())["id2label"]) == 3


def test_no_labels_are_an_error(place):
    with pytest.raises(ModelError, match="labels"):
        run(place, labels=())


def test_dropout_can_be_told(place):
    run(place, steps=2, dropout=0.0)
    assert json.loads((place / "out" / "config.json").read_text())["hidden_dropout_prob"] == 0.0
