"""Tiny real models of each family, made from a config on the spot, with a tokenizer and rows.

    tiny.model(folder, "bert", labels=("yes", "no"))     a Hugging Face folder, with labels.json
    tiny.rows(out, folder, "bert", count=40)             encoded rows that can be learned
    tiny.encoder(folder, "bert")                         the encoder's settings

No file is downloaded; the same arguments give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

LABELS = ("red", "green", "blue")
LENGTH = 16
WORDS = [f"w{index}" for index in range(40)]
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "vocab_size": 50,
}
IMAGE = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": LENGTH,
    "patch_size": 8,
    "num_channels": 3,
}
FROM_ONE = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}  # RoBERTa's numbering
KINDS: dict[str, dict[str, Any]] = {
    "albert": {**TEXT, "embedding_size": 16},
    "bert": TEXT,
    "camembert": {**TEXT, **FROM_ONE},
    "deit": IMAGE,
    "dinov2": {**IMAGE, "mlp_ratio": 2},
    "distilbert": {
        "dim": 32,
        "n_layers": 4,
        "n_heads": 4,
        "hidden_dim": 64,
        "max_position_embeddings": 40,
        "vocab_size": 50,
    },
    "electra": {**TEXT, "embedding_size": 16},
    "mpnet": {**TEXT, **FROM_ONE},
    "resnet": {
        "num_channels": 1,
        "embedding_size": 16,
        "hidden_sizes": [16, 32],
        "depths": [2, 2],
        "layer_type": "basic",
    },
    "bottleneck": {
        "model_type": "resnet",
        "num_channels": 1,
        "embedding_size": 16,
        "hidden_sizes": [32, 64],
        "depths": [2, 3],
        "layer_type": "bottleneck",
    },
    "roberta": {**TEXT, **FROM_ONE},
    "static-embeddings": {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 64},
    "vit": IMAGE,
    "xlm-roberta": {**TEXT, **FROM_ONE},
}
IMAGES = ("bottleneck", "deit", "dinov2", "resnet", "vit")


def task(kind: str) -> str:
    """Return the task of a kind of model, by name."""
    return "image-classification" if kind in IMAGES else "text-classification"


def encoder(folder: Path, kind: str) -> dict[str, Any]:
    """Return the settings of a model's encoder."""
    from edgedistill import plugins

    found = plugins.find("tasks", task(kind))
    return found.encoder_settings(folder, None if kind in IMAGES else LENGTH)


def model(
    folder: Path,
    kind: str = "bert",
    *,
    labels: Sequence[str] | None = LABELS,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write a model folder with random weights; without labels one that has no head."""
    import torch
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForImageClassification,
        AutoModelForSequenceClassification,
    )

    from edgedistill.families import _architectures

    _architectures.register()
    told = {**KINDS[kind], **config}
    made = AutoConfig.for_model(told.pop("model_type", kind), architectures=[], **told)
    head: Any = (
        AutoModelForImageClassification if kind in IMAGES else AutoModelForSequenceClassification
    )
    if labels is not None:
        made.id2label = dict(enumerate(labels))
        made.label2id = {label: index for index, label in enumerate(labels)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = (AutoModel if labels is None else head).from_config(
            made, attn_implementation="eager"
        )
    # Weights of a new model are so small that every answer is alike: spread them.
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if parameter.ndim > 1 and "position" not in name:
                parameter.mul_(3.0)
    built.save_pretrained(folder)
    if kind in IMAGES:
        _image_settings(folder, 1 if "resnet" in made.model_type else 3)
    else:
        _tokenizer(folder, FROM_ONE.items() <= KINDS[kind].items())
    if labels is not None:
        (folder / "labels.json").write_text(json.dumps(list(labels)))
    return folder


def text(label: int, draw: np.random.Generator) -> str:
    """Make a text of some words; the label's own words tell it (each has five)."""
    words = [WORDS[15 + index] for index in draw.integers(0, 25, size=draw.integers(2, 9))]
    words.insert(int(draw.integers(0, len(words))), WORDS[5 * label + int(draw.integers(0, 5))])
    return " ".join(words)


def pixels(label: int, draw: np.random.Generator, channels: int) -> np.ndarray:
    """Make an image with a bright band whose place tells the label, (16, 16, channels) uint8."""
    image = draw.integers(0, 90, size=(LENGTH, LENGTH, channels))
    image[5 * label : 5 * label + 5] += 150
    return image.astype(np.uint8)


def rows(
    out: Path,
    folder: Path,
    kind: str = "bert",
    *,
    count: int = 48,
    seed: int = 0,
    labelled: bool = True,
) -> Path:
    """Write encoded rows for a model in `folder`: three labels in turn, each easy to learn."""
    from edgedistill import plugins
    from edgedistill.data import arrays

    draw = np.random.default_rng(seed)
    truth = np.arange(count) % len(LABELS)
    if kind in IMAGES:
        channels = json.loads((folder / "config.json").read_text())["num_channels"]
        encoded = [{"pixels": pixels(int(label), draw, channels)} for label in truth]
    else:
        opened = plugins.find("tasks", task(kind)).open_encoder(folder, encoder(folder, kind))
        encoded = opened.encode_many([{"text": text(int(label), draw)} for label in truth])
    known = truth if labelled else np.full(count, -1)
    arrays.write(
        out, ({**row, "truth": np.int64(label)} for row, label in zip(encoded, known, strict=True))
    )
    return out


def _tokenizer(folder: Path, from_one: bool) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    if from_one:
        begin, pad, end, unknown, mask = special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    else:
        pad, unknown, begin, end, mask = special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {piece: index for index, piece in enumerate([*special, *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(special)
    made.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} $B:1 {end}:1",
        special_tokens=[(begin, vocabulary[begin]), (end, vocabulary[end])],
    )
    made.save(str(folder / "tokenizer.json"))
    told = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": pad,
        "unk_token": unknown,
        "cls_token": begin,
        "sep_token": end,
        "mask_token": mask,
        "model_max_length": 32,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(told, indent=1, sort_keys=True))


def _image_settings(folder: Path, channels: int) -> None:
    from edgedistill.tasks import _pixels

    _pixels.write_settings(folder, _pixels.image_settings((LENGTH, LENGTH), channels))
