"""Made rows for images: views and mixtures, for the teacher to label.

They are made of encoded pixels, once, and read by teacher and student alike: a student that sees
another view than its teacher learns less (Beyer et al., 2022). `shifted` suits any images; the
others are for a job or a recipe to name: digits are not to be mirrored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgedistill.tasks._pixels import ImageEncoder

SHIFT = 0.08  # of a side at most, and one pixel at least: 1 of 8, 18 of 224
SMALLEST = 0.4  # of the area that a crop keeps: small images hold their subject whole
ASPECT = 4 / 3  # of a crop, either way (Szegedy et al., 2015)

Examples = Sequence[Mapping[str, Any]]
Rows = Iterator[dict[str, np.ndarray]]
Kind = Callable[[Examples, ImageEncoder, np.random.Generator], Rows]


def shifted(examples: Examples, encoder: ImageEncoder, draws: np.random.Generator) -> Rows:
    """Move every image by a few pixels, the border repeated."""
    for pixels in _pixels(examples, encoder):
        yield {"pixels": _moved(pixels, draws)}


def crops(examples: Examples, encoder: ImageEncoder, draws: np.random.Generator) -> Rows:
    """Cut 40 to 100 % of the area out of every image, and bring it back to its size."""
    from PIL import Image

    for pixels in _pixels(examples, encoder):
        height, width = pixels.shape[:2]
        area, tall = draws.uniform(SMALLEST, 1), ASPECT ** draws.uniform(-1, 1)
        down, right = min(1.0, (area * tall) ** 0.5), min(1.0, (area / tall) ** 0.5)
        top, left = draws.uniform(0, 1, size=2) * (1 - down, 1 - right)
        box = (left * width, top * height, (left + right) * width, (top + down) * height)
        gray = pixels.shape[2] == 1
        image = Image.fromarray(pixels[:, :, 0] if gray else pixels)
        made = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
        yield {"pixels": np.asarray(made, dtype=np.uint8).reshape(pixels.shape)}


def flips(examples: Examples, encoder: ImageEncoder, draws: np.random.Generator) -> Rows:
    """Mirror every image left to right, and move it: for what has no reading direction."""
    for pixels in _pixels(examples, encoder):
        yield {"pixels": _moved(np.ascontiguousarray(pixels[:, ::-1]), draws)}


def mixup(examples: Examples, encoder: ImageEncoder, draws: np.random.Generator) -> Rows:
    """Mix every image with another, in any proportion (Zhang et al., 2018; uniform as Beyer)."""
    count = len(examples)
    partner = (np.arange(count) + draws.integers(1, max(2, count), size=count)) % max(1, count)
    shares = draws.uniform(0, 1, size=count)
    for index, pixels in enumerate(_pixels(examples, encoder)):
        other = encoder.encode(examples[int(partner[index])])["pixels"].astype(np.float32)
        share = np.float32(shares[index])
        mixed = share * pixels.astype(np.float32) + (1 - share) * other
        yield {"pixels": np.rint(mixed).astype(np.uint8)}


KINDS: dict[str, Kind] = {"shifted": shifted, "crops": crops, "flips": flips, "mixup": mixup}


def _pixels(examples: Examples, encoder: ImageEncoder) -> Iterator[np.ndarray]:
    for index in range(len(examples)):
        yield encoder.encode(examples[index])["pixels"]


def _moved(pixels: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Move an image by up to `SHIFT` of its sides, by a pixel at least."""
    height, width = pixels.shape[:2]
    down, right = max(1, round(SHIFT * height)), max(1, round(SHIFT * width))
    far = draws.uniform(-1, 1, size=2)
    y, x = round(float(far[0]) * down), round(float(far[1]) * right)
    if y == 0 and x == 0:  # a copy that did not move would teach nothing
        y, x = (1 if far[0] > 0 else -1, 0) if abs(far[0]) > abs(far[1]) else (0, 1)
    around = np.pad(pixels, ((down, down), (right, right), (0, 0)), mode="edge")
    return np.ascontiguousarray(around[down - y : down - y + height, right - x : right - x + width])
