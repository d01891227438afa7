"""The steps of a student: where it starts from, and how it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from edgedistill import plugins
from edgedistill.errors import JobError, ModelError
from edgedistill.families import student_family
from edgedistill.planner import reading
from edgedistill.planner.facts import Model
from edgedistill.planner.steps import Steps, Tutor, identity
from edgedistill.planner.wishes import Wishes
from edgedistill.records import Shape, Source, Step
from edgedistill.train import objective, pace

OF_THE_TEACHER = ("alpha", "temperature")  # settings that the control does without


class Student(NamedTuple):
    """A student to try: its shape, the model that it starts from, its name for people.

    `reader` says how it reads rows (as its origin does, unless its vocabulary is a smaller one),
    and of which family it is: a static student's is another than its teacher's.
    """

    shape: Shape
    origin: Model
    name: str
    reader: Model


def students(steps: Steps) -> list[Student]:
    """Return the students to try: layers and shapes of the teacher, then other checkpoints."""
    wish, teacher = steps.job.student, steps.facts.teacher
    made = [named(steps, text) for text in (*map(str, wish.layers), *wish.shapes)]
    if not made and "teacher" in wish.from_:
        made = [
            _own(steps, shape, teacher.family) for shape in steps.family.defaults(teacher.shape)
        ]
    seen: dict[str, int] = {}
    for path in wish.paths():
        origin = steps.facts.students[path]
        name = f"{origin.source.name} {plugins.find('families', origin.family).name(origin.shape)}"
        seen[name] = number = seen.get(name, 0) + 1
        name = f"{name} #{number}" if number > 1 else name
        made.append(Student(origin.shape, origin, name, origin))
    return made


def named(steps: Steps, text: str) -> Student:
    """Read a student of the teacher's: "2", "2x256", "same", "static". Raises `ModelError`."""
    teacher = steps.facts.teacher
    name = student_family(text, teacher.family)
    return _own(steps, plugins.find("families", name).parse(text, teacher.shape), name)


def _own(steps: Steps, shape: Shape, family: str) -> Student:
    """Return a student of the teacher's own weights, of that shape and family."""
    teacher = steps.facts.teacher
    name = plugins.find("families", family).name(shape, teacher.shape)
    reader = teacher if family == teacher.family else replace(teacher, family=family)
    if shape.get("vocabulary") != teacher.shape.get("vocabulary"):
        reader = replace(reader, encoder_source=steps.fold(teacher, shape["vocabulary"]))
    return Student(shape, teacher, name, reader)


def initial(steps: Steps, student: Student, only: Sequence[int] = ()) -> Step:
    """Make the untrained student, from the teacher's own layers or from another checkpoint.

    `only`: those layers, whatever the family or the job says.
    """
    shape, origin = student.shape, student.origin
    family = plugins.find("families", student.reader.family)
    own = origin is steps.facts.teacher
    layers = family.layers(shape, origin.shape)
    told = steps.wishes.of("initialize")
    wished = steps.wishes.settings("initialize").layers
    told.pop("layers", None)
    if own and wished and layers and not only:
        whole = len(family.layers(origin.shape, origin.shape))
        if len(wished) != len(layers) or not all(0 <= index < whole for index in wished):
            raise JobError(
                f"initialize.layers: student {student.name} starts from {len(layers)} layers of "
                f"0 to {whole - 1}, got {', '.join(map(str, wished))}"
            )
        layers = wished
    inputs = {"teacher.0": steps.teacher if own else origin.source}
    if identity(student.reader.encoder_source) != identity(origin.encoder_source):
        inputs["encoder.0"] = student.reader.encoder_source
    return steps.step(
        "initialize",
        inputs,
        told=told,
        family=student.reader.family,
        origin=origin.family,
        shape=dict(shape),
        layers=tuple(only or layers),
        init=steps.job.student.init,
    )


def trained(
    steps: Steps,
    student: Student,
    start: Step,
    *,
    control: bool,
    tutor: Tutor | None = None,
    threads: int | None = None,
) -> Step:
    """Make the training of a student: distilled, or (the control) on labels alone.

    A tutor takes the teacher's place. The control takes the same steps and the same optimisation;
    what reads the teacher is dropped. `threads`: other than those of one of two trainings.
    """
    facts, wishes, reader = steps.facts, _wishes(steps, student), student.reader
    told, wish = wishes.of("distill"), wishes.settings("distill")
    kinds = tuple(wishes.made(steps.task.MADE))
    losses = wishes.losses(steps.task.OUTPUTS, student.shape, _taught_by(steps, tutor))
    found = objective.weighed(losses, wish.alpha)
    if control:
        told = {name: value for name, value in told.items() if name not in OF_THE_TEACHER}
        told["alpha"] = 0.0
        losses = _alone(losses)
        found = objective.weighed(losses, 0.0)
    answered = any(loss.plugin.READS_TEACHER for loss in found)
    whole = reading.read(steps, kinds, answered=True)
    once = reading.read(steps, wishes.counted(steps.task.MADE), answered=True)
    rows = whole if answered else reading.read(steps, answered=False)
    inputs: dict[str, Step | Source] = {"student.0": start, **reading.validation(steps, reader)}
    for index, (split, made) in enumerate(rows.parts):
        inputs[f"train.{index}"] = steps.encode(split, reader, made=made)
        if answered:
            read = steps.encode(split, tutor.reader if tutor else facts.teacher, made=made)
            inputs[f"labels.{index}"] = steps.label(read, tutor)
    if answered:
        inputs |= reading.answers(steps, tutor.reader if tutor else facts.teacher, tutor)
    if answered and _reads_inside(steps, student, found, wish.temperature, tutor):
        inputs["teacher.0"] = tutor.model if tutor else steps.teacher
    return steps.step(
        "distill",
        inputs,
        told=told,
        rate=_rate(steps, student),
        threads=threads or steps.threads_of_two(),
        family=reader.family,
        losses={loss.name: loss.plain() for loss in losses},
        repeats=rows.repeats,
        steps=wishes.steps("distill", once.rows, wish.batch * steps.processes),
        encoder=reader.encoder,
    )


def _taught_by(steps: Steps, tutor: Tutor | None) -> Shape:
    return tutor.shape if tutor else steps.facts.teacher.shape


def _wishes(steps: Steps, student: Student) -> Wishes:
    """Lay what a family says of its own training over the recipe, under the starter and the job."""
    family: Any = plugins.find("families", student.reader.family)
    own = getattr(family, "TRAINING", {})
    if not own:
        return steps.wishes
    recipe = replace(steps.facts.recipe, settings={**steps.facts.recipe.settings, **own})
    return Wishes(steps.job, replace(steps.facts, recipe=recipe))


def _alone(losses: Sequence[objective.Told]) -> tuple[objective.Told, ...]:
    """Return the truth alone at weight 1, with the recipe's settings of that loss."""
    told = next((loss for loss in losses if loss.name == "hard_labels"), None)
    values = dict(told.values) if told else {}
    return objective.read({"hard_labels": {**values, "weight": 1.0}})


def _reads_inside(
    steps: Steps,
    student: Student,
    found: Sequence[objective.Told],
    temperature: float,
    tutor: Tutor | None,
) -> bool:
    """Say whether a loss reads more of the teacher than logits, which a live one must give."""
    teacher, reader = tutor.reader if tutor else steps.facts.teacher, student.reader
    for loss in found:
        if not loss.plugin.READS_TEACHER:
            continue
        needs = loss.needs(temperature, student.shape, _taught_by(steps, tutor))
        inside = [name for name in needs.values() if name != "logits"]
        if inside and identity(reader.encoder_source) != identity(teacher.encoder_source):
            raise ModelError(
                f"the loss '{loss.name}' reads {inside[0]} of the teacher, and student "
                f"{student.name} has an encoder of its own: only logits can be compared"
            )
        if inside and reader.family != teacher.family:
            raise ModelError(
                f"the loss '{loss.name}' reads {inside[0]} of the teacher, and student "
                f"{student.name} is of another family ({reader.family}): only logits can be "
                "compared, as --recipe logits does"
            )
        if inside:
            return True
    return False


def _rate(steps: Steps, student: Student) -> float:
    """Return the learning rate from what is kept of a trained model."""
    shape, origin = student.shape, student.origin
    family: Any = plugins.find("families", student.reader.family)
    # of a smaller vocabulary the rows that stay are the teacher's as they were
    sizes = {name: whole for name, whole in origin.shape.items() if name != "vocabulary"}
    parts = [shape[name] / whole for name, whole in sizes.items() if name in shape]
    kept = min(parts, default=1.0) if origin is steps.facts.teacher else 1.0
    kept = 0.0 if steps.job.student.init == "random" else kept
    usual = {"nothing": 1e-3, "whole": pace.finetuning(origin.shape.get("hidden", 768))}
    return pace.rate(kept, **getattr(family, "RATE", usual))
