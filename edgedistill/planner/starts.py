"""Where a student starts, and whom it learns from: the choice of layers, a teacher assistant."""

from __future__ import annotations

from typing import Any

from edgedistill import plugins
from edgedistill.errors import JobError, ModelError
from edgedistill.planner.steps import Steps, Tutor
from edgedistill.planner.students import Student, initial, named, trained
from edgedistill.records import Step

SHARE = 10  # the trials of all starts together take at most a tenth of the training's steps

ALIKE = (
    "rate", "batch", "embedding_rate", "weight_decay", "clip", "dropout", "temperature", "device",
    "dtype",
)  # fmt: skip


def best(steps: Steps, student: Student, start: Step, training: Step) -> Step:
    """Return the step that chooses between starts by a short trial of each; else `start` itself.

    There is no choice where the job names layers or says no, where the family knows one start
    alone, and where the trials would take more than a tenth of the training's own steps.
    """
    family: Any = plugins.find("families", student.reader.family)
    job, wishes = steps.job.student, steps.wishes
    own = student.origin is steps.facts.teacher and student.origin.family == student.reader.family
    if not (own and job.choose and job.init == "teacher" and hasattr(family, "starts")):
        return start
    if wishes.settings("initialize").layers or "labels.0" not in training.inputs:
        return start
    found = family.starts(student.shape, student.origin.shape)
    each = wishes.settings("choose").steps
    if len(found) < 2 or SHARE * len(found) * each > training.settings["steps"]:
        return start
    inputs = {
        f"student.{index}": start
        if list(start.settings["layers"]) == list(layers)
        else initial(steps, student, layers)
        for index, layers in enumerate(found.values())
    }
    values = {name: training.settings[name] for name in ALIKE}
    return steps.step(
        "choose",
        {
            **inputs,
            **{name: each for name, each in training.inputs.items() if _is_read(name)},
        },
        **values,
        processes=1,  # it is short, and the others of a group follow trainings alone
        family=student.reader.family,
        encoder=student.reader.encoder,
        names=tuple(f"{', '.join(map(str, layers))} ({name})" for name, layers in found.items()),
    )


def _is_read(name: str) -> bool:
    """Say whether a trial reads an input of the training: its first rows, and all validation."""
    return name in ("train.0", "labels.0") or name.startswith("validation.")


def begin(steps: Steps, student: Student, start: Step, tutor: Tutor | None = None) -> Step:
    """Return what a student is trained from: the best start, or the only one."""
    training = trained(steps, student, start, control=False, tutor=tutor)
    return best(steps, student, start, training)


def assistant(steps: Steps) -> tuple[Student, Tutor] | None:
    """Return the assistant that the job asks for: distilled from the teacher, it teaches the rest.

    Mirzadeh et al., 2020: a tiny student learns more of a teacher nearer to its size. Raises
    `ModelError` for a shape that can't be, `JobError` for the teacher's own.
    """
    text = steps.job.student.assistant
    if not text:
        return None
    try:
        student = named(steps, text)
    except ModelError as error:
        raise ModelError(f"student.assistant: {error}") from None
    if student.shape == steps.facts.teacher.shape:
        raise JobError(f"student.assistant '{text}' is the teacher itself: name a smaller shape")
    family: Any = plugins.find("families", student.reader.family)
    start = initial(steps, student, family.layers(student.shape, student.origin.shape))
    begun = begin(steps, student, start)
    threads = steps.facts.host.threads  # nothing trains beside it
    training = trained(steps, student, begun, control=False, threads=threads)
    return student, Tutor(training, student.reader, student.shape)
