"""Made rows for images: what each kind does to the pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from edgedistill.tasks import image_classification as task


def opened(folder, size=(16, 16), channels=1):
    folder.mkdir(exist_ok=True)
    task.write_settings(folder, task.image_settings(size, channels))
    return task.open_encoder(folder, {})


def example(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return {"image": file.getvalue()}


def rows(encoder, examples, kinds, seed=0):
    made = task.made(examples, np.zeros(len(examples), int), encoder, kinds=kinds, seed=seed)
    return [row["pixels"] for row in made]


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, size=(16, 16), dtype=np.uint8)


@pytest.mark.parametrize("kind", task.MADE)
@pytest.mark.parametrize("channels", [1, 3])
def test_each_kind_keeps_form_follows_the_seed_and_draws_anew(kind, channels, tmp_path):
    draw = np.random.default_rng(1)
    examples = [example(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(6)]
    encoder = opened(tmp_path, channels=channels)
    made = rows(encoder, examples, [kind] * 2)
    assert len(made) == 12
    assert {(each.shape, str(each.dtype)) for each in made} == {((16, 16, channels), "uint8")}
    again = rows(encoder, examples, [kind] * 2)
    assert all((a == b).all() for a, b in zip(made, again, strict=True))
    assert any((a != b).any() for a, b in zip(made[:6], made[6:], strict=True))
    plain = [encoder.encode(each)["pixels"] for each in examples]
    assert all((a != b).any() for a, b in zip(made, plain * 2, strict=True))


def test_a_crop_enlarges_a_part_of_the_image(tmp_path):
    """A ramp stays a ramp in a crop: it rises as steadily, from a later to an earlier place."""
    ramp = np.repeat(np.arange(0, 256, 16, dtype=np.uint8)[None], 16, axis=0)
    for made in rows(opened(tmp_path), [example(ramp)] * 20, ["crops"]):
        line = made[8, :, 0].astype(int)
        assert (np.diff(line) >= 0).all() and (made[0, :, 0] == made[15, :, 0]).all()
        assert 0.4 * 240 * 0.7 <= line[-1] - line[0] <= 240


def test_a_flip_is_a_mirror_that_moved(noise, tmp_path):
    for made in rows(opened(tmp_path), [example(noise)] * 8, ["flips"]):
        inner = made[1:-1, 1:-1, 0]
        places = [(y, x) for y in range(3) for x in range(3)
                  if (noise[:, ::-1][y:y + 14, x:x + 14] == inner).all()]  # fmt: skip
        assert len(places) == 1


def test_a_mixture_lies_between_two_images(tmp_path):
    flat = [np.full((16, 16), value, np.uint8) for value in (0, 100, 200)]
    for index, made in enumerate(
        rows(opened(tmp_path), [example(each) for each in flat], ["mixup"])
    ):
        value, own = int(made[0, 0, 0]), 100 * index
        assert (made == value).all()
        others = [100 * other for other in range(3) if other != index]
        assert any(min(own, other) <= value <= max(own, other) for other in others)
    alone = rows(opened(tmp_path), [example(flat[1])], ["mixup"])
    assert (alone[0] == 100).all()


@pytest.mark.parametrize("kind", ["shifted", "crops", "flips"])
def test_the_view_is_the_same_at_another_size(kind, tmp_path):
    """What is drawn are shares of the sides: a teacher of larger images sees the same view."""
    blob = np.zeros((128, 128), np.uint8)
    blob[40:72, 48:80] = 255
    small = rows(opened(tmp_path / "small", (32, 32)), [example(blob)] * 10, [kind])
    large = rows(opened(tmp_path / "large", (128, 128)), [example(blob)] * 10, [kind])
    for one, other in zip(small, large, strict=True):
        centres = []
        for made in (one[:, :, 0].astype(float), other[:, :, 0].astype(float)):
            y, x = np.indices(made.shape) / len(made)
            centres.append(((y * made).sum() / made.sum(), (x * made).sum() / made.sum()))
        assert np.allclose(*centres, atol=0.05)
