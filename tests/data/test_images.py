import io
import zlib

import numpy as np
import pytest
from PIL import Image

from edgedistill.data import images
from edgedistill.errors import DataError


def picture(kind="PNG", size=(20, 30), **settings):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, kind, **settings)
    return file.getvalue()


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_whole_image_has_no_fault_and_a_cut_one_has(kind, decode):
    data = picture(kind)
    assert images.fault(data, decode=decode) is None
    assert "truncated" in (images.fault(data[: len(data) // 2], decode=decode) or "")


JPEGS = {
    "plain": {},
    "progressive": {"progressive": True},
    "in parts that begin anew": {"restart_marker_blocks": 1},
    "of a camera, a small JPEG in its header": {"exif": b"Exif\0\0" + picture("JPEG", (8, 8))},
    "of two pictures": {
        "format": "MPO",
        "save_all": True,
        "append_images": [Image.new("RGB", (9, 9))],
    },
}


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("settings", JPEGS.values(), ids=JPEGS)
def test_a_jpeg_ends_where_its_picture_does(settings, decode):
    """A motion photo has a film of megabytes behind it; a small JPEG in a header is no end."""
    told = dict(settings)
    data = picture(told.pop("format", "JPEG"), (40, 60), **told)
    assert images.fault(data, decode=decode) is None
    assert images.fault(data + bytes(8000) + b"\xff film" * 9000, decode=decode) is None
    whole = data if "format" not in settings else data[: data.index(b"\xff\xd9") + 2]
    for end in (len(whole) // 2, len(whole) - 2):
        assert "truncated" in (images.fault(whole[:end], decode=decode) or "")


@pytest.mark.parametrize("decode", [True, False])
def test_damaged_bytes_inside_are_noticed(decode):
    data = bytearray(picture())
    data[len(data) // 2] ^= 255
    assert "damaged" in (images.fault(bytes(data), decode=decode) or "")


def test_what_is_no_image_is_said_to_be_none():
    assert "no image" in (images.fault(b"text,label\n", decode=True) or "")
    assert "empty" in (images.fault(b"", decode=True) or "")


@pytest.mark.parametrize("side", [11_000, 60_000])
def test_absurd_sizes_are_refused_by_the_header_alone(side):
    header = bytearray(picture())  # of a PNG: width and height from byte 16 on, then a checksum
    header[16:24] = side.to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    assert "absurd size" in (images.fault(bytes(header), decode=True) or "")


def test_arrays_become_png_without_loss():
    for pixels in (np.eye(8, dtype=np.uint8) * 200, np.arange(48, dtype=np.uint8).reshape(4, 4, 3)):
        found = Image.open(io.BytesIO(images.encoded(pixels)))
        assert found.format == "PNG"
        np.testing.assert_array_equal(np.asarray(found), pixels)


def test_an_image_is_known_by_its_content_not_its_place(tmp_path):
    one, two = tmp_path / "a.png", tmp_path / "b.png"
    one.write_bytes(picture())
    two.write_bytes(picture())
    array = np.zeros((2, 2), np.uint8)
    found = images.Images([one, two, picture(), array, array + 1])
    contents = [found.content(index) for index in range(5)]
    assert contents[0] == contents[1] == contents[2]
    assert len(set(contents)) == 3


@pytest.mark.parametrize(
    "array",
    [
        np.full((2, 4, 5), 0.5),
        np.full((2, 4, 5, 1), 0.5, np.float32),
        np.full((2, 4, 5), 128, np.int64),
        np.full((2, 1, 4, 5), 128, np.uint8),
    ],
)
def test_pixels_come_to_one_form(array):
    found = images.pixels(array, "x")
    assert (found.shape, found.dtype) == ((2, 4, 5), np.uint8)
    assert (found == 128).all()


def test_colours_stay_colours():
    assert images.pixels(np.zeros((2, 3, 8, 9)), "x").shape == (2, 8, 9, 3)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((1, 4, 4), 200.0), "from 200 to 200"),
        (np.full((1, 4, 4), np.nan), "from nan"),
        (np.full((1, 4, 4), 300), "from 300"),
        (np.zeros((1, 4, 4, 7)), "shape"),
        (np.zeros((1, 4, 4), complex), "type complex"),
    ],
)
def test_pixels_out_of_range_or_form(array, message):
    with pytest.raises(DataError, match=f"'x': images|'x': pixels.*{message}|{message}"):
        images.pixels(array, "'x'")


def test_cells_of_every_kind_become_images(tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    for cell in ("a.png", tmp_path / "a.png", picture(), {"bytes": picture(), "path": None},
                 {"bytes": None, "path": "a.png"}):  # fmt: skip
        value = images.value_of(cell, folder=tmp_path)
        assert value is not None
        assert images.encoded(value) == picture()
    value = images.value_of(Image.open(tmp_path / "a.png"))
    assert isinstance(value, np.ndarray)
    assert value.shape == (20, 30, 3)
    assert all(images.value_of(cell) is None for cell in (None, "", float("nan"), b""))
