"""Distill: train a student on the truth and on what its teacher answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedistill import plugins as doors
from edgedistill.progress import silent
from edgedistill.records import Progress
from edgedistill.settings import setting
from edgedistill.stages import indexed
from edgedistill.train.pace import Training

INPUTS = {
    "student": "model",
    "teacher": "model",
    "train": "arrays",
    "labels": "arrays",
    "validation": "arrays",
}
OUTPUT = "model"
ESTIMATES_WITHOUT = ("labels",)  # zeros stand in for them
PACKAGES = ("torch", "transformers", "safetensors", "numpy")
GAP_ROWS = 1000  # of the training rows that are scored at the end, to show the gap


@dataclass(frozen=True)
class Settings(Training):
    """The settings: L = (1 - alpha) x losses of the truth + alpha x those that read the teacher."""

    task: str = setting("text-classification", "the task, by name")
    family: str = setting("encoder", "the family, by name")
    encoder: Mapping[str, Any] = setting({}, "settings of the task's encoder")
    losses: Mapping[str, Any] = setting(
        {"soft_labels": {"weight": 1.0}, "hard_labels": {"weight": 1.0}},
        "the losses by name, each with its weight (number, [first, last(, until)]) and settings",
    )
    alpha: float = setting(0.9, "share of the losses that read the teacher", low=0, high=1)
    temperature: float = setting(4.0, "of soft labels", low=0.05, high=100)


def plugins(settings: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Name the plugins that a step with these settings uses."""
    losses = [("losses", name) for name in sorted(settings["losses"])]
    return [("tasks", settings["task"]), ("families", settings["family"]), *losses]


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
    gap = (
        loop.score(model, work.examples, work, most=GAP_ROWS)
        if (work.examples.truth >= 0).any()
        else None
    )
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
