"""Label: what the teachers answer for every row, once, kept as raw logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedistill import plugins as doors
from edgedistill.errors import InternalError, JobError, TrainingError
from edgedistill.progress import bar
from edgedistill.records import Progress
from edgedistill.settings import setting
from edgedistill.stages import indexed

INPUTS = {"teacher": "model", "rows": "arrays"}
OUTPUT = "arrays"
PACKAGES = ("torch", "transformers", "numpy")


@dataclass(frozen=True)
class Settings:
    """The settings of this stage."""

    task: str = setting("text-classification", "the task, by name")
    encoder: Mapping[str, Any] = setting({}, "settings of the first teacher's encoder")
    further: tuple[Mapping[str, Any], ...] = setting((), "those of the other teachers' encoders")
    labels: tuple[str, ...] = setting((), "the labels, in the order of the logits")
    weights: tuple[float, ...] = setting((), "of the teachers' logits; none: all alike", low=0)
    batch: int = setting(32, "rows in a batch; it does not change what is computed", low=1)
    threads: int = setting(1, "batches at once on a processor, each on one thread", low=1)
    dtype: str = setting(
        "float32", "arithmetic of matrix products", choices=("float32", "bfloat16")
    )
    device: str = setting("cpu", "where tensors live", choices=("cpu", "cuda", "mps"))


def plugins(settings: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Name the plugins that a step with these settings uses."""
    return [("tasks", settings["task"])]


def run(
    inputs: Mapping[str, Path], settings: Settings, out: Path, progress: Progress
) -> Mapping[str, Any]:
    """Write "logits" (float16, labels) for every row, the weighted mean of the teachers'.

    float16 holds raw logits up to 65,504 to a part in 2,000 (what is computed in bfloat16 is good
    to one in 256); raw, because probabilities would freeze the temperature. Each teacher reads the
    rows in its own encoding (`rows.1` is that of `teacher.1`; all read `rows.0` where it is alone),
    and its outputs are brought into our order by its labels.json. Facts: rows, teachers, and where
    rows have a truth the score of the mean.
    Raises `ModelError` where labels differ, `TrainingError` for an answer that is no number.
    """
    import numpy as np

    from edgedistill.data import arrays
    from edgedistill.train import outputs, weights
    from edgedistill.train.batches import Examples

    outputs.prepare(1)
    task: Any = doors.find("tasks", settings.task, allow_code=True)
    teachers = indexed(inputs, "teacher")
    shares = settings.weights or (1.0,) * len(teachers)
    if len(shares) != len(teachers) or not sum(shares):
        raise JobError(f"label.weights: {len(shares)} weights for {len(teachers)} teachers")
    examples, *others = (Examples([folder]) for folder in _rows(inputs, len(teachers)))
    if any(len(each) != len(examples) for each in others):
        raise InternalError("the teachers' encodings of the rows are not in step")
    encoders = [settings.encoder] * len(teachers)
    if settings.further:
        encoders[1:] = settings.further
    streams = []
    for index, (folder, encoder, each) in enumerate(
        zip(teachers, encoders, [examples, *others], strict=True)
    ):
        stream = outputs.logits(
            weights.load(folder, task).to(settings.device),
            each,
            task.forward,
            task.open_encoder(folder, encoder),
            batch=settings.batch,
            dtype=settings.dtype,
            device=settings.device,
            workers=settings.threads if settings.device == "cpu" else 1,
        )
        theirs = weights.labels_of(folder)
        if theirs is not None and settings.labels:
            order = outputs.columns(theirs, settings.labels, teacher=f"teacher.{index}")
            streams.append(_permuted(stream, order))
        else:
            streams.append(stream)
    known = examples.truth >= 0
    sums: list[Any] = []

    def rows() -> Iterator[dict[str, Any]]:
        done = 0
        for parts in zip(*streams, strict=True):
            mean = sum(w * part for w, part in zip(shares, parts, strict=True)) / sum(shares)
            if not np.isfinite(mean).all():
                bad = done + int(np.argmin(np.isfinite(mean).all(axis=1)))
                raise TrainingError(f"the teacher's answer to row {bad + 1} is not a number")
            here = slice(done, done + len(mean))
            if known[here].any():
                kept, truth = mean[known[here]], examples.truth[here][known[here]]
                sums.append(task.statistics(kept, truth, task.METRICS[0]).sums())
            for row in np.clip(mean, -65504, 65504).astype(np.float16):
                yield {"logits": row}
            done += len(mean)

    count = arrays.write(out, bar(rows(), progress, total=len(examples)))
    score = float(task.score(np.sum(sums, axis=0), task.METRICS[0])) if sums else None
    return {"rows": count, "teachers": len(teachers), "score": score}


def _rows(inputs: Mapping[str, Path], teachers: int) -> list[Path]:
    """Return the folder of rows that each teacher reads."""
    folders = indexed(inputs, "rows")
    if len(folders) not in (1, teachers):
        raise InternalError(f"{len(folders)} encodings of the rows for {teachers} teachers")
    return folders if len(folders) == teachers else folders * teachers


def _permuted(stream: Iterator[Any], order: Any) -> Iterator[Any]:
    for part in stream:
        yield part[:, order]
