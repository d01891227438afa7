"""The image encoder: decoding, what it refuses, resizing, made copies."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from edgedistill.errors import DataError, JobError, ModelError
from edgedistill.tasks import _pixels
from edgedistill.tasks import image_classification as task


def file_of(pixels: np.ndarray, kind: str = "PNG", **more) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=kind, **more)
    return file.getvalue()


def opened(folder, size=(8, 8), channels=1, **more):
    task.write_settings(folder, {**task.image_settings(size, channels), **more})
    return task.open_encoder(folder, {})


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(8, 8), dtype=np.uint8)


def test_an_image_of_the_right_size_keeps_its_pixels(noise, tmp_path):
    row = opened(tmp_path).encode({"image": file_of(noise)})
    assert row["pixels"].dtype == np.uint8 and row["pixels"].shape == (8, 8, 1)
    assert (row["pixels"][..., 0] == noise).all()


def test_a_batch_is_normalised_and_channels_come_first(noise, tmp_path):
    encoder = opened(tmp_path, channels=3, mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 1.0])
    rows = encoder.encode_many([{"image": file_of(noise)}] * 2)
    values = encoder.batch(rows)["pixel_values"]
    assert values.shape == (2, 3, 8, 8) and values.dtype == np.float32
    assert values.flags.c_contiguous
    assert values[1, 1] == pytest.approx((noise / 255 - 0.2) / 0.25, abs=1e-6)
    assert encoder.inputs() == ("pixel_values",)


@pytest.mark.parametrize("kind", _pixels.FORMATS)
def test_common_formats_are_read(kind, noise, tmp_path):
    smooth = np.full((8, 8), 100, np.uint8)
    row = opened(tmp_path).encode({"image": file_of(smooth, kind)})
    assert abs(row["pixels"].astype(int) - 100).max() <= 3


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    deep = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    row = opened(tmp_path).encode({"image": file_of(deep)})["pixels"][..., 0]
    assert row[0, 0] == 0 and row[-1, -1] == 255 and 120 < row[4, 0] < 140


def test_a_photograph_is_turned_upright(tmp_path):
    picture = np.zeros((4, 8), np.uint8)
    picture[0] = 255  # the upper edge
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: the upper edge comes to the right
    content = file_of(picture, exif=exif.tobytes())
    row = opened(tmp_path, (8, 4)).encode({"image": content})["pixels"][..., 0]
    assert (row[:, -1] == 255).all() and (row[:, :-1] == 0).all()


def _claims(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes that says it is that large."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(60_000, 60_000), (10_001, 10_000), (2**31 - 1, 2)])
def test_an_absurd_size_is_refused_before_decoding(size, tmp_path, monkeypatch):
    def decoded(*_):
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    with pytest.raises(DataError, match=r"pixels|absurd"):
        opened(tmp_path).encode({"image": _claims(*size)})


def test_a_sliver_is_refused_where_the_short_edge_decides(tmp_path):
    sliver = np.zeros((60_000, 1), np.uint8)
    encoder = opened(tmp_path, (224, 224), resize={"shortest_edge": 224})
    with pytest.raises(DataError, match="no picture"):
        encoder.encode({"image": file_of(sliver)})


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_a_truncated_image_is_refused(kind, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, size=(64, 64), dtype=np.uint8)
    content = file_of(pixels, kind)
    encoder = opened(tmp_path)
    for part in (0.05, 0.5, 0.8):
        with pytest.raises(DataError):
            encoder.encode({"image": content[: int(len(content) * part)]})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"not an image", "no image"),
        (None, "found nothing"),
        ("a.png", "found str"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image"),
    ],
)
def test_what_is_no_image_is_refused(content, words, tmp_path):
    with pytest.raises(DataError, match=words):
        opened(tmp_path).encode({"image": content})


def test_a_float_image_is_refused(tmp_path):
    content = file_of(np.ones((8, 8), np.float32), "TIFF")
    with pytest.raises(DataError, match="8 or 16 bits"):
        opened(tmp_path).encode({"image": content})


def test_damage_never_raises_anything_but_data_error(tmp_path):
    """Flip bytes at random: a decoder may read it or not, but it must not fall through."""
    encoder = opened(tmp_path)
    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 256, size=(16, 16, 3), dtype=np.uint8)
    for kind in ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP"):
        content = np.frombuffer(file_of(pixels, kind), np.uint8)
        for _ in range(60):
            bad = content.copy()
            places = draws.integers(0, min(len(bad), 120), size=3)
            bad[places] = draws.integers(0, 256, size=3)
            with contextlib.suppress(DataError):
                assert encoder.encode({"image": bad.tobytes()})["pixels"].shape == (8, 8, 1)


def test_settings_travel_in_the_file_and_in_the_facts(noise, tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir(), (tmp_path / "c").mkdir()
    encoder = opened(tmp_path / "a", (6, 7), resize={"shortest_edge": 9}, resample="bicubic")
    encoder.files(tmp_path / "b")
    again = task.open_encoder(tmp_path / "b", {})
    assert again.facts == encoder.facts
    example = {"image": file_of(noise)}
    assert (again.encode(example)["pixels"] == encoder.encode(example)["pixels"]).all()
    files = [(tmp_path / name / "image.json").read_bytes() for name in "ab"]
    assert files[0] == files[1]
    task.write_settings(tmp_path / "c", encoder.facts)  # the manifest's `encode` says all
    assert (tmp_path / "c" / "image.json").read_bytes() == files[0]


def test_short_settings_mean_a_plain_resize_and_255_levels(tmp_path):
    short = {"size": [5, 5], "channels": 1, "mean": [0.5], "std": [0.5], "resample": "bilinear"}
    (tmp_path / "image.json").write_text(json.dumps(short))
    encoder = task.open_encoder(tmp_path, {})
    assert encoder.facts["resize"] == {"height": 5, "width": 5}
    assert encoder.facts["rescale"] == 1 / 255


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": [0, 8]},
        {"size": [8]},
        {"size": [10**6, 8]},
        {"channels": 2},
        {"resample": "best"},
        {"resize": {"longest_edge": 8}},
        {"resize": {"height": 10**9, "width": 8}},
        {"std": [0.0]},
        {"mean": [0.5, 0.5]},
        {"mean": [float("inf")]},
        {"size": "8x8"},
        {"format": 2},
    ],
)
def test_settings_that_can_not_be_used_are_refused(wrong, tmp_path):
    made = {**task.image_settings((8, 8), 1), **wrong}
    (tmp_path / "image.json").write_text(json.dumps(made))
    with pytest.raises(ModelError, match=r"image\.json"):
        task.open_encoder(tmp_path, {})


def test_a_folder_without_settings_says_so(tmp_path):
    with pytest.raises(ModelError, match=r"has no image\.json"):
        task.open_encoder(tmp_path, {})
    (tmp_path / "image.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        task.open_encoder(tmp_path, {})


@pytest.mark.parametrize(("rows", "columns"), [(5, 5), (8, 3), (3, 9), (4, 4), (10, 11)])
def test_the_centre_is_cut_or_surrounded_with_black(rows, columns):
    pixels = np.full((rows, columns, 1), 7, np.uint8)
    found = _pixels._centre(pixels, 6, 6)
    assert found.shape == (6, 6, 1)
    assert (found == 7).sum() == min(rows, 6) * min(columns, 6)


@pytest.mark.parametrize(("size", "most"), [((8, 8), 1), ((224, 224), 18)])
def test_shifted_copies_move_a_little_and_always(size, most, tmp_path):
    encoder = opened(tmp_path, size)
    picture = np.random.default_rng(0).integers(0, 256, size=size, dtype=np.uint8)
    examples = [{"image": file_of(picture)}] * 12
    made = list(task.made(examples, np.zeros(12, int), encoder, kinds=["shifted"], seed=0))
    assert len(made) == 12
    for row in made:
        moved = row["pixels"][..., 0]
        assert moved.shape == size and (moved != picture).any()
        inner = moved[most:-most, most:-most]
        offsets = [
            (y, x)
            for y in range(-most, most + 1)
            for x in range(-most, most + 1)
            if picture[most + y, most + x] == inner[0, 0]
            and (
                picture[most + y : size[0] - most + y, most + x : size[1] - most + x] == inner
            ).all()
        ]
        assert len(offsets) == 1 and offsets[0] != (0, 0)


def test_shifts_follow_the_seed_and_a_kind_named_twice_draws_anew(noise, tmp_path):
    encoder = opened(tmp_path)
    examples = [{"image": file_of(noise)}] * 8

    def rows(seed):
        made = task.made(examples, np.zeros(8, int), encoder, kinds=["shifted"] * 2, seed=seed)
        return [row["pixels"].tobytes() for row in made]

    assert rows(0) == rows(0) != rows(1)
    assert rows(0)[:8] != rows(0)[8:]
    with pytest.raises(JobError, match="shifted"):
        list(task.made(examples, np.zeros(8, int), encoder, kinds=["shiftd"], seed=0))
