"""Tiny models of every family, made from configs, in folders as steps leave them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SPOKEN = "the a song weather money in play what is for my next to bank rain loud of one"
WORDS += SPOKEN.split()
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {**SIZES, "intermediate_size": 64, "vocab_size": 200, "max_position_embeddings": 40}
IMAGE = {**SIZES, "intermediate_size": 64, "image_size": 16, "patch_size": 4, "num_channels": 1}
CONFIGS = {
    "bert": TEXT,
    "roberta": {**TEXT, "pad_token_id": 0, "type_vocab_size": 1},
    "distilbert": {
        "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "vocab_size": 200,
        "max_position_embeddings": 40,
    },
    "electra": {**TEXT, "embedding_size": 16},
    "mpnet": {**TEXT, "pad_token_id": 0},
    "vit": IMAGE,
    "deit": {**IMAGE, "architectures": ["DeiTForImageClassification"]},
    "resnet": {
        "embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic",
        "num_channels": 1, "downsample_in_first_stage": False,
    },
}  # fmt: skip
IMAGES = ("vit", "deit", "resnet")
LABELS = ["song", "weather", "money"]
LENGTH = 24


class Tiny(NamedTuple):
    """A model folder, rows of its own kind, and the settings that stages need for them."""

    model: Path
    rows: Path
    settings: dict


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Callable[[str], Tiny]:
    made: dict[str, Tiny] = {}

    def make(model_type: str) -> Tiny:
        if model_type not in made:
            made[model_type] = _make(model_type, tmp_path_factory.mktemp(model_type))
        return made[model_type]

    return make


def _make(model_type: str, folder: Path) -> Tiny:
    import torch
    from transformers import AutoConfig, AutoModelForImageClassification
    from transformers import AutoModelForSequenceClassification as ForTexts

    model, rows = folder / "model", folder / "rows"
    model.mkdir()
    torch.manual_seed(7)
    config = AutoConfig.for_model(model_type, num_labels=len(LABELS), **CONFIGS[model_type])
    images = model_type in IMAGES
    net = (AutoModelForImageClassification if images else ForTexts).from_config(config)
    with torch.no_grad():  # random weights of a usual size, so that no logit is near zero
        for parameter in net.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    net.save_pretrained(model)
    (model / "labels.json").write_text(json.dumps(LABELS))
    settings = _images(model, rows) if images else _texts(model, rows, model_type)
    family = "resnet" if model_type == "resnet" else "encoder"
    return Tiny(model, rows, {**settings, "family": family})


def _texts(model: Path, folder: Path, model_type: str) -> dict:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    from edgedistill.tasks import text_classification as task

    known = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(WORDS[:5])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(model / "tokenizer.json"))
    encoder = task.encoder_settings(model, LENGTH)
    opened = task.open_encoder(model, encoder)
    draws = np.random.default_rng(3)
    texts = [" ".join(draws.choice(WORDS[5:], draws.integers(1, 30))) for _ in range(60)]
    _write(folder, [opened.encode({"text": text}) for text in texts])
    return {"task": "text-classification", "encoder": encoder}


def _images(model: Path, folder: Path) -> dict:
    from PIL import Image

    from edgedistill.tasks import _pixels
    from edgedistill.tasks import image_classification as task

    _pixels.write_settings(model, _pixels.image_settings((16, 16), 1))
    opened = task.open_encoder(model, {})
    draws = np.random.default_rng(3)
    encoded = []
    for _ in range(60):
        file = io.BytesIO()
        coarse = draws.integers(0, 256, (4, 4)).astype(np.uint8)
        Image.fromarray(coarse).resize((16, 16)).save(file, format="PNG")
        encoded.append(opened.encode({"image": file.getvalue()}))
    _write(folder, encoded)
    return {"task": "image-classification", "encoder": {}}


def _write(folder: Path, encoded: list) -> None:
    from edgedistill.data import arrays

    arrays.write(
        folder, ({**row, "truth": np.int64(index % 3)} for index, row in enumerate(encoded))
    )


@pytest.fixture(scope="session")
def stage(tmp_path_factory) -> Callable[..., tuple[Path, dict]]:
    """Run a stage on folders, with settings as plain values; returns its folder and facts."""
    from edgedistill import plugins
    from edgedistill.progress import silent
    from edgedistill.settings import coerce

    def run(name: str, inputs: dict, progress=silent, **settings) -> tuple[Path, dict]:
        module = plugins.find("stages", name)
        out = tmp_path_factory.mktemp(name)
        known = {key: value for key, value in settings.items() if _takes(module, key)}
        facts = module.run(inputs, coerce(module.Settings, known, name), out, progress)
        return out, json.loads(json.dumps(facts))

    return run


def _takes(module, name: str) -> bool:
    import dataclasses

    return name != "family" or "family" in {one.name for one in dataclasses.fields(module.Settings)}


@pytest.fixture(scope="session")
def exported(tiny, stage) -> Callable[[str], tuple[Path, dict]]:
    made: dict[str, tuple[Path, dict]] = {}

    def make(model_type: str) -> tuple[Path, dict]:
        if model_type not in made:
            source = tiny(model_type)
            made[model_type] = stage("export", {"model.0": source.model}, **source.settings)
        return made[model_type]

    return make
