"""Golden images: what a bundle is proven with on any machine; none is a row of the user."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from edgedistill.tasks._pixels import ImageEncoder

SEED = 20262  # fixed: golden vectors are the same bytes whenever the same choice is built again
BLOBS = 6


def examples(encoder: ImageEncoder) -> list[dict[str, Any]]:
    """Return made images: blobs, stripes, noise, plain ones; gray, wide, high and large ones."""
    height, width = encoder.height, encoder.width
    draws = np.random.default_rng(SEED)
    black = np.zeros((height, width, 3), dtype=np.uint8)
    images = [_blobs(height, width, draws) for _ in range(BLOBS)]
    images += [
        _blobs(2 * height + 1, width, draws),  # high
        _blobs(height, 3 * width - 1, draws),  # wide
        _blobs(2 * height, 2 * width, draws)[..., 0],  # large, gray
        _stripes(height, width),
        np.kron(draws.integers(0, 256, size=(8, 8, 3)), np.ones((4, 4, 1))).astype(np.uint8),
        black,
        black + 255,
    ]
    return [{"image": _png(image)} for image in images]


def _blobs(height: int, width: int, draws: np.random.Generator) -> np.ndarray:
    """Draw three soft spots on a slope of colour."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    start, slope = draws.uniform(0, 160, size=3), draws.uniform(-80, 80, size=(2, 3))
    canvas = start + y[..., None] * slope[0] + x[..., None] * slope[1]
    for _ in range(3):
        row, column = draws.uniform(0, y.max()), draws.uniform(0, x.max())
        spread, colour = draws.uniform(0.05, 0.3), draws.uniform(-200, 200, size=3)
        distance = (y - row) ** 2 + (x - column) ** 2
        canvas = canvas + np.exp(-distance / (2 * spread**2))[..., None] * colour
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _stripes(height: int, width: int) -> np.ndarray:
    band = max(1, width // 8)
    row = ((np.arange(width) // band) % 2 * 255).astype(np.uint8)
    return np.repeat(np.repeat(row[None, :, None], height, axis=0), 3, axis=2)


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()
