"""An .onnx that stands in a model's place: the file, and the encoder and labels that lie beside it.

The file is a stranger's: it is data, and sizes are checked before anything is read.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgedistill.data import checkpoints, models
from edgedistill.errors import ModelError, first_line, from_os_error

SUFFIX = ".onnx"
LARGEST = 2**31 - 2**20  # what one .onnx file can hold
LARGEST_JSON = 64_000_000
TOLD = {"max_length": int, "pad": int, "pad_type": int, "pad_side": str, "cut_side": str}


def is_graph(path: Any) -> bool:
    """Say whether the model that a job names is an .onnx file."""
    return isinstance(path, (str, Path)) and Path(path).suffix.lower() == SUFFIX


@dataclass(frozen=True)
class Opened:
    """An .onnx file and its folder of companions, before the rows are known."""

    path: Path
    model: Any = field(repr=False)  # onnx.ModelProto, complete in itself
    folder: Path  # of the encoder's files
    kind: str  # "text" | "image"
    labels: tuple[str, ...] | None
    told: Mapping[str, Any]  # what a bundle's manifest or an artifact says of the encoder
    digest: str  # of the graph
    bytes: int
    whole: bool  # no weights in other files
    kept: Any = field(default=None, repr=False, compare=False)  # holds temporary folders

    @property
    def name(self) -> str:
        return self.path.name


def open(path: str | Path, *, encoder: str | None = None) -> Opened:
    """Open an .onnx file, and find its encoder and labels: beside it, or in the folder `encoder`.

    Raises `ModelError`: no such file, no sound graph, too large, no encoder beside it.
    """
    from edgedistill.data import hub
    from edgedistill.graph import clean

    place = hub.local(path, ModelError)
    assert place is not None  # an .onnx is never a hub id
    model, whole = _graph(place)
    folders = _folders(place, encoder)
    folder = next((each for each in folders if checkpoints.has_encoder(each)), None)
    if folder is None:
        where = f"in '{folders[0]}'" if encoder else f"beside '{place.name}'"
        raise ModelError(
            f"there is no tokenizer.json (texts) and no image.json or preprocessor_config.json "
            f"(images) {where}: put one there, or name its folder with --set model.encoder=FOLDER"
        )
    kept = None
    if checkpoints.needs_tokenizer(folder):
        folder, kept = checkpoints.with_tokenizer(folder)
    return Opened(
        path=place,
        model=model,
        folder=folder,
        kind=models.kind_of(folder),
        labels=_labels([folder, *folders]),
        told=_told(folder),
        digest=_digest(place) if whole else hashlib.sha256(clean.serialize(model)).hexdigest(),
        bytes=place.stat().st_size if whole else model.ByteSize(),
        whole=whole,
        kept=kept,
    )


def _graph(path: Path) -> tuple[Any, bool]:
    """Read the file; returns the graph with all its weights, and whether all lay in the file."""
    import onnx

    from edgedistill.graph import clean, inspect

    try:
        size = path.stat().st_size if path.is_file() else None
    except OSError as error:
        raise from_os_error(error, "reading the model") from None
    if size is None:
        raise ModelError(f"'{path}' is no regular file: expected an .onnx")
    if not 0 < size <= LARGEST:
        why = "is empty" if not size else f"holds {size:,} bytes: at most 2 GB are read"
        raise ModelError(f"'{path}' {why}")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # protobuf's DecodeError has no public home
        raise ModelError(f"'{path.name}' is no ONNX graph, or a truncated one") from None
    outside = [
        tensor
        for graph in clean.graphs(model.graph)
        for tensor in graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    if outside:
        need = sum(_external_bytes(tensor) for tensor in outside)
        if need + size > LARGEST:
            raise ModelError(
                f"'{path.name}' keeps {need / 1e9:.1f} GB of weights in another file: what ships "
                "is one file, of 2 GB at most"
            )
        model = inspect.read(path)
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # ValidationError, and what its C++ throws
        raise ModelError(f"'{path.name}' is no valid ONNX graph: {first_line(error)}") from None
    if not model.graph.node:
        raise ModelError(f"'{path.name}' is no ONNX graph: it has no nodes")
    return model, not outside


def _external_bytes(tensor: Any) -> int:
    """Return what a tensor in another file takes at most by its own account."""
    told = {each.key: each.value for each in tensor.external_data}
    length = told.get("length", "")
    return int(length) if length.isdigit() else 8 * math.prod(tensor.dims)


def _folders(path: Path, encoder: str | None) -> list[Path]:
    """Return where the encoder and the labels may lie: the hub keeps graphs in a folder onnx/."""
    if encoder is not None:
        folder = Path(encoder).expanduser()
        if not folder.is_dir():
            raise ModelError(f"model.encoder: there is no folder '{encoder}'")
        return [folder, path.parent]
    return [path.parent, *([path.parent.parent] if path.absolute().parent.name == "onnx" else [])]


def _labels(folders: Sequence[Path]) -> tuple[str, ...] | None:
    """Read the names of the outputs: labels.json, else id2label of config.json."""
    for folder in dict.fromkeys(folders):
        listed = _json(folder / "labels.json")
        if listed is not None:
            if not (isinstance(listed, list) and all(isinstance(each, str) for each in listed)):
                raise ModelError(f"'{folder / 'labels.json'}' is no list of label names")
            return models.distinct(folder.name, tuple(listed))
        config = _json(folder / "config.json")
        told = config.get("id2label") if isinstance(config, dict) else None
        if isinstance(told, dict) and told:
            return models.labels_of(folder.name, {"id2label": told}, len(told))
    return None


def _told(folder: Path) -> dict[str, Any]:
    """Return what a bundle's manifest or an artifact's record says of the encoder's settings."""
    manifest, record = _json(folder / "manifest.json"), _json(folder / "artifact.json")
    found = manifest.get("encode") if isinstance(manifest, dict) else None
    if found is None and isinstance(record, dict) and isinstance(record.get("settings"), dict):
        found = record["settings"].get("encoder")
    if not isinstance(found, dict):
        return {}
    sides = ("left", "right")
    return {
        name: found[name]
        for name, kind in TOLD.items()
        if type(found.get(name)) is kind and (kind is int or found[name] in sides)
    }


def _json(path: Path) -> Any:
    """Read a JSON file, None where there is none. Raises `ModelError`."""
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ModelError(f"'{path}' holds over {LARGEST_JSON // 1_000_000} MB of JSON")
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"'{path}' is not JSON: {error}") from None
    except OSError as error:
        raise from_os_error(error, "reading the model") from None


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise from_os_error(error, "reading the model") from None
