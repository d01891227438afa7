"""Read a transformers' preprocessor_config.json as an image.json, without transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgedistill.errors import ModelError
from edgedistill.tasks._pixels import RESAMPLE

FILES = ("preprocessor_config.json", "processor_config.json")
HALF = ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
CLIP = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])

# What a processor's class does where its file is silent:
# its size (a number: the shortest edge), its crop, Pillow's number of the resampling, mean and std
DEFAULTS: dict[str, tuple[Any, int | None, int, tuple[list[float], list[float]]]] = {
    "ViT": ({"height": 224, "width": 224}, None, 2, HALF),
    "DeiT": ({"height": 256, "width": 256}, 224, 3, HALF),
    "Beit": ({"height": 224, "width": 224}, None, 3, HALF),
    "ConvNext": ({"shortest_edge": 384}, None, 3, HALF),
    "Bit": ({"shortest_edge": 224}, 224, 3, CLIP),
    "CLIP": ({"shortest_edge": 224}, 224, 3, CLIP),
    "MobileNetV1": ({"shortest_edge": 256}, 224, 2, HALF),
    "MobileNetV2": ({"shortest_edge": 256}, 224, 2, HALF),
    "Pvt": ({"height": 224, "width": 224}, None, 3, IMAGENET),
    "Siglip": ({"height": 224, "width": 224}, None, 3, HALF),
}
UNKNOWN = ("do_pad", "do_flip_channel_order", "rescale_offset", "size_divisor")


def image_settings_of(folder: Path) -> dict[str, Any]:
    """Return the image.json of a Hugging Face folder. Raises `ModelError`."""
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        raise ModelError(f"'{folder}' has no {FILES[0]} (how the model reads images)")
    told = _json(path)
    told = told.get("image_processor", told)  # processor_config.json nests it
    config = _json(folder / "config.json") if (folder / "config.json").is_file() else {}
    kind = _kind(told, path)
    size, crop, resample, (mean, std) = DEFAULTS[kind]
    for name in UNKNOWN:
        if told.get(name):
            raise ModelError(f"'{path.name}' asks for {name}: not yet")
    resize, final = _sizes(told, kind, size, crop, path)
    if not told.get("do_rescale", True) and not told.get("do_normalize", True):
        rescale = 1.0
    else:
        rescale = float(told.get("rescale_factor", 1 / 255)) if told.get("do_rescale", True) else 1
    mean, std = told.get("image_mean") or mean, told.get("image_std") or std
    if not told.get("do_normalize", True):
        mean, std = [0.0] * len(mean), [1.0] * len(std)
    channels = int(config.get("num_channels", len(mean)))
    return {
        "format": 1,
        "size": final,
        "channels": channels,
        "resize": resize,
        "resample": RESAMPLE[int(told.get("resample", resample))],
        "rescale": rescale,
        "mean": _each(mean, channels, path),
        "std": _each(std, channels, path),
    }


def _json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"'{path}' is not JSON: {error}") from None
    if not isinstance(read, dict):
        raise ModelError(f"'{path}' is not a JSON object")
    return read


def _kind(told: Mapping[str, Any], path: Path) -> str:
    name = str(told.get("image_processor_type") or told.get("feature_extractor_type") or "ViT")
    kind = name
    for suffix in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        kind = kind.removesuffix(suffix)
    if kind not in DEFAULTS:
        raise ModelError(
            f"'{path.name}' names {name}, which is not read yet; these are: "
            + ", ".join(sorted(DEFAULTS))
        )
    return kind


def _sizes(
    told: Mapping[str, Any], kind: str, size: Any, crop: int | None, path: Path
) -> tuple[dict[str, int] | None, list[int]]:
    """Return what an image is resized to, and the size after the crop at its centre."""
    given = told.get("size", size)
    if isinstance(given, int):  # files of old versions
        square = "shortest_edge" not in size
        given = {"height": given, "width": given} if square else {"shortest_edge": given}
    wanted = {"height", "width"} if "height" in given else {"shortest_edge"}
    if not wanted <= set(given) or given.get("longest_edge"):
        raise ModelError(f"'{path.name}' has a size that is not read yet: {given}")
    resize: dict[str, int] | None = {name: int(given[name]) for name in sorted(wanted)}
    assert resize is not None
    if kind == "ConvNext" and "shortest_edge" in resize:
        edge = resize["shortest_edge"]
        if edge < 384:  # a ConvNeXt processor resizes to more and crops; from 384 on it warps
            return {"shortest_edge": int(edge / told.get("crop_pct", 224 / 256))}, [edge, edge]
        return {"height": edge, "width": edge}, [edge, edge]
    final = [resize["height"], resize["width"]] if "height" in resize else None
    if told.get("do_center_crop", crop is not None):
        cut = told.get("crop_size", crop or final)
        if isinstance(cut, Mapping):
            cut = [cut.get("height"), cut.get("width")]
        final = [int(cut), int(cut)] if isinstance(cut, int) else [int(one) for one in cut or ()]
    if not told.get("do_resize", True):
        resize = None
    if final is None or len(final) != 2:
        raise ModelError(f"'{path.name}' leaves images of different sizes: a crop_size is needed")
    return resize, final


def _each(values: Any, channels: int, path: Path) -> list[float]:
    """Return one value a channel."""
    values = [float(one) for one in (values if isinstance(values, (list, tuple)) else [values])]
    if len(values) == channels:
        return values
    if len(set(values)) == 1:
        return values[:1] * channels
    raise ModelError(f"'{path.name}' has {len(values)} means for {channels} channels")
