"""A student's lesson, shared by distill and prune: settings, rows, losses, what reads the teacher.

Light to import; `work` makes it the training loop's `Work`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill import plugins as doors
from edgedistill.errors import InternalError
from edgedistill.records import Progress, Shape
from edgedistill.settings import setting
from edgedistill.stages import indexed
from edgedistill.train.pace import Training

if TYPE_CHECKING:
    from edgedistill.train.loop import Work

INPUTS = {
    "student": "model",
    "teacher": "model",
    "train": "arrays",
    "labels": "arrays",
    "validation": "arrays",
    "answers": "arrays",
}
PACKAGES = ("torch", "transformers", "safetensors", "numpy")
ESTIMATES_WITHOUT = ("labels", "answers")  # zeros stand in for them, or nothing
LIKE_THE_TEACHER = 0.5  # from this alpha on the best weights are those that answer most like it
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


def student(inputs: Mapping[str, Path], settings: Settings) -> Any:
    """Load the student as it comes, on as many threads as the settings say."""
    from edgedistill.train import outputs, weights

    outputs.prepare(settings.threads)
    task: Any = doors.find("tasks", settings.task, allow_code=True)
    return weights.load(inputs["student.0"], task, dropout=settings.dropout)


def work(
    inputs: Mapping[str, Path],
    settings: Settings,
    resume: Path,
    progress: Progress,
    *,
    shape: Shape | None = None,
    stand_in: int = 0,
) -> Work:
    """Make the loop's `Work` of a student of that `shape` (none: as its config says).

    `stand_in`: of how many zeros the logits are that stand in for the labels where these are not
    there yet. Raises `InternalError` where a loss reads what is no input.
    """
    from edgedistill.train import loop, objective, signals, weights
    from edgedistill.train.batches import Examples

    task: Any = doors.find("tasks", settings.task, allow_code=True)
    family: Any = doors.find("families", settings.family, allow_code=True)
    shape = shape or family.shape(weights.config_of(inputs["student.0"]))
    teacher = inputs.get("teacher.0")
    terms = objective.terms(
        settings.losses,
        alpha=settings.alpha,
        temperature=settings.temperature,
        student=shape,
        teacher=family.shape(weights.config_of(teacher)) if teacher else shape,
        seed=settings.seed,
    )
    examples = Examples(
        indexed(inputs, "train"), indexed(inputs, "labels"), repeats=settings.repeats
    )
    stands = signals.Zeros(stand_in, settings.device) if stand_in else None
    cached = signals.Cached(examples, settings.device) if examples.labels else stands
    return loop.Work(
        task=task,
        encoder=task.open_encoder(inputs["student.0"], settings.encoder),
        examples=examples,
        validation=Examples(
            indexed(inputs, "validation"),
            indexed(inputs, "answers") if settings.alpha >= LIKE_THE_TEACHER else (),
        ),
        terms=terms,
        training=settings,
        resume=resume,
        teacher=_reader(objective.needs(terms, of_teacher=True), cached, teacher, settings),
        family=family,
        progress=progress,
    )


def _reader(needs: Sequence[str], cached: Any, teacher: Path | None, settings: Settings) -> Any:
    """Return what reads the teacher: cached logits, a live model, or both."""
    from edgedistill.train import signals, weights

    if not needs:
        return signals.absent
    if set(needs) == {"logits"}:
        if cached is None:
            raise InternalError("a loss reads the teacher's logits, but the step has no labels")
        return cached.read
    if teacher is None:
        raise InternalError(f"losses read {', '.join(needs)} of the teacher, but it is no input")
    task: Any = doors.find("tasks", settings.task, allow_code=True)
    family: Any = doors.find("families", settings.family, allow_code=True)
    model = weights.load(teacher, task).to(settings.device).eval()
    live = signals.Live(model, signals.Taps(model, needs, family), task.forward)
    return signals.Both(live, cached).read if cached else live.read


def train_score(model: Any, work: Work) -> float | None:
    """Score a model on some of its training rows, in points; None where none has a truth."""
    from edgedistill.train import loop

    if not (work.examples.truth >= 0).any():
        return None
    return loop.score(model, work.examples.few(GAP_ROWS), work)
