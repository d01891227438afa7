"""Distill: train a student on the truth and on what its teacher answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgedistill.progress import silent
from edgedistill.records import Progress
from edgedistill.stages import _lesson

INPUTS = _lesson.INPUTS
OUTPUT = "model"
ESTIMATES_WITHOUT = _lesson.ESTIMATES_WITHOUT
PACKAGES = _lesson.PACKAGES
Settings = _lesson.Settings
plugins = _lesson.plugins


def run(
    inputs: Mapping[str, Path], settings: Settings, out: Path, progress: Progress
) -> Mapping[str, Any]:
    """Write the trained student.

    Facts: best {score, from_teacher (nats, or none), step, weights: raw | ema}, steps, history
    [{step, loss, raw, ema, each with its .._from_teacher}], rows, and train_score, the score on
    training rows, beside validation's in `best`.
    """
    from edgedistill.train import loop, weights

    model = _lesson.student(inputs, settings)
    work = _lesson.work(inputs, settings, out / ".resume", progress)
    fitted = loop.fit(model, work)
    gap = _lesson.train_score(model, work)
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

    model = _lesson.student(inputs, settings)
    some = model.config.num_labels
    work = _lesson.work(inputs, settings, scratch / ".resume", silent, stand_in=some)
    return loop.seconds(model, work)


def follow(inputs: Mapping[str, Path], settings: Settings, resume: Path) -> None:
    """Train along as one of several processes; the first one runs `run`, with this `.resume`."""
    from edgedistill.train import loop

    model = _lesson.student(inputs, settings)
    loop.fit(model, _lesson.work(inputs, settings, resume, silent))
