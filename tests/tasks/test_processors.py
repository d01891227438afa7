"""A preprocessor_config.json read by us against transformers' own processor."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from edgedistill.errors import ModelError
from edgedistill.tasks import image_classification as task

CASES = {
    "vit": {"image_processor_type": "ViTImageProcessor"},
    "vit, fast": {
        "image_processor_type": "ViTImageProcessorFast",
        "size": {"height": 40, "width": 56},
    },
    "vit, of an old version": {"feature_extractor_type": "ViTFeatureExtractor", "size": 48},
    "deit": {"image_processor_type": "DeiTImageProcessor"},
    "deit, small": {
        "image_processor_type": "DeiTImageProcessor",
        "size": {"height": 36, "width": 36},
        "crop_size": {"height": 32, "width": 32},
    },
    "resnet": {
        "image_processor_type": "ConvNextImageProcessor",
        "crop_pct": 0.875,
        "size": {"shortest_edge": 224},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
    },
    "resnet, large": {"image_processor_type": "ConvNextImageProcessor"},
    "convnext, of an old version": {
        "feature_extractor_type": "ConvNextFeatureExtractor",
        "size": 64,
    },
    "dino": {"image_processor_type": "BitImageProcessor"},
    "crop larger than the image": {
        "image_processor_type": "DeiTImageProcessor",
        "size": {"height": 21, "width": 20},
        "crop_size": {"height": 32, "width": 31},
    },
    "no normalising": {"image_processor_type": "ViTImageProcessor", "do_normalize": False},
    "raw": {
        "image_processor_type": "ViTImageProcessor",
        "do_rescale": False,
        "do_normalize": False,
        "size": {"height": 32, "width": 32},
    },
    "crop without resize": {
        "image_processor_type": "DeiTImageProcessor",
        "do_resize": False,
        "crop_size": {"height": 16, "width": 16},
    },
}


def folder_of(tmp_path, told, **config):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told))
    if config:
        (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize("told", CASES.values(), ids=CASES)
def test_pixels_are_those_of_transformers(told, tmp_path):
    folder, out = folder_of(tmp_path, told), tmp_path / "out"
    out.mkdir()
    task.prepare_encoder(folder, out, task.encoder_settings(folder))
    encoder = task.open_encoder(out, {})
    assert task.compare_encoder(folder, encoder, task.golden(encoder, [])) is None


def test_the_comparison_finds_a_difference(tmp_path):
    folder, out = folder_of(tmp_path, CASES["vit, of an old version"]), tmp_path / "out"
    out.mkdir()
    task.write_settings(out, task.image_settings((48, 48), 3) | {"resample": "nearest"})
    encoder = task.open_encoder(out, {})
    assert "differ" in str(task.compare_encoder(folder, encoder, task.golden(encoder, [])))


def picture(pixels, kind, **settings):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **settings)
    return {"image": file.getvalue()}


def test_a_turned_photo_and_a_deep_image_are_no_difference(tmp_path):
    """Both sides see what is decoded: turned upright, 16 bits brought to 8."""
    folder, out = folder_of(tmp_path, CASES["vit, of an old version"]), tmp_path / "out"
    out.mkdir()
    task.prepare_encoder(folder, out, {})
    turned = Image.Exif()
    turned[0x0112] = 6  # the orientation: lies on its side
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[:20] = 255
    deep = np.arange(60 * 90, dtype=np.uint16).reshape(60, 90) * 12
    examples = [picture(pixels, "JPEG", exif=turned), picture(deep, "PNG")]
    encoder = task.open_encoder(out, {})
    assert task.compare_encoder(folder, encoder, examples) is None


def test_our_own_file_goes_before_a_processors(tmp_path):
    folder, out = folder_of(tmp_path, CASES["vit"]), tmp_path / "out"
    out.mkdir()
    task.write_settings(folder, task.image_settings((9, 9), 1))
    task.prepare_encoder(folder, out, {})
    assert task.open_encoder(out, {}).facts["size"] == [9, 9]


def test_gray_models_take_one_value_a_channel(tmp_path):
    folder, out = folder_of(tmp_path, CASES["vit"], num_channels=1), tmp_path / "out"
    out.mkdir()
    task.prepare_encoder(folder, out, {})
    assert task.open_encoder(out, {}).facts["mean"] == [0.5]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"image_processor_type": "NougatImageProcessor"}, "NougatImageProcessor"),
        ({"image_processor_type": "ViTImageProcessor", "do_pad": True}, "do_pad"),
        ({"image_processor_type": "ViTImageProcessor", "size": {"longest_edge": 9}}, "size"),
        ({"image_processor_type": "BitImageProcessor", "do_center_crop": False}, "crop_size"),
    ],
)
def test_what_is_not_read_yet_is_said(told, words, tmp_path):
    with pytest.raises(ModelError, match=words):
        task.prepare_encoder(folder_of(tmp_path, told), tmp_path, {})


def test_a_folder_without_a_processor_says_so(tmp_path):
    with pytest.raises(ModelError, match=r"preprocessor_config\.json"):
        task.prepare_encoder(tmp_path, tmp_path, {})
    (tmp_path / "preprocessor_config.json").write_text("[")
    with pytest.raises(ModelError, match="not JSON"):
        task.prepare_encoder(tmp_path, tmp_path, {})
