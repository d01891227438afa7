"""A student's lesson: its rows, its losses and what reads its teacher, as the loop's `Work`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedistill import plugins
from edgedistill.errors import InternalError
from edgedistill.records import Progress, Shape
from edgedistill.train import loop, objective, signals, weights
from edgedistill.train.batches import Examples


@dataclass(frozen=True)
class Folders:
    """Where a lesson's models and rows lie."""

    student: Path
    teachers: Sequence[Path]
    train: Sequence[Path]
    labels: Sequence[Path]
    validation: Sequence[Path]


def work(
    folders: Folders,
    settings: Any,
    *,
    shape: Shape | None = None,
    resume: Path,
    progress: Progress,
    outputs: int = 0,
) -> loop.Work:
    """Make the loop's `Work` of a student of that `shape` (none: as its config says).

    `settings`: those of distill or prune. `outputs`: of how many zeros the logits are that stand in
    for the labels where these are not there yet. Raises `InternalError` where a loss reads what is
    no input.
    """
    task: Any = plugins.find("tasks", settings.task, allow_code=True)
    family: Any = plugins.find("families", settings.family, allow_code=True)
    shape = shape or family.shape(weights.config_of(folders.student))
    first = next(iter(folders.teachers), None)
    terms = objective.terms(
        settings.losses,
        alpha=settings.alpha,
        temperature=settings.temperature,
        student=shape,
        teacher=family.shape(weights.config_of(first)) if first else shape,
        seed=settings.seed,
    )
    examples = Examples(folders.train, folders.labels, repeats=settings.repeats)
    stands = signals.Zeros(outputs, settings.device) if outputs else None
    cached = signals.Cached(examples, settings.device) if examples.labels else stands
    return loop.Work(
        task=task,
        encoder=task.open_encoder(folders.student, settings.encoder),
        examples=examples,
        validation=Examples(folders.validation),
        terms=terms,
        training=settings,
        resume=resume,
        teacher=_reader(objective.needs(terms, of_teacher=True), cached, first, settings),
        family=family,
        progress=progress,
    )


def _reader(needs: Sequence[str], cached: Any, teacher: Path | None, settings: Any) -> Any:
    """Return what reads the teacher: cached logits, a live model, or both."""
    if not needs:
        return signals.absent
    if set(needs) == {"logits"}:
        if cached is None:
            raise InternalError("a loss reads the teacher's logits, but the step has no labels")
        return cached.read
    task: Any = plugins.find("tasks", settings.task, allow_code=True)
    family: Any = plugins.find("families", settings.family, allow_code=True)
    if teacher is None:
        raise InternalError(f"losses read {', '.join(needs)} of the teacher, but it is no input")
    model = weights.load(teacher, task).to(settings.device).eval()
    live = signals.Live(model, signals.Taps(model, needs, family), task.forward)
    return signals.Both(live, cached).read if cached else live.read


def folders(inputs: Mapping[str, Sequence[Path]]) -> Folders:
    """Return the folders of inputs that are collected by name; what is absent is empty."""
    rest = {name: tuple(inputs.get(name, ())) for name in ("train", "labels", "validation")}
    return Folders(inputs["student"][0], tuple(inputs.get("teacher", ())), **rest)
