"""The rows of the report, each a chain of steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from edgedistill import plugins, settings
from edgedistill.data.split import OWN
from edgedistill.errors import JobError, TargetError, nearest
from edgedistill.job import Job
from edgedistill.planner import aware, pruning, starts
from edgedistill.planner.facts import Facts, Model
from edgedistill.planner.steps import Steps, Tutor
from edgedistill.planner.students import Student, initial, students, trained
from edgedistill.records import Candidate, Plan, Step, Teacher
from edgedistill.schemes import Scheme, lacks
from edgedistill.target import Target

TRAIN_ROWS = 256  # training rows that are scored too: the teacher's check, and the gap
FLOAT = ("none", "fp32")
AWARE = " aware"  # behind the names of rows that were distilled on with int8 simulated


def propose(job: Job, target: Target, facts: Facts) -> Plan:
    """Propose the candidates of a build, the smallest student first.

    Raises `JobError`, `ModelError` or `TargetError` for what the job asks and can't be had.
    """
    steps = Steps(job, target, facts)
    schemes, notes = _schemes(steps)
    teacher = facts.teacher
    graph = steps.export(steps.teacher, teacher)
    common: dict[str, Any] = {"shape": teacher.shape, "model": steps.teacher}
    given = teacher.given
    whose, role = ("onnx", "candidate") if given else ("teacher", "teacher_int8")
    name = f"{whose} {given.precision if given else 'fp32'}"
    baseline = _row(steps, name, "baseline", graph, teacher, scheme="none", **common)
    candidates, beside = [], []
    for scheme, word in schemes:
        quantized = steps.quantize(graph, scheme, teacher)
        about = {"scheme": scheme, "parent": baseline.name, **common}
        candidates.append(_row(steps, f"{whose} {word}", role, quantized, teacher, **about))
    helps = starts.assistant(steps)
    tutor = helps[1] if helps else None
    everyone = [] if given else students(steps)
    left, said = pruning.pruned(steps, everyone)
    notes += said
    for student, smaller in zip(everyone, left, strict=True):
        start = initial(steps, student)
        begin = starts.begin(steps, student, start, tutor)
        training = trained(steps, student, begin, control=False, tutor=tutor)
        alone = trained(steps, student, begin, control=True)
        own, single = _student(steps, student, start, training, schemes)
        candidates += own
        beside += [single, *_controls(steps, student, alone, schemes)]
        if smaller is not None:
            taught = tutor.shape if tutor else teacher.shape
            twins = [
                pruning.recovered(steps, smaller, student, each, teacher=taught)
                for each in (training, alone)
            ]
            start = pruning.untrained(steps, smaller)
            own, single = _student(steps, smaller, start, twins[0], schemes, unpruned=student.name)
            candidates += own
            beside += [single, *_controls(steps, smaller, twins[1], schemes)]
        else:
            again = aware.schemes(steps, schemes)
            if again:
                training, alone = (
                    aware.distilled_on(steps, each, own) for each in (training, alone)
                )
                candidates += _student(steps, student, start, training, again, aware=True)[0]
                beside += _controls(steps, student, alone, again, aware=True)
    beside += [_assistant(steps, *helps)] if helps else []
    taken: set[str] = set()
    for row in (baseline, *candidates, *beside):
        if row.name in taken:
            raise JobError(f"student '{row.name}' is asked for twice")
        taken.add(row.name)
    teachers = _teachers(steps, baseline)
    inside = any(row.training and "teacher.0" in row.training.inputs for row in candidates)
    if len(teachers) > 1 and inside:
        notes.append(
            f"losses that read inside a teacher read the first alone, '{teachers[0].name}'; "
            "its logits are the average of all"
        )
    return Plan(baseline, tuple(candidates), tuple(beside), tuple(notes), teachers)


def _teachers(steps: Steps, baseline: Candidate) -> tuple[Teacher, ...]:
    """Return the teachers, each with what it is held against rows by before anything is trained."""
    assert baseline.train is not None
    labels, made = steps.facts.labels, []
    weights = steps.weights()
    for model, weight in zip((steps.facts.teacher, *steps.facts.further), weights, strict=True):
        order, train, validation = labels, baseline.train, baseline.validation
        if model is not steps.facts.teacher:
            order = model.labels or labels
            graph = steps.export(model.source, model)
            train = steps.evaluate(graph, "train", model, rows=TRAIN_ROWS)
            validation = steps.evaluate(graph, "validation", model)
        source = model.source
        made.append(Teacher(source.name, source.hash, weight, order, train, validation))
    return tuple(made)


def _row(
    steps: Steps, name: str, role: str, graph: Step, of: Model, *, scheme: str, **rest: Any
) -> Candidate:
    return Candidate(
        name=name,
        role=role,
        graph=graph,
        scheme=scheme,
        validation=steps.evaluate(graph, "validation", of),
        test=steps.evaluate(graph, "test", of),
        train=steps.evaluate(graph, "train", of, rows=TRAIN_ROWS),
        own={
            split: steps.evaluate(graph, split, of)
            for split in OWN[1:]
            if split in steps.facts.splits
        },
        fixed=steps.fixed(graph, of),
        **rest,
    )


def _assistant(steps: Steps, student: Student, tutor: Tutor) -> Candidate:
    """Make the float row of a teacher assistant: its students learned from this model."""
    graph = steps.export(tutor.model, student.reader)
    return _row(
        steps,
        f"assistant {student.name} fp32",
        "assistant",
        graph,
        student.reader,
        scheme="none",
        model=tutor.model,
        training=tutor.model,
        shape=student.shape,
    )


def _student(
    steps: Steps,
    student: Student,
    start: Step,
    training: Step,
    schemes: Sequence[tuple[str, str]],
    *,
    unpruned: str | None = None,
    aware: bool = False,
) -> tuple[list[Candidate], Candidate]:
    """Make the rows of one student: what is chosen from, and its float row.

    `unpruned`: of a pruned one the name of the student before. `aware`: it was distilled on with
    int8 simulated; its float row is that of before.
    """
    shape, origin, name = student.shape, student.reader, student.name
    graph = steps.export(training, origin)
    untrained = None if aware else steps.export(start, origin)
    common: dict[str, Any] = {
        "shape": shape,
        "recipe": steps.facts.recipe.name,
        "training": training,
        "model": training,
    }

    def before(word: str) -> str | None:
        return f"student {unpruned} {word}" if unpruned else None

    called = name if unpruned else f"student {name}"
    single = _row(
        steps,
        f"{called} fp32",
        "student_fp32",
        graph,
        origin,
        scheme="none",
        untrained=untrained,
        unpruned=before("fp32"),
        **common,
    )
    rows = [
        _row(
            steps,
            f"{called} {word}{AWARE if aware else ''}",
            "candidate",
            steps.quantize(graph, scheme, origin),
            origin,
            scheme=scheme,
            parent=single.name,
            untrained=untrained and steps.quantize(untrained, scheme, origin, trained=False),
            unpruned=before(word),
            unaware=f"{called} {word}" if aware else None,
            **common,
        )
        for scheme, word in schemes
    ]
    return rows, single


def _controls(
    steps: Steps,
    student: Student,
    control: Step,
    schemes: Sequence[tuple[str, str]],
    *,
    aware: bool = False,
) -> list[Candidate]:
    """Make a student's controls, one in float and one a scheme: whatever is chosen has its own.

    `aware`: they were trained on with int8 simulated, so there is none in float.
    """
    shape, origin, name = student.shape, student.reader, student.name
    graph = steps.export(control, origin)
    return [
        _row(
            steps,
            f"control {name} {word}{AWARE if aware else ''}",
            "control",
            graph if scheme == "none" else steps.quantize(graph, scheme, origin),
            origin,
            scheme=scheme,
            model=control,
            training=control,
            shape=shape,
            unaware=f"control {name} {word}" if aware else None,
        )
        for scheme, word in (*(() if aware else (FLOAT,)), *schemes)
    ]


def _schemes(steps: Steps) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the schemes that are tried for this model on this target, and notes on the others.

    Each with its word for people, which is the same whatever else is tried.
    """
    job, target = steps.job, steps.target
    wished = job.quantize.schemes
    if "none" in wished:
        return [], []
    facts: dict[str, Any] = {
        "family": steps.facts.teacher.family,
        "task": steps.facts.task,
        "convolutional": steps.facts.teacher.convolutional,
    }
    given = steps.facts.teacher.given
    if given is not None:
        facts["operators"] = given.operators
        if given.precision != "fp32":
            return [], [f"no int8 of ours: the .onnx is {given.precision} as it came"]
    named = [name for name in wished if name != "auto"]
    words: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for name in dict.fromkeys([*named, *(plugins.names("schemes") if "auto" in wished else ())]):
        plugin = _scheme(steps, name)
        found = [plugin.valid(facts, target, one) for one in target.processors]
        why = next((reason for reason in found if reason), None)
        if why is None and name not in named:
            why = plugin.spared(facts, target)
        if why is None:
            words[name] = _word(plugin, name, facts)
        else:
            reasons[name] = f"{name}: {why}"
    alike = next((name for name in words if [*words.values()].count(words[name]) > 1), None)
    if alike:
        raise JobError(
            f"quantize.schemes: two would have rows called '{words[alike]}': rename '{alike}'"
        )
    _all_settings_known(steps, words)
    told = "; ".join(reasons.values())
    if not words and "auto" not in wished:
        raise TargetError(f"no named scheme serves '{target.name}': {told}")
    missed = [f"not tried: {why}" for name, why in reasons.items() if name in named]
    return list(words.items()), missed if words else [f"no int8: {told}"]


def _scheme(steps: Steps, name: str) -> Scheme:
    """Find a scheme by what the job names. Raises `JobError` where it is none."""
    known = plugins.names("schemes")
    if not name.endswith(".py") and name not in known:
        hint = nearest(name, [*known, "auto", "none"])
        raise JobError(f"quantize.schemes: unknown quantization scheme '{name}': {hint}")
    plugin: Any = plugins.find("schemes", name, allow_code=steps.allow_code)
    lacking = lacks(plugin)
    if lacking:
        raise JobError(
            f"quantize.schemes: '{name}' is no quantization scheme: it lacks "
            f"{', '.join(lacking)} (the contract: edgedistill/schemes/__init__.py)"
        )
    return cast(Scheme, plugin)


def _all_settings_known(steps: Steps, tried: Iterable[str]) -> None:
    """Refuse a setting that none of the schemes that are tried has."""
    plugs = [plugins.find("schemes", name, allow_code=steps.allow_code) for name in tried]
    known = sorted({name for plugin in plugs for name in settings.names(plugin.Settings)})
    for name in steps.scheme_settings() if plugs else ():
        if name not in known:
            place = f"quantize.scheme_settings ({', '.join(Path(each).stem for each in tried)})"
            raise JobError(f"{place}: unknown setting '{name}': {nearest(name, known)}")


def _word(plugin: Scheme, name: str, facts: Mapping[str, Any]) -> str:
    """Return what rows of a scheme are called by: its own word; of a path, the file's name."""
    if name.endswith(".py"):
        return f"{plugin.PRECISION} {Path(name).stem}"
    return plugin.word(facts)
