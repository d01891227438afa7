"""Quantize: one scheme over a graph, held against its parent on training rows."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill import plugins as doors
from edgedistill.errors import ModelError
from edgedistill.records import Progress
from edgedistill.settings import coerce, setting

INPUTS = {"graph": "graph", "train": "arrays"}
OUTPUT = "graph"
PACKAGES = ("onnx", "onnxruntime", "numpy")

CHUNK = 16  # calibration rows of one run; ranges do not depend on it
LOW_AGREEMENT = 90.0  # points, below which a note is worth a line


@dataclass(frozen=True)
class Settings:
    task: str = setting("text-classification", "the task, which knows how the graph is fed")
    scheme: str = setting("dynamic_int8", "the quantization scheme")
    scheme_settings: Mapping = setting({}, "the scheme's own settings")
    encoder: Mapping = setting({}, "the encoder's settings (max_length for text)")
    rows: int = setting(256, "training rows to calibrate and to compare with", low=1)
    batch: int = setting(1, "rows of a run in the comparison, as deployed", low=1, high=4096)
    seed: int = setting(0, "which rows are drawn")
    integers: str = setting("int64", "type of integer inputs", choices=("int64", "int32"))
    session: Mapping = setting({}, "the session's options, those that ship; empty: the defaults")
    instructions: str = setting("", "the host's instruction set for int8, which can change results")


def plugins(settings: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Name the plugins that a step with these settings uses."""
    return [("tasks", settings["task"]), ("schemes", settings["scheme"])]


def run(
    inputs: Mapping[str, Path], settings: Settings, out: Path, progress: Progress
) -> Mapping[str, Any]:
    """Quantize a graph folder; returns facts: how like its parent it is, where it is exact."""
    from edgedistill.graph import clean, halves, inspect, session

    source = inputs["graph.0"]
    scheme: Any = doors.find("schemes", settings.scheme, allow_code=True)
    told = coerce(scheme.Settings, settings.scheme_settings, f"quantize.{settings.scheme}")
    parent = inspect.read(source / "model.onnx")
    rows = _Rows(inputs, settings, source)

    def calibration() -> Iterator[Mapping[str, np.ndarray]]:
        fixed = session.fixed(session.start(source / "model.onnx"))
        return rows.batches(fixed.batch or CHUNK, fixed.length)

    made = scheme.apply(parent, calibration if scheme.CALIBRATES else None, told)
    clean.clean(halves.halve(made), ir=parent.ir_version)
    path = out / "model.onnx"
    clean.save(made, path)
    for file in sorted(source.iterdir()):
        if file.is_file() and file.name not in ("model.onnx", "artifact.json"):
            shutil.copyfile(file, out / file.name)

    against = _against_parent(source / "model.onnx", path, rows, settings)
    if against["agreement_points"] < LOW_AGREEMENT:
        text = f"{settings.scheme}: only {against['agreement_points']:.1f} % of {against['rows']} "
        progress({"kind": "note", "text": text + "training rows are answered as before"})
    return {
        **inspect.describe(path, settings.session),
        "precision": scheme.PRECISION,
        "processors": list(scheme.exact_on(told)),
        "against_parent": against,
        "bytes_parent": (source / "model.onnx").stat().st_size,
    }


class _Rows:
    """The drawn training rows, read anew for each pass: memory holds one batch."""

    def __init__(self, inputs: Mapping[str, Path], settings: Settings, source: Path) -> None:
        from edgedistill.data import arrays
        from edgedistill.stages import indexed

        task: Any = doors.find("tasks", settings.task, allow_code=True)
        self._encoder = task.open_encoder(source, settings.encoder)
        self._parts = [arrays.Arrays(folder) for folder in indexed(inputs, "train")]
        self._integers = settings.integers
        total = sum(len(part) for part in self._parts)
        if not total:
            raise ModelError("quantize has no training rows to calibrate or compare with")
        drawn = np.random.default_rng(settings.seed).permutation(total)[: settings.rows]
        self.order = [int(index) for index in np.sort(drawn)]

    def batches(self, size: int, length: int) -> Iterator[dict[str, np.ndarray]]:
        """Yield the rows as feeds of `size` rows, padded to `length` where it is not 0."""
        from edgedistill.graph import feeds

        for start in range(0, len(self.order), size):
            chosen = [self._row(index) for index in self.order[start : start + size]]
            yield feeds.padded(chosen, self._encoder, integers=self._integers, length=length)

    def _row(self, index: int) -> dict[str, np.ndarray]:
        for part in self._parts:
            if index < len(part):
                return part.row(index)
            index -= len(part)
        raise IndexError(index)


def _against_parent(parent: Path, path: Path, rows: _Rows, settings: Settings) -> dict[str, Any]:
    """Run parent and quantized graph as deployed on the drawn rows; returns their likeness."""
    from edgedistill.graph import compare, session

    logits = []
    for file in (parent, path):
        running = session.start(file, settings.session)
        fixed = session.fixed(running)
        size = fixed.batch or settings.batch
        batches = rows.batches(size, fixed.length)
        logits.append(np.concatenate([session.logits(running, feed) for feed in batches]))
    facts = dataclasses.asdict(compare.likeness(*logits))
    return {name: round(value, 6) for name, value in facts.items()}
