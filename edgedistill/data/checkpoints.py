"""Checkpoints: bring whatever the user named as the model to one folder on disk.

Code that lies in a checkpoint is never run, and a pickle is read only when the user allowed it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgedistill.data import hub, weights
from edgedistill.errors import ModelError, first_line, from_os_error

TOKENIZER = "tokenizer.json"
VOCABULARIES = (
    "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model",
    "spm.model", "bpe.codes",
)  # fmt: skip
IMAGES = ("image.json", "preprocessor_config.json", "processor_config.json")
OTHERS = ("tf_model.h5", "flax_model.msgpack", "model.ckpt", "model.gguf")  # of other libraries


@dataclass(frozen=True)
class Opened:
    """A checkpoint on disk. `scratch` holds temporary folders for as long as this lives."""

    name: str
    folder: Path  # with config.json and the files of the tokenizer or image processor
    weights: weights.Weights
    config: dict[str, Any] = field(repr=False)
    bytes: int = 0  # of the weights as they were given
    commit: str | None = None  # of a hub id
    scratch: tuple[Any, ...] = field(default=(), repr=False, compare=False)


def open(
    model: Any, *, revision: str | None = None, allow_pickle: bool = False, student: bool = False
) -> Opened:
    """Open a folder, a hub id or a live model. Raises `ModelError`, naming what is missing.

    A student may be a config alone: a folder without weights, or a config.json.
    """
    scratch: list[tempfile.TemporaryDirectory[str]] = []

    def temporary() -> Path:
        scratch.append(tempfile.TemporaryDirectory(prefix="edgedistill-model-"))
        return Path(scratch[-1].name)

    commit = None
    if isinstance(model, (str, Path)):
        place = hub.local(model, ModelError)
        name = (place.resolve() if place else Path(str(model))).name
        if place is not None and revision is not None:
            raise ModelError(
                f"model.revision is of a model on the hub, and '{model}' is here: leave it out"
            )
        if place is None:
            place, commit = hub.fetch_model(str(model), revision=revision, pickles=allow_pickle)
        elif student and place.is_file() and place.suffix.lower() == ".json":
            name, place = place.stem, _lone_config(place, temporary())
    else:
        place = temporary()
        name = _save(model, place)
    config = _config(place)
    found = weights.read(place)
    size = found.bytes if found else 0
    if found is None and not weights.is_pickle_only(place):
        found = _no_weights(place, student=student)
    elif found is None:
        out = temporary()
        size = _unpickle(place, out, allow_pickle=allow_pickle)
        found = weights.read(out)
        assert found is not None
    if needs_tokenizer(place):
        place = _fast_tokenizer(place, temporary(), config)
    return Opened(name, place, found, config, size, commit, tuple(scratch))


def _lone_config(path: Path, out: Path) -> Path:
    try:
        (out / "config.json").write_bytes(path.read_bytes())
    except OSError as error:
        raise from_os_error(error, "reading the student's config") from None
    return out


def _config(folder: Path) -> dict[str, Any]:
    if folder.suffix.lower() == ".onnx":
        raise ModelError(
            f"'{folder}': an .onnx can be quantized and measured as --model, alone; students and "
            "further teachers come from the checkpoint that it was exported from"
        )
    if not folder.is_dir():
        raise ModelError(f"'{folder}' is a file: expected the folder of a checkpoint")
    path = folder / "config.json"
    if not path.is_file():
        hint = ""
        if (folder / "adapter_config.json").is_file():
            hint = ": it is an adapter; merge it into its model and save that"
        elif graphs := sorted(path.name for path in folder.glob("*.onnx")):
            hint = f"; to start from its graph, name the file: --model {folder / graphs[0]}"
        raise ModelError(f"'{folder}' is no model: config.json is missing{hint}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"'{path}' is not JSON: {error}") from None
    except OSError as error:
        raise from_os_error(error, "reading the model") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelError(f"'{path}' names no model_type: it is no transformers checkpoint")
    if config.get("auto_map"):
        raise ModelError(
            f"'{folder.name}' wants to run code of its own (auto_map in config.json), which is "
            "never run: use a model type that transformers has itself"
        )
    if config.get("quantization_config"):
        raise ModelError(
            f"'{folder.name}' is quantized already (quantization_config in config.json): "
            "give the checkpoint in float"
        )
    return config


def _no_weights(folder: Path, *, student: bool) -> weights.Weights:
    other = next((name for name in OTHERS if (folder / name).is_file()), None)
    if student and other is None:
        return weights.Weights((), {}, 0)
    hint = f" ('{other}' is not read)" if other else ""
    graphs = sorted(path.name for path in folder.glob("*.onnx"))
    if graphs and not other:
        hint = f"; to start from its graph, name the file: --model {folder / graphs[0]}"
    raise ModelError(f"'{folder}' is no model: model.safetensors is missing{hint}")


def _unpickle(folder: Path, out: Path, *, allow_pickle: bool) -> int:
    if not allow_pickle:
        raise ModelError(
            f"'{folder}' has its weights as a pickle only ({weights.PICKLE}), which can run code "
            "when it is loaded: save it as safetensors, or allow it with --allow-pickle"
        )
    return weights.convert(folder, out)


def has_encoder(folder: Path) -> bool:
    """Say whether a folder holds a tokenizer or an image processor."""
    has = {path.name for path in folder.iterdir()}
    return not has.isdisjoint((TOKENIZER, *VOCABULARIES, *IMAGES))


def needs_tokenizer(folder: Path) -> bool:
    """Say whether a folder's tokenizer is a vocabulary only, yet to be converted."""
    has = {path.name for path in folder.iterdir()}
    return TOKENIZER not in has and not has.isdisjoint(VOCABULARIES) and has.isdisjoint(IMAGES)


def with_tokenizer(folder: Path) -> tuple[Path, Any]:
    """Convert a vocabulary to tokenizer.json in a temporary folder, which the second part keeps."""
    kept = tempfile.TemporaryDirectory(prefix="edgedistill-model-")
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return _fast_tokenizer(folder, Path(kept.name), config), kept


def _fast_tokenizer(folder: Path, out: Path, config: Mapping[str, Any]) -> Path:
    """Convert a tokenizer that is a vocabulary only to tokenizer.json, by transformers."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        tokenizer.save_pretrained(str(out))
    except Exception as error:  # transformers raises many kinds
        reason = first_line(error)
        raise ModelError(
            f"'{folder}' has no tokenizer.json, and its vocabulary can't be converted: {reason}"
        ) from None
    if not (out / TOKENIZER).is_file():
        raise ModelError(
            f"'{folder}' has no tokenizer.json, and its tokenizer "
            f"({type(tokenizer).__name__}) has no such form"
        )
    (out / "config.json").write_text(json.dumps(dict(config)), encoding="utf-8")
    return out


# ---------------------------------------------------------------- live models


def _save(value: Any, out: Path) -> str:
    """Write a live model and its tokenizer or image processor; returns its name."""
    model, processor = _parts(value)
    if not (hasattr(model, "save_pretrained") and hasattr(model, "config")):
        raise ModelError(
            f"a model of type {type(model).__name__} can't be taken: expected a folder, a hub id, "
            "or a transformers PreTrainedModel with its tokenizer: (model, tokenizer)"
        )
    if processor is None:
        processor = _processor_of(model)
    if not hasattr(processor, "save_pretrained"):
        raise ModelError(
            f"a tokenizer of type {type(processor).__name__} can't be saved: "
            "expected transformers' tokenizer or image processor"
        )
    try:
        model.save_pretrained(str(out))
        processor.save_pretrained(str(out))
    except OSError as error:
        raise from_os_error(error, "saving the live model") from None
    return type(model).__name__


def _parts(value: Any) -> tuple[Any, Any]:
    """Take (model, processor), {"model", "tokenizer" | "image_processor"}, a pipeline, a model."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ModelError(f"a live model is (model, tokenizer), got {len(value)} parts")
        first, second = value
        return (first, second) if hasattr(first, "config") else (second, first)
    names = ("tokenizer", "image_processor", "processor", "feature_extractor")
    if isinstance(value, Mapping):
        if "model" not in value:
            raise ModelError('a live model as a mapping needs "model" and "tokenizer"')
        return value["model"], next((value[name] for name in names if value.get(name)), None)
    if hasattr(value, "model") and hasattr(value, "tokenizer"):  # a pipeline
        return value.model, next((p for n in names if (p := getattr(value, n, None))), None)
    return value, None


def _processor_of(model: Any) -> Any:
    """Load the tokenizer or image processor from where a live model came from."""
    from transformers import AutoImageProcessor, AutoTokenizer

    origin = getattr(model, "name_or_path", "") or ""
    for kind in (AutoTokenizer, AutoImageProcessor) if origin else ():
        try:
            return kind.from_pretrained(origin)
        except Exception:  # transformers raises many kinds; the other kind may be the right one
            continue
    where = f" ('{origin}' has none)" if origin else ""
    raise ModelError(
        f"the live model comes without its tokenizer or image processor{where}: "
        "pass both, as (model, tokenizer)"
    )
