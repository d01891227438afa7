"""Quantize: one scheme over a graph, held against its parent on training rows.

Where validation rows are given and int8 costs more points on them than allowed, the scheme's milder
settings are tried, and the operators that cost most return to float.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill import plugins as doors
from edgedistill.errors import ModelError, nearest
from edgedistill.records import Progress
from edgedistill.settings import coerce, setting
from edgedistill.stages import indexed

INPUTS = {"graph": "graph", "train": "arrays", "validation": "arrays"}
OUTPUT = "graph"
PACKAGES = ("onnx", "onnxruntime", "numpy")

CHUNK = 16  # calibration rows of one run, at most; ranges do not depend on it
FEW = 32  # rows by which operators are ranked
PADDED = 8  # rows of a padded batch, at least
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
    metric: str = setting("accuracy", "what recovery measures on validation rows")
    recover: int = setting(
        4, "operators that may return to float; 0: nothing is recovered", low=0, high=10_000
    )
    recover_points: float = setting(
        0.5,
        "points that int8 may cost on validation rows before they are recovered",
        low=0,
        high=100,
    )
    size_mb: float = setting(
        0.0, "the target's limit: no file is made larger than it by recovery; 0: none", low=0
    )
    recover_rows: int = setting(2000, "validation rows that recovery measures on", low=1)
    trained: bool = setting(True, "no: what the graph answers is chance, and no news")
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
    rows = _Rows(inputs, settings, "train", settings.rows)
    if not rows.order:
        raise ModelError("quantize has no training rows to calibrate or compare with")
    fixed = session.fixed(session.start(source / "model.onnx"))

    def apply(told: Any, order: Sequence[int]) -> Any:
        def calibration() -> Iterator[Mapping[str, np.ndarray]]:
            if fixed.batch or fixed.length:
                return rows.batches(1, fixed, order)
            return rows.unpadded(CHUNK, order)

        made = scheme.apply(parent, calibration if scheme.CALIBRATES else None, told)
        return clean.clean(halves.halve(made), ir=parent.ir_version)

    _say_unknown(getattr(told, "floats", ()), scheme, parent, settings.scheme, progress)
    made = apply(told, rows.order)
    recovered: dict[str, Any] = {}
    if settings.recover and indexed(inputs, "validation") and hasattr(told, "floats"):
        seen = _Rows(inputs, settings, "validation", settings.recover_rows)
        held = _Held(source / "model.onnx", rows, seen, settings)
        told, recovered = _recovered(held, scheme, told, (parent, made), apply, progress)
        if recovered.get("floats") or recovered.get("milder"):
            made = apply(told, rows.order)
    path = out / "model.onnx"
    clean.save(made, path)
    for file in sorted(source.iterdir()):
        if file.is_file() and file.name not in ("model.onnx", "artifact.json"):
            shutil.copyfile(file, out / file.name)

    against = _against_parent(source / "model.onnx", path, rows, settings)
    if settings.trained and against["agreement_points"] < LOW_AGREEMENT:
        text = f"{settings.scheme}: only {against['agreement_points']:.1f} % of {against['rows']} "
        progress({"kind": "note", "text": text + "training rows are answered as before"})
    return {
        **inspect.describe(path, settings.session),
        "precision": _precision(made, scheme),
        "processors": list(scheme.exact_on(told)),
        "against_parent": against,
        "batched": None if fixed.batch else _batched(path, rows, settings),
        "parameters": inspect.parameters(parent),  # of the model: packed ones are no fewer
        "recovered": recovered or None,
        "bytes_parent": (source / "model.onnx").stat().st_size,
    }


def _say_unknown(
    floats: Sequence[str], scheme: Any, parent: Any, name: str, progress: Progress
) -> None:
    """Say which operators that are to stay in float this graph does not have.

    No error: another graph of the same build (the teacher's, a student's) may have them.
    """
    if not floats:
        return
    known = scheme.quantizable(parent, scheme.Settings())
    for each in sorted({*floats} - {*known}):
        text = f"{name}: floats names '{each}', which int8 does not touch here: "
        progress({"kind": "note", "text": text + nearest(each, known)})


def _precision(model: Any, scheme: Any) -> str:
    """Return the scheme's precision, or "fp32" where it found nothing to make int8."""
    from onnx import TensorProto

    kinds = (TensorProto.INT8, TensorProto.UINT8)
    found = any(tensor.data_type in kinds for tensor in model.graph.initializer)
    return scheme.PRECISION if found or scheme.PRECISION != "int8" else "fp32"


class _Rows:
    """Drawn rows of one input, read anew for each pass: memory holds one batch."""

    def __init__(
        self, inputs: Mapping[str, Path], settings: Settings, name: str, count: int
    ) -> None:
        from edgedistill.data import arrays

        task: Any = doors.find("tasks", settings.task, allow_code=True)
        self._encoder = task.open_encoder(inputs["graph.0"], settings.encoder)
        self._parts = [arrays.Arrays(folder) for folder in indexed(inputs, name)]
        self._integers = settings.integers
        total = sum(len(part) for part in self._parts)
        drawn = np.random.default_rng(settings.seed).permutation(total)[:count]
        self.order = [int(index) for index in np.sort(drawn)]

    def batches(
        self, size: int, fixed: Any, order: Sequence[int] | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield the rows as feeds of `size` rows, or of the shape that a graph is fixed to."""
        from edgedistill.graph import feeds

        order = self.order if order is None else order
        size = fixed.batch or size
        told = {"integers": self._integers, "length": fixed.length, "batch": fixed.batch}
        for start in range(0, len(order), size):
            chosen = [self._row(index) for index in order[start : start + size]]
            yield feeds.padded(chosen, self._encoder, **told)

    def truth(self) -> np.ndarray:
        """Return the labels of the rows, -1 where there is none."""
        return np.array([int(self._row(index)["truth"]) for index in self.order])

    def unpadded(
        self, most: int, order: Sequence[int] | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield the rows as feeds of rows alike in shape: what padding gives is no activation."""
        from edgedistill.graph import feeds

        groups: dict[Any, list[int]] = {}
        for index in self.order if order is None else order:
            row = self._row(index)
            groups.setdefault(tuple(sorted((n, v.shape) for n, v in row.items())), []).append(index)
        for _, members in sorted(groups.items()):
            for start in range(0, len(members), most):
                chosen = [self._row(index) for index in members[start : start + most]]
                yield feeds.padded(chosen, self._encoder, integers=self._integers)

    def _row(self, index: int) -> dict[str, np.ndarray]:
        for part in self._parts:
            if index < len(part):
                return part.row(index)
            index -= len(part)
        raise IndexError(index)


@dataclass(frozen=True)
class _Held:
    """What a quantized graph is held against while operators return to float."""

    parent: Path
    few: _Rows  # training rows
    seen: _Rows  # validation rows
    settings: Settings

    def logits(self, model: Any, rows: _Rows, order: Sequence[int] | None = None) -> np.ndarray:
        """Run a graph as deployed."""
        from edgedistill.graph import clean

        data = model if isinstance(model, Path) else clean.serialize(model)
        return _logits(data, rows, self.settings, order=order)

    def score(self, logits: np.ndarray, truth: np.ndarray) -> float:
        """Return the task's score in points; 0 where nothing has a truth."""
        task: Any = doors.find("tasks", self.settings.task, allow_code=True)
        sums = task.statistics(logits, truth, self.settings.metric).sums()
        return float(np.nan_to_num(task.score(sums, self.settings.metric)))


def _recovered(
    held: _Held,
    scheme: Any,
    told: Any,
    graphs: tuple[Any, Any],
    apply: Callable[[Any, Sequence[int]], Any],
    progress: Progress,
) -> tuple[Any, dict[str, Any]]:
    """Return the settings that recover what int8 costs too much, and the facts of the attempt.

    The scheme's milder settings come first, then operators in float.
    """
    from edgedistill.stages import _recovery

    settings, (parent, made) = held.settings, graphs
    truth = held.seen.truth()
    best = held.score(held.logits(held.parent, held.seen), truth)

    def cost(model: Any) -> float:
        return best - held.score(held.logits(model, held.seen), truth)

    before = now = cost(made)
    about: dict[str, Any] = {
        "rows": len(truth),
        "allowed_points": settings.recover_points,
        "before_points": before,
    }
    if before <= settings.recover_points:
        return told, about

    def cost_within(model: Any) -> float:
        small = not settings.size_mb or model.ByteSize() / 1e6 <= settings.size_mb
        return cost(model) if small else before  # too large a file gains nothing

    eased, now = _milder(
        scheme.milder(made, told),
        lambda changes: cost_within(apply(dataclasses.replace(told, **changes), held.few.order)),
        now,
        settings,
        progress,
    )
    told = dataclasses.replace(told, **eased)
    about |= {"milder": eased} if eased else {}
    about["milder_points"] = about["after_points"] = now
    if now <= settings.recover_points:
        return told, about
    order = held.few.order[:: max(1, len(held.few.order) // FEW)][:FEW]
    right = held.logits(held.parent, held.few, order)

    def graph(floats: tuple[str, ...], rows: Sequence[int]) -> Any:
        return apply(dataclasses.replace(told, floats=(*told.floats, *floats)), rows)

    def lost(floats: tuple[str, ...]) -> float:
        return cost_within(graph(floats, held.few.order))

    def moved(floats: tuple[str, ...]) -> float:
        return _recovery.moved(right, held.logits(graph(floats, order), held.few, order))

    names = [name for name in scheme.quantizable(parent, told) if name not in told.floats]
    kept, tried = _recovery.recover(
        _recovery.Trial(lost, moved, names),
        before=now,
        allowed=settings.recover_points,
        most=settings.recover,
        progress=progress,
    )
    after = next((one["lost_points"] for one in tried[len(kept) - 1 :]), now) if kept else now
    text = f"{settings.scheme} costs {now:.1f} points; with {len(kept)} of {len(names)} operators "
    progress({"kind": "note", "text": f"{text}in float {after:.1f}"})
    about |= {"floats": list(kept), "of": len(names), "after_points": after, "tried": tried}
    return dataclasses.replace(told, floats=(*told.floats, *kept)), about


def _milder(
    changes: Sequence[Mapping[str, Any]],
    cost: Callable[[Mapping[str, Any]], float],
    now: float,
    settings: Settings,
    progress: Progress,
) -> tuple[dict[str, Any], float]:
    """Return the changes of settings that pay, one on top of the other, and what int8 then costs.

    Each has to bring back half of what is too much at least.
    """
    kept: dict[str, Any] = {}
    for change in changes:
        if now <= settings.recover_points:
            break
        after = cost({**kept, **change})
        if after <= (now + settings.recover_points) / 2:
            said = ", ".join(f"{name}={value}" for name, value in change.items())
            text = f"{settings.scheme} costs {now:.1f} points; with {said} {after:.1f}"
            progress({"kind": "note", "text": text})
            kept, now = {**kept, **change}, after
    return kept, now


def _batched(path: Path, rows: _Rows, settings: Settings) -> dict[str, Any]:
    """Count the rows that are answered otherwise in padded batches than alone."""
    size = max(PADDED, settings.batch)
    alone, together = (
        _logits(path, rows, dataclasses.replace(settings, batch=batch)).argmax(axis=1)
        for batch in (1, size)
    )
    changed = 100 * float((alone != together).mean())
    return {"batch": size, "rows": len(rows.order), "changed_points": round(changed, 6)}


def _against_parent(parent: Path, path: Path, rows: _Rows, settings: Settings) -> dict[str, Any]:
    """Run parent and quantized graph as deployed on the drawn rows; returns their likeness."""
    from edgedistill.graph import compare

    facts = dataclasses.asdict(
        compare.likeness(*(_logits(file, rows, settings) for file in (parent, path)))
    )
    return {name: round(value, 6) for name, value in facts.items()}


def _logits(
    model: Path | bytes, rows: _Rows, settings: Settings, *, order: Sequence[int] | None = None
) -> np.ndarray:
    """Run a graph over drawn rows in batches of `settings.batch`, or those that it is fixed to."""
    from edgedistill.graph import session

    running = session.start(model, settings.session)
    batches = rows.batches(settings.batch, session.fixed(running), order)
    found = np.concatenate([session.logits(running, feed) for feed in batches])
    return found[: len(rows.order if order is None else order)]
