"""The image encoder: Pillow by a bundle's own image.json, without torch or transformers.

    image.json  {"format": 1, "size": [h, w], "channels": 1 | 3,
                 "resize": {"height", "width"} | {"shortest_edge"} | null,  (absent: to `size`)
                 "resample": name, "rescale": factor (absent: 1/255), "mean": [..], "std": [..]}

An image is decoded, turned upright (EXIF), brought to gray or RGB, resized, cropped at its centre
to `size` where the resized one differs, and kept as uint8; `batch` scales and normalises.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill.errors import DataError, ModelError

FILE = "image.json"
PACKAGES = ("pillow", "numpy")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # no format that runs a program
MOST_PIXELS = 100_000_000  # a phone's largest photographs; 300 MB once decoded
LARGEST = 4096  # side of an encoded image
RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's numbers


def image_settings(size: tuple[int, int], channels: int) -> dict[str, Any]:
    """Return the image.json of a model that is made here: pixels from -1 to 1."""
    height, width = size
    return {
        "format": 1,
        "size": [height, width],
        "channels": channels,
        "resize": {"height": height, "width": width},
        "resample": "bilinear",
        "rescale": 1 / 255,
        "mean": [0.5] * channels,
        "std": [0.5] * channels,
    }


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write image.json, the same bytes for the same content."""
    text = json.dumps(checked(settings, folder / FILE), indent=1, sort_keys=True) + "\n"
    (folder / FILE).write_bytes(text.encode())


def read_settings(folder: Path) -> dict[str, Any]:
    """Read and check image.json. Raises `ModelError`."""
    path = folder / FILE
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"'{folder}' has no {FILE} (how the model reads images)") from None
    except ValueError as error:
        raise ModelError(f"'{path}' is not JSON: {error}") from None
    return checked(read, path)


def checked(settings: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """Return the settings of an image.json with plain types, or raise `ModelError`."""
    try:
        height, width = (int(side) for side in settings["size"])
        channels = int(settings["channels"])
        resize = settings.get("resize", {"height": height, "width": width})
        resize = resize and {name: int(side) for name, side in resize.items()}
        made: dict[str, Any] = {
            "format": 1,
            "size": [height, width],
            "channels": channels,
            "resize": resize,
            "resample": str(settings["resample"]),
            "rescale": float(settings.get("rescale", 1 / 255)),
            "mean": [float(one) for one in settings["mean"]],
            "std": [float(one) for one in settings["std"]],
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"'{place}' is no image setting: {error!r}") from None
    sides = [height, width, *(resize or {}).values()]
    known = resize is None or set(resize) in ({"height", "width"}, {"shortest_edge"})
    right = (
        settings.get("format", 1) == 1
        and all(1 <= side <= LARGEST for side in sides)
        and channels in (1, 3)
        and known
        and made["resample"] in RESAMPLE
        and len(made["mean"]) == len(made["std"]) == channels
        and all(made["std"])
        and bool(np.isfinite([made["rescale"], *made["mean"], *made["std"]]).all())
    )
    if not right:
        raise ModelError(f"'{place}' is no image setting that can be used: {made}")
    return made


class ImageEncoder:
    """The encoder of one image model, by the image.json in its folder."""

    def __init__(self, folder: Path) -> None:
        self._settings = read_settings(folder)
        self.height, self.width = self._settings["size"]
        self.channels: int = self._settings["channels"]
        self.mode = "L" if self.channels == 1 else "RGB"  # Pillow's name of gray and of colours
        about = {name: value for name, value in self._settings.items() if name != "format"}
        self.facts: Mapping[str, Any] = {"kind": "image", "file": FILE, **about}

    def inputs(self) -> tuple[str, ...]:
        """Name the graph's inputs, in order."""
        return ("pixel_values",)

    def encode(self, example: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Encode one example: {"pixels": uint8 (height, width, channels)}. Raises `DataError`."""
        content = example.get("image")
        if not isinstance(content, bytes):
            found = "nothing" if content is None else type(content).__name__
            raise DataError(f"'image' should be the bytes of an image file, found {found}")
        image = decoded(content, self.mode)
        pixels = np.asarray(self._resized(image), dtype=np.uint8)
        pixels = pixels.reshape(*pixels.shape[:2], self.channels)
        return {"pixels": _centre(pixels, self.height, self.width)}

    def encode_many(self, examples: Sequence[Mapping[str, Any]]) -> list[dict[str, np.ndarray]]:
        """Encode several, one by one."""
        return [self.encode(example) for example in examples]

    def _resized(self, image: Any) -> Any:
        resize = self._settings["resize"]
        if resize is None:
            return image
        if "shortest_edge" in resize:
            edge, short, long = resize["shortest_edge"], min(image.size), max(image.size)
            other = int(edge * long / short)
            if other * edge > MOST_PIXELS:  # one pixel wide and a million high
                raise DataError(f"an image of {image.width} x {image.height} is no picture")
            size = (edge, other) if image.width <= image.height else (other, edge)
        else:
            size = (resize["width"], resize["height"])
        return image.resize(size, RESAMPLE.index(self._settings["resample"]))

    def batch(
        self, rows: Sequence[Mapping[str, np.ndarray]], *, integers: str = "int64"
    ) -> dict[str, np.ndarray]:
        """Stack encoded rows to {"pixel_values": float32 (rows, channels, height, width)}."""
        shape = (len(rows), self.height, self.width, self.channels)
        pixels = np.stack([row["pixels"] for row in rows]) if rows else np.zeros(shape, np.uint8)
        scaled = pixels.astype(np.float32) * np.float32(self._settings["rescale"])
        mean = np.array(self._settings["mean"], dtype=np.float32)
        std = np.array(self._settings["std"], dtype=np.float32)
        values = (scaled - mean) / std
        return {"pixel_values": np.ascontiguousarray(values.transpose(0, 3, 1, 2))}

    def files(self, out: Path) -> None:
        """Write image.json, the file that ships."""
        write_settings(out, self._settings)


def decoded(content: bytes, mode: str) -> Any:
    """Decode an image file to gray ("L") or "RGB", upright. Raises `DataError`."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of sizes that are refused below
            image: Any = Image.open(io.BytesIO(content), formats=FORMATS)
            width, height = image.size
            if width * height > MOST_PIXELS:  # said before anything is decoded
                raise DataError(
                    f"an image of {width:,} x {height:,} pixels: at most {MOST_PIXELS:,} are read"
                )
            if image.mode.startswith("I;16"):  # Pillow would clip, and leave it white
                deep = np.asarray(image).astype(np.uint16)
                image = Image.fromarray((deep >> 8).astype(np.uint8))
            elif image.mode in ("I", "F"):
                raise DataError(f"an image of {image.mode}-type pixels: 8 or 16 bits are read")
            return ImageOps.exif_transpose(image).convert(mode)
    except DataError:
        raise
    except Image.UnidentifiedImageError:
        size = "an empty file" if not content else f"{len(content):,} bytes"
        raise DataError(f"no image that can be read ({size}; {', '.join(FORMATS)})") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"an image of absurd size: {error}") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        raise DataError(f"a damaged or truncated image: {error}") from None


def _centre(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Crop at the centre, or pad with black around it (as transformers' Pillow processors do)."""
    rows, columns = pixels.shape[:2]
    top, left = max(0, -((rows - height) // 2)), max(0, -((columns - width) // 2))
    if rows < height or columns < width:
        around = (
            (top, max(0, height - rows - top)),
            (left, max(0, width - columns - left)),
            (0, 0),
        )
        pixels = np.pad(pixels, around)
        rows, columns = pixels.shape[:2]
    top, left = (rows - height) // 2, (columns - width) // 2
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])
