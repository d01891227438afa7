"""Finetune: a base model gets the head of its task, and learns the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedistill import plugins as doors
from edgedistill.errors import ModelError
from edgedistill.progress import silent
from edgedistill.records import Progress
from edgedistill.settings import setting
from edgedistill.stages import _lesson, indexed
from edgedistill.train.pace import Training

INPUTS = {"model": "model", "train": "arrays", "validation": "arrays"}
OUTPUT = "model"
PACKAGES = ("torch", "transformers", "safetensors", "numpy")


@dataclass(frozen=True)
class Settings(Training):
    """The settings of this stage."""

    rate: float = setting(5e-5, "highest learning rate", low=0)
    batch: int = setting(32, "rows in a batch", low=1)
    task: str = setting("text-classification", "the task, by name")
    encoder: Mapping[str, Any] = setting({}, "settings of the task's encoder")
    labels: tuple[str, ...] = setting((), "the labels, in the order of the model's outputs")


def plugins(settings: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Name the plugins that a step with these settings uses."""
    return [("tasks", settings["task"]), ("losses", "hard_labels")]


def run(
    inputs: Mapping[str, Path], settings: Settings, out: Path, progress: Progress
) -> Mapping[str, Any]:
    """Write the model with its trained head.

    Facts: best {score, from_teacher: none, step, weights: raw | ema}, steps, history [{step, loss,
    raw, ema}], rows, parameters, and train_score, the score on training rows, beside validation's
    in `best`.
    """
    from edgedistill.train import loop, weights

    model, work = _work(inputs, settings, out / ".resume", progress)
    fitted = loop.fit(model, work)
    gap = _lesson.train_score(model, work)
    weights.save(model, out, beside=inputs["model.0"], labels=settings.labels)
    return {
        **fitted.facts(),
        "train_score": gap,
        "rows": len(work.examples),
        "parameters": weights.parameters(model),
    }


def estimate(inputs: Mapping[str, Path], settings: Settings, scratch: Path) -> float:
    """Time some steps on the real rows; return the seconds that `run` will take."""
    from edgedistill.train import loop

    return loop.seconds(*_work(inputs, settings, scratch / ".resume", silent))


def follow(inputs: Mapping[str, Path], settings: Settings, resume: Path) -> None:
    """Train along as one of several processes; the first one runs `run`, with this `.resume`."""
    from edgedistill.train import loop

    loop.fit(*_work(inputs, settings, resume, silent))


def _work(
    inputs: Mapping[str, Path], settings: Settings, resume: Path, progress: Progress
) -> tuple[Any, Any]:
    """Return the model with a head of as many outputs as labels, and the loop's `Work`."""
    import torch

    from edgedistill.train import loop, objective, outputs, weights
    from edgedistill.train.batches import Examples

    if not settings.labels:
        raise ModelError("finetune.labels: a head needs the labels that it tells apart")
    outputs.prepare(settings.threads)
    task: Any = doors.find("tasks", settings.task, allow_code=True)
    folder = inputs["model.0"]
    names = dict(enumerate(settings.labels))
    torch.manual_seed(settings.seed)  # the new head's first weights
    model = weights.load(
        folder,
        task,
        dropout=settings.dropout,
        num_labels=len(names),
        id2label=names,
        label2id={label: index for index, label in names.items()},
    )
    work = loop.Work(
        task=task,
        encoder=task.open_encoder(folder, settings.encoder),
        examples=Examples(indexed(inputs, "train"), repeats=settings.repeats),
        validation=Examples(indexed(inputs, "validation")),
        terms=objective.terms(
            {"hard_labels": {"weight": 1.0}}, alpha=0.0, temperature=1.0, student={}, teacher={}
        ),
        training=settings,
        resume=resume,
        progress=progress,
    )
    return model, work
