"""Distill: train a student on the truth and on what its teacher answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgedistill import plugins as doors
from edgedistill.progress import silent
from edgedistill.records import Progress
from edgedistill.stages import indexed
from edgedistill.train import taught

INPUTS = taught.INPUTS
OUTPUT = "model"
ESTIMATES_WITHOUT = taught.ESTIMATES_WITHOUT
PACKAGES = taught.PACKAGES
Settings = taught.Taught
plugins = taught.plugins


def run(
    inputs: Mapping[str, Path], settings: Settings, out: Path, progress: Progress
) -> Mapping[str, Any]:
    """Write the trained student.

    Facts: best {score, step, weights: raw | ema}, steps, history [{step, loss, raw, ema}], rows,
    and train_score, the score on training rows, beside validation's in `best`.
    """
    from edgedistill.train import loop, weights

    model, work = _work(inputs, settings, out / ".resume", progress)
    fitted = loop.fit(model, work)
    gap = taught.train_score(model, work)
    weights.save(model, out, beside=inputs["student.0"])
    return {
        **fitted.facts(),
        "train_score": gap,
        "rows": len(work.examples),
        "parameters": weights.parameters(model),
    }


def estimate(inputs: Mapping[str, Path], settings: Settings, scratch: Path) -> float:
    """Time some steps on the real rows; return the seconds that `run` will take.

    `labels` may be absent (they are made later): zeros stand in for them.
    """
    from edgedistill.train import loop

    return loop.seconds(*_work(inputs, settings, scratch / ".resume", silent, stand_in=True))


def follow(inputs: Mapping[str, Path], settings: Settings, resume: Path) -> None:
    """Train along as one of several processes; the first one runs `run`, with this `.resume`."""
    from edgedistill.train import loop

    loop.fit(*_work(inputs, settings, resume, silent))


def _work(
    inputs: Mapping[str, Path],
    settings: Settings,
    resume: Path,
    progress: Progress,
    *,
    stand_in: bool = False,
) -> tuple[Any, Any]:
    """Return the student, and the loop's `Work`."""
    from edgedistill.train import lesson, outputs, weights

    outputs.prepare(settings.threads)
    task: Any = doors.find("tasks", settings.task, allow_code=True)
    model = weights.load(inputs["student.0"], task, dropout=settings.dropout)
    work = lesson.work(
        lesson.folders({name: indexed(inputs, name) for name in INPUTS}),
        settings,
        resume=resume,
        progress=progress,
        outputs=model.config.num_labels if stand_in else 0,
    )
    return model, work
