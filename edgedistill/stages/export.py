"""Export: a model becomes an ONNX graph, held against torch on batches of several shapes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill import plugins as doors
from edgedistill.errors import ExportError, ModelError, first_line
from edgedistill.records import Progress
from edgedistill.settings import setting

INPUTS = {"model": "model"}
OUTPUT = "graph"
PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Settings:
    task: str = setting("text-classification", "the task, which knows how the model is fed")
    encoder: Mapping = setting({}, "the encoder's settings (max_length for text)")
    opset: int = setting(17, "ONNX opset of the graph", low=17, high=20)
    ir: int = setting(8, "ONNX IR version of the graph", low=8, high=13)
    integers: str = setting("int64", "type of integer inputs", choices=("int64", "int32"))
    fixed: int = setting(0, "0: any batch and length; else one row of this length", low=0)
    single: bool = setting(
        False, "one row a run, never padded: without mask and segments, where the graph can be"
    )


def plugins(settings: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Name the plugins that a step with these settings uses."""
    return [("tasks", settings["task"])]


def run(
    inputs: Mapping[str, Path], settings: Settings, out: Path, progress: Progress
) -> Mapping[str, Any]:
    """Export a model folder; returns facts about the graph and how it compares with torch."""
    from edgedistill.graph import clean, compare, export, feeds, inspect

    source = inputs["model.0"]
    task: Any = doors.find("tasks", settings.task, allow_code=True)
    encoder = task.open_encoder(source, settings.encoder)
    labels = _labels(source)
    examples = task.golden(encoder, labels or [])
    rows = encoder.encode_many(examples)
    batches = feeds.of_shapes(rows, encoder)
    model = load(source, task)

    made = export.export(
        model,
        task.forward,
        batches,
        opset=settings.opset,
        ir=settings.ir,
        integers=settings.integers,
    )
    compared = compare.hold(
        export.torch_logits(model, task.forward), _runs(made, settings.integers), batches
    )
    if settings.single and not settings.fixed:
        made = _single(made, rows, encoder, batches)
        alone = _runs(made, settings.integers)
        one_by_one = [encoder.batch([row], integers="int64") for row in rows]
        compare.hold(export.torch_logits(model, task.forward), alone, one_by_one, shapes=1)
    if settings.fixed:
        clean.fix(made, {"batch": 1, "length": settings.fixed})
    path = out / "model.onnx"
    clean.save(made, path)
    if settings.fixed:
        row = encoder.encode(examples[0])
        feed = feeds.padded([row], encoder, integers="int64", length=_length(row, settings))
        fixed = _runs(made, settings.integers)
        compare.hold(export.torch_logits(model, task.forward), fixed, [feed], shapes=1)
    encoder.files(out)
    if labels is not None:
        _same_count(labels, model, task, batches[0])
        shutil.copyfile(source / "labels.json", out / "labels.json")
    return {**inspect.describe(path), "compared": compared}


def _single(
    made: Any,
    rows: Sequence[Mapping[str, np.ndarray]],
    encoder: Any,
    batches: Sequence[Mapping[str, np.ndarray]],
) -> Any:
    """Return the graph for one row a run; the same graph where it can't do without an input."""
    from edgedistill.graph import feeds, single

    return single.single(made, feeds.numbers(rows, encoder), batches) or made


def load(folder: Path, task: Any) -> Any:
    """Load a model folder in float32 with eager attention, in eval mode.

    A checkpoint's own float16 is never kept, and eager attention always exports.
    """
    import torch

    from edgedistill.families import _architectures
    from edgedistill.train import weights

    _architectures.register()
    try:
        model, loaded = task.model_class().from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError) as error:
        first = first_line(error)
        raise ModelError(f"the model can't be loaded: {first}") from error
    except RuntimeError as error:  # what transformers raises for tensors of another shape
        raise ModelError(
            "the model's weights have other shapes than its config.json says"
        ) from error
    weights.whole(model, loaded, head=True)
    return model.eval()


def _runs(made: Any, integers: str) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Return a function that runs a graph on an int64 feed, as the session that ships does."""
    from edgedistill.graph import clean, session

    running = session.start(clean.serialize(made))

    def run(feed: Mapping[str, np.ndarray]) -> np.ndarray:
        typed = {
            name: value.astype(integers) if value.dtype == np.int64 else value
            for name, value in feed.items()
        }
        return session.logits(running, typed)

    return run


def _length(row: Mapping[str, np.ndarray], settings: Settings) -> int:
    """Return the length that text is padded to; images have no length."""
    return settings.fixed if any(value.ndim == 1 for value in row.values()) else 0


def _labels(folder: Path) -> list[str] | None:
    path = folder / "labels.json"
    return json.loads(path.read_text()) if path.is_file() else None


def _same_count(labels: list[str], model: Any, task: Any, feed: Mapping[str, np.ndarray]) -> None:
    from edgedistill.graph import export

    given = export.torch_logits(model, task.forward)(feed).shape[-1]
    if given != len(labels):
        raise ExportError(f"the model gives {given} outputs, but labels.json names {len(labels)}")
