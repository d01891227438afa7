"""Image classification: one image to one label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill.errors import JobError, nearest
from edgedistill.tasks import _golden_images, _made_images, _pixels
from edgedistill.tasks._classification import (
    HIGHER_IS_BETTER,
    METRICS,
    OUTPUTS,
    UNIT,
    decode,
    default_metric,
    score,
    statistics,
)
from edgedistill.tasks._pixels import ImageEncoder, image_settings, write_settings
from edgedistill.tasks._processors import image_settings_of

__all__ = [
    "EXAMPLES", "HIGHER_IS_BETTER", "INPUTS", "MADE", "METRICS", "OUTPUTS", "PACKAGES",
    "READS_MODEL", "UNIT", "compare_encoder", "decode", "default_metric", "encoder_settings",
    "forward", "golden", "image_settings", "made", "model_class", "open_encoder",
    "prepare_encoder", "score", "statistics", "write_settings",
]  # fmt: skip

EXAMPLES = "image"
PACKAGES = _pixels.PACKAGES
INPUTS: dict[str, tuple[str, ...]] = {"pixel_values": ()}
MADE = tuple(_made_images.KINDS)
READS_MODEL: tuple[str, ...] = ()


def encoder_settings(
    model: Path | Mapping[str, Any], max_length: int | None = None, *, pair: bool = False
) -> dict[str, Any]:
    """Return {}: image.json says all there is."""
    return {}


def prepare_encoder(model: Path, out: Path, settings: Mapping[str, Any]) -> None:
    """Write the image.json of a Hugging Face folder (its own, or from preprocessor_config.json)."""
    own = (model / _pixels.FILE).is_file()
    write_settings(out, _pixels.read_settings(model) if own else image_settings_of(model))


def open_encoder(folder: Path, settings: Mapping[str, Any]) -> ImageEncoder:
    """Open the encoder in a folder; it needs no settings."""
    return ImageEncoder(folder)


def compare_encoder(
    model: Path, encoder: ImageEncoder, examples: Sequence[Mapping[str, Any]]
) -> str | None:
    """Compare with transformers' own image processor of that folder; the difference, or None.

    Loads torch. Processors take decoded images: both sides get what is decoded here, upright. With
    transformers' Pillow processors the pixels are equal; where torchvision is installed it resizes
    with that, which rounds otherwise: three levels of 255 are allowed for one pixel, half a level
    over all.
    """
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(str(model))
    one_level = encoder.facts["rescale"] / min(encoder.facts["std"])
    for index, example in enumerate(examples):
        ours = encoder.batch([encoder.encode(example)])["pixel_values"]
        plain = _pixels.decoded(example["image"], encoder.mode)
        theirs = processor(plain, return_tensors="np")["pixel_values"]
        if theirs.shape != ours.shape:
            return f"image {index}: shape {ours.shape}, transformers: {theirs.shape}"
        away = np.abs(theirs - ours) / one_level
        if away.max() > 3.01 or away.mean() > 0.5:
            return (
                f"image {index}: pixels differ by up to {away.max():.0f} levels from transformers"
            )
    return None


def model_class() -> Any:
    """Return the transformers class with this task's head (imports torch)."""
    from transformers import AutoModelForImageClassification

    return AutoModelForImageClassification


def forward(model: Any, batch: Mapping[str, Any]) -> Any:
    """Run a torch model on a batch of tensors; what is no input (the truth) is left out."""
    return model(pixel_values=batch["pixel_values"])


def made(
    examples: Sequence[Mapping[str, Any]],
    truth: np.ndarray,
    encoder: ImageEncoder,
    *,
    kinds: Sequence[str],
    seed: int,
    model: Path | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Make unlabelled rows from others, one per row and kind, already encoded.

    Kinds: shifted, crops, flips, mixup. They are made once, so that teacher and student see the
    same view (Beyer et al., 2022); what is drawn are shares of the sides, the same whatever size
    an encoder has. A kind that is named twice is made twice, with other draws. Rows stream: kind
    by kind, in order.
    """
    for position, kind in enumerate(kinds):
        if kind not in MADE:
            raise JobError(f"unknown kind of made rows '{kind}': {nearest(kind, MADE)}")
        draws = np.random.default_rng([seed, position])
        yield from _made_images.KINDS[kind](examples, encoder, draws)


def golden(encoder: ImageEncoder, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Make the golden examples, PNG files: none is a row of the user."""
    return _golden_images.examples(encoder)
