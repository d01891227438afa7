"""Images: whatever stands for one (file, bytes, array), as an encoded image file, and checked.

Pillow is imported inside functions: text data never loads it.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from edgedistill.data.rows import Example
from edgedistill.errors import DataError

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MEGAPIXELS = 100  # the largest image taken; decoded it fills 300 MB
DECODED_AT_ONCE = 50_000_000  # bytes of image files decoded whole at the start, some seconds' worth

Value = Path | bytes | np.ndarray  # a file, an encoded image, or pixels (H, W) or (H, W, 3) uint8


class Images(Sequence[Example]):
    """Image examples that are read and encoded only when asked for."""

    def __init__(self, values: Sequence[Value]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Images: ...
    def __getitem__(self, index: int | slice) -> Example | Images:
        if isinstance(index, slice):
            return Images(self.values[index])
        return {"image": encoded(self.values[index])}

    def pick(self, indices: Sequence[int]) -> Images:
        """Return the images at these indices."""
        return Images([self.values[index] for index in indices])

    def content(self, index: int) -> bytes:
        """Return the digest of one image: of its pixels where it is an array, else of its file.

        PNG bytes made here depend on the version of zlib; pixels do not.
        """
        value = self.values[index]
        if isinstance(value, np.ndarray):
            head = f"pixels {value.shape} ".encode()
            return hashlib.sha256(head + np.ascontiguousarray(value).tobytes()).digest()
        return hashlib.sha256(encoded(value)).digest()


def encoded(value: Value) -> bytes:
    """Return an image as the bytes of an image file: arrays become PNG."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, Path):
        try:
            return value.read_bytes()
        except OSError as error:
            raise DataError(f"image '{value}' can't be read: {error.strerror}") from None
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(value).save(file, "PNG")
    return file.getvalue()


def describe(value: Value) -> str:
    """Tell an image to people: its size, and the name of its file."""
    if isinstance(value, np.ndarray):
        height, width = value.shape[:2]
        return f"{width} x {height} {'gray' if value.ndim == 2 else 'RGB'}"
    from PIL import Image

    with Image.open(io.BytesIO(encoded(value)), formats=FORMATS) as image:
        size = f"{image.width} x {image.height}"
    return f"{value.name} ({size})" if isinstance(value, Path) else size


def fault(data: bytes, *, decode: bool) -> str | None:
    """Say what is wrong with an encoded image, or None.

    The header is read first, so an image of absurd size is never decoded. Without `decode` a
    truncated PNG or JPEG is still noticed, by its checksums or its missing end.
    """
    from PIL import Image, UnidentifiedImageError

    if not data:
        return "is empty"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        return f"is of absurd size, far over {MEGAPIXELS} megapixels"
    except UnidentifiedImageError:
        return f"is no image that can be read ({', '.join(FORMATS)})"
    except Exception as error:  # a decoder may raise anything on damaged bytes
        return f"is damaged or truncated: {error}"
    if image.width * image.height > MEGAPIXELS * 1e6:
        return (
            f"is of absurd size, {image.width} x {image.height} pixels "
            f"(at most {MEGAPIXELS} megapixels)"
        )
    if image.format in ("JPEG", "MPO") and not _jpeg_ends(data):  # MPO: several JPEGs in one file
        return "is truncated"
    try:
        if decode:
            image.load()
        else:
            image.verify()
    except Exception as error:  # a decoder may raise anything on damaged bytes
        return f"is damaged or truncated: {error}"
    return None


# a marker of a JPEG that has a length: no stuffed byte (00), restart, start or fill byte
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")


def _jpeg_ends(data: bytes) -> bool:
    """Say whether the first picture of a JPEG has its end, whatever lies behind that.

    Its segments are skipped by their lengths: a small JPEG in a header has an end of its own.
    """
    position = 2
    while marker := _MARKER.search(data, position):
        if marker[1] == b"\xd9":
            return True
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return False


def faults(values: Sequence[Value]) -> dict[int, str]:
    """Return what is wrong, by index, with those images that are not fit to be used.

    The first images, up to some seconds' worth of bytes, are decoded whole; the others are held
    against their headers, checksums and ends, and are decoded when they are encoded for training.
    """
    found, decoded = {}, 0
    for index, value in enumerate(values):
        if isinstance(value, np.ndarray):
            continue
        try:
            data = encoded(value)
        except DataError as error:
            found[index] = str(error)
            continue
        problem = fault(data, decode=decoded < DECODED_AT_ONCE)
        decoded += len(data)
        if problem:
            found[index] = f"'{value}' {problem}" if isinstance(value, Path) else problem
    return found


def value_of(cell: Any, *, folder: Path | None = None) -> Value | None:
    """Bring a cell of an image column to one of the three forms; None where it is empty.

    Takes bytes, arrays, Pillow images, file names (relative to `folder`), and the mapping
    {"bytes", "path"} in which `datasets` and its Parquet files keep images.
    """
    if cell is None or isinstance(cell, (bytes, Path)):
        return cell or None
    if isinstance(cell, Mapping):
        return cell.get("bytes") or value_of(cell.get("path"), folder=folder)
    if isinstance(cell, str):
        return (folder or Path()) / cell if cell.strip() else None
    if hasattr(cell, "convert") and hasattr(cell, "mode"):  # a Pillow image
        plain = cell if cell.mode in ("L", "RGB") else cell.convert("RGB")
        return np.asarray(plain, dtype=np.uint8)
    if isinstance(cell, float) and cell != cell:  # pandas' empty cell
        return None
    return pixels(np.asarray(cell)[None], "an image column")[0]


def looks_like(cells: Iterable[Any]) -> bool:
    """Say whether cells stand for images: all bytes, arrays, Pillow images or image file names."""
    seen = False
    for cell in cells:
        if cell is None:
            continue
        seen = True
        if isinstance(cell, str):
            if Path(cell).suffix.lower() not in SUFFIXES:
                return False
        elif isinstance(cell, Mapping):
            if not ({"bytes", "path"} & set(cell)):
                return False
        elif not (
            isinstance(cell, (bytes, Path))
            or (hasattr(cell, "convert") and hasattr(cell, "mode"))
            or (isinstance(cell, np.ndarray) and cell.ndim >= 2)
        ):
            return False
    return seen


def pixels(array: np.ndarray, place: str) -> np.ndarray:
    """Bring (n, H, W), (n, H, W, 1 or 3) or (n, 1 or 3, H, W) to uint8 (n, H, W) or (n, H, W, 3).

    Numbers are 0 to 255 when whole, in [0, 1] when floats. Raises `DataError` naming `place`.
    """
    if array.ndim == 4 and array.shape[3] not in (1, 3) and array.shape[1] in (1, 3):
        array = array.transpose(0, 2, 3, 1)
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if not (array.ndim == 3 or (array.ndim == 4 and array.shape[3] == 3)) or 0 in array.shape[1:]:
        raise DataError(
            f"{place}: images of shape {array.shape[1:]}: expected (height, width), "
            "with 1 or 3 channels"
        )
    if array.shape[1] * array.shape[2] > MEGAPIXELS * 1e6:
        raise DataError(f"{place}: images of absurd size, {array.shape[1]} x {array.shape[2]}")
    if array.dtype == np.uint8 or array.size == 0:
        return np.ascontiguousarray(array, dtype=np.uint8)
    if array.dtype.kind not in "fiu":
        raise DataError(f"{place}: images of type {array.dtype}: expected uint8 or floats")
    low, high, top = float(array.min()), float(array.max()), 1 if array.dtype.kind == "f" else 255
    if not (low >= 0 and high <= top):  # not: NaN fails too
        raise DataError(
            f"{place}: pixels from {low:g} to {high:g}: expected whole numbers from 0 to 255, "
            "or floats from 0 to 1"
        )
    return np.rint(array * (255 if top == 1 else 1)).astype(np.uint8)
