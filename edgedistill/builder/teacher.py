"""Hold the teachers against their own training rows, before anything is distilled from them."""

from __future__ import annotations

from collections import Counter

import numpy as np

from edgedistill.builder import figures
from edgedistill.builder.course import Course
from edgedistill.errors import TrainingError, UserError
from edgedistill.progress import told
from edgedistill.records import Step, Teacher
from edgedistill.train import outputs


def hold_teacher(course: Course) -> None:
    """Make the baseline and the teacher in int8, and refuse a teacher that only guesses.

    Raises `TrainingError` where a teacher that came with its head does no better on up to 256
    training rows than always answering the commonest label; where a permutation of the labels
    stands out, it is named. So for each of several teachers.
    """
    plan = course.plan
    if isinstance(plan.baseline.model, Step):
        _in_time(course, plan.baseline.model)
    noun = "the teacher" if course.facts.teacher.given is None else "the model"
    for teacher in plan.teachers:
        _hold(course, teacher, noun + (f" '{teacher.name}'" if len(plan.teachers) > 1 else ""))
    course.run(
        *(teacher.validation for teacher in plan.teachers),
        *(row.validation for row in plan.candidates if row.training is None),
        plan.baseline.own.get("own_validation"),
    )


def answered(course: Course, teacher: Teacher, step: Step) -> tuple[np.ndarray, np.ndarray]:
    """Return what an evaluated teacher answered, in the order of our labels, and the truth."""
    found, truth = figures.read(course, step)
    order = outputs.columns(teacher.labels, course.facts.labels, teacher=teacher.name)
    return found[:, order], truth


def _hold(course: Course, teacher: Teacher, name: str) -> None:
    course.run(teacher.train)
    logits, truth = answered(course, teacher, teacher.train)
    answers, labels = logits.argmax(axis=1), course.facts.labels
    ours = teacher is course.plan.teachers[0] and isinstance(course.plan.baseline.model, Step)
    right = float((answers == truth).mean())
    commonest = Counter(truth.tolist()).most_common(1)[0][1] / len(truth)
    if right <= commonest and len(set(truth.tolist())) > 1:
        found = (
            f"{name} answers {100 * right:.1f} % of {len(truth)} training rows rightly, "
            f"no better than always the commonest label ({100 * commonest:.1f} %)"
        )
        if ours:
            raise TrainingError(
                f"{found}: its head learned nothing from these rows; try more or gentler training "
                "(finetune.epochs, finetune.rate), or look at the labels"
            )
        raise TrainingError(
            found
            + _permutation(answers, truth, labels)
            + ": are the labels in another order, or is it a model for other rows?"
        )


def _in_time(course: Course, finetune: Step) -> None:
    """Refuse a head whose training alone takes longer than the whole build may."""
    if course.store.find(finetune) is not None:
        return
    course.run(*finetune.inputs.values())
    seconds = course.estimate(finetune)
    course.tell("estimate", f"the teacher's head: {told(seconds)} of training")
    if seconds > course.left():
        raise UserError(
            f"training the teacher's head takes about {told(seconds)}, and "
            f"{told(max(0.0, course.left()))} are left of the time limit of "
            f"{course.job.run.time_limit}: give more with --time-limit, or fewer finetune.epochs"
        )


def _permutation(answers: np.ndarray, truth: np.ndarray, labels: tuple[str, ...]) -> str:
    """Name the permutation of labels that would score best, where one stands out."""
    counts = Counter(zip(answers.tolist(), truth.tolist(), strict=True))
    mapped: dict[int, int] = {}
    hits = 0
    for (answer, true), count in counts.most_common():
        if answer not in mapped and true not in mapped.values():
            mapped[answer] = true
            hits += count
    share = hits / len(truth)
    if share < 0.6:
        return ""
    some = ", ".join(
        f"'{labels[a]}' is '{labels[t]}'" for a, t in sorted(mapped.items())[:3] if a != t
    )
    return f"; with the labels permuted ({some}, ...) {100 * share:.1f} % would be right"
