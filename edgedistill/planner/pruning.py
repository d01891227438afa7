"""The steps of a pruned student: what its training left, pruned in rounds and trained again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgedistill import plugins
from edgedistill.errors import ModelError
from edgedistill.planner import reading
from edgedistill.planner.steps import Steps
from edgedistill.planner.students import Student, initial
from edgedistill.records import Shape, Step
from edgedistill.settings import names
from edgedistill.train import objective, pace

NOT_ALIKE = ("steps", "rate", "evaluate_every")  # of the training's settings, those of its own


def pruned(steps: Steps, found: Sequence[Student]) -> tuple[list[Student | None], list[str]]:
    """Return what is left of each student, None where nothing can be pruned, and notes on those.

    Raises `ModelError` where none can be.
    """
    wish = steps.job.prune.wish()
    made: list[Student | None] = [None] * len(found)
    notes = []
    for index, student in enumerate(found) if wish else ():
        try:
            made[index] = _pruned(steps, student)
        except ModelError as error:
            notes.append(f"student {student.name} is not pruned: {error}")
            if len(found) == 1:
                raise
    if notes and not any(made):
        raise ModelError(notes[0])
    return made, notes


def _pruned(steps: Steps, student: Student) -> Student:
    family: Any = plugins.find("families", student.reader.family)
    if not hasattr(family, "pruned"):
        raise ModelError(f"models of the family '{student.reader.family}' have nothing to prune")
    shape = family.pruned(student.shape, steps.job.prune.wish(), student.reader.config)
    if dict(shape) == dict(student.shape):
        raise ModelError(
            f"--prune {steps.job.prune.kind} leaves all of it: its shape is {dict(student.shape)}"
        )
    name = f"pruned {student.name} to {family.name(shape, student.origin.shape)}"
    return student._replace(shape=shape, name=name)


def untrained(steps: Steps, student: Student) -> Step:
    """Return an untrained model of a pruned student's shape, which is measured before the hour."""
    family: Any = plugins.find("families", student.reader.family)
    return initial(steps, student, family.layers(student.shape, student.origin.shape))


def recovered(
    steps: Steps, student: Student, before: Student, training: Step, *, teacher: Shape
) -> Step:
    """Make the step that prunes a trained student and distils it again, as it was trained before.

    Its rows, losses and optimisation are those of `training`; unless the job says how many epochs,
    it takes at most half as many steps. Raises `JobError` where a loss finds no more what it reads.
    """
    told = objective.read(training.settings["losses"], allow_code=steps.allow_code)
    for loss in objective.weighed(told, training.settings["alpha"]):
        if loss.plugin.READS_TEACHER:
            loss.needs(training.settings["temperature"], student.shape, teacher)
    wishes = steps.wishes
    settings = names(plugins.find("stages", "prune").Settings)
    alike = {
        name: value
        for name, value in training.settings.items()
        if name in settings and name not in NOT_ALIKE
    }
    rows = reading.read(steps, wishes.counted(steps.task.MADE), answered=True).rows
    each = training.settings["batch"] * steps.processes
    planned = wishes.steps("prune", rows, each)
    if "epochs" not in steps.job.stages.get("prune", {}):
        planned = min(planned, max(1, training.settings["steps"] // 2))
    rest = {name: thing for name, thing in training.inputs.items() if name != "student.0"}
    return steps.step(
        "prune",
        {"student.0": training, **rest},
        **alike,
        shape=dict(student.shape),
        steps=planned,
        rate=_rate(student, before),
    )


def _rate(student: Student, before: Student) -> float:
    """Return the learning rate from the part that is kept, as for students of a teacher."""
    family: Any = plugins.find("families", student.reader.family)
    parts = [student.shape[name] / whole for name, whole in before.shape.items()]
    width = before.shape.get("hidden", 768)
    usual = {"nothing": 1e-3, "whole": pace.finetuning(width)}
    return pace.rate(min(parts), **getattr(family, "RATE", usual))
