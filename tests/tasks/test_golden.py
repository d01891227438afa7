"""Golden examples: varied, valid, the same every time, and short to store."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from edgedistill.tasks import _golden_texts
from edgedistill.tasks import image_classification as images
from edgedistill.tasks import text_classification as texts

LABELS = ["book_flight", "cancel", "  "]


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta"])
def test_golden_texts_cover_labels_pieces_a_short_and_an_overlong_one(kind, tokenizer_folder):
    folder = tokenizer_folder(kind)
    encoder = texts.open_encoder(folder, texts.encoder_settings(folder, 32))
    made = texts.golden(encoder, LABELS)
    assert made == texts.golden(texts.open_encoder(folder, encoder.facts), LABELS)
    assert json.loads(json.dumps(made)) == made
    said = [example["text"] for example in made]
    assert {"book flight", "cancel", _golden_texts.NEARLY_EMPTY} <= set(said)
    assert len(set(said)) == len(said)
    assert max(encoder.lengths(made)) > encoder.max_length
    assert max(len(row["input_ids"]) for row in encoder.encode_many(made)) == encoder.max_length
    others = len(set(said) - set(_golden_texts.SENTENCES)) - 4
    assert others >= 4, "random pieces of the vocabulary"


def test_golden_pairs_are_pairs(tokenizer_folder):
    folder = tokenizer_folder("bert")
    encoder = texts.open_encoder(folder, texts.encoder_settings(folder, pair=True))
    made = texts.golden(encoder, LABELS)
    assert all(set(example) == {"text", "text_pair"} for example in made)
    assert all(example["text"] != example["text_pair"] for example in made)
    encoder.encode_many(made)


@pytest.mark.parametrize(("size", "channels"), [((8, 8), 1), ((24, 32), 3)])
def test_golden_images_are_varied_and_the_same_every_time(size, channels, tmp_path):
    images.write_settings(tmp_path, images.image_settings(size, channels))
    encoder = images.open_encoder(tmp_path, {})
    made = images.golden(encoder, LABELS)
    assert made == images.golden(encoder, [])
    rows = [encoder.encode(example)["pixels"] for example in made]
    assert len({row.tobytes() for row in rows}) == len(rows)
    assert all(row.shape == (*size, channels) for row in rows)
    sizes = {Image.open(io.BytesIO(example["image"])).size for example in made}
    assert len(sizes) >= 4, "high, wide and large ones are resized"
    assert min(np.ptp(row) for row in rows) == 0, "a plain one"
