"""The contest: which students are trained, and which of them is provisionally best.

Students train in the shortlist's order until one is eligible on validation, each only if its
training, its control and the measuring fit the time that is left. What was decided is recorded
under the plan's key, so that the same plan repeats it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgedistill import judge
from edgedistill.builder import figures, shortlist
from edgedistill.builder.course import TRAINED_ON, Course
from edgedistill.builder.shortlist import Entry, Shortlist, Stopped, entries, plan_key
from edgedistill.errors import UserError
from edgedistill.progress import told
from edgedistill.records import Candidate, Choice, Figures, Step
from edgedistill.store import keys

Pair = tuple[Step, Step]
BEFORE = ("student.0", "teacher.0")  # inputs that can be models which are trained first
AFTER = 20.0  # seconds kept for judging, bundling and reporting
SLOWER = 1.1  # times the p90 of the file that is int8 throughout: speed that recovery gave up


@dataclass(frozen=True)
class Outcome:
    """What the contest left: rows with a graph, and why others have none."""

    rows: tuple[Candidate, ...]  # all that are measured beside the baseline
    stopped: Stopped
    provisional: str | None  # the row whose control was trained


@dataclass
class _Contest:
    """What is known so far."""

    course: Course
    found: Shortlist
    trained: list[Entry] = field(default_factory=list)
    skipped: dict[str, tuple[str, str]] = field(default_factory=dict)
    brief: dict[str, Figures] = field(default_factory=dict)  # of trained rows


def hold(course: Course) -> Outcome:
    """Hold the contest. Raises `UserError` where the time limit leaves room for no student."""
    everyone = entries(course)
    teachers, unfit = _teachers(course)
    if not everyone:
        return Outcome(teachers, unfit, None)
    key = plan_key(course)
    known = {} if course.job.run.redecide else course.store.decision(key) or {}
    found = _known(known, everyone) if "order" in known else shortlist.make(course, everyone)
    # recorded before the hour: a build that is killed goes on with the same students
    known = {**known, **_recorded(found)}
    course.store.decide(key, known)
    held = _Contest(course, found)
    if found.order:
        _train(held, known)
    provisional, control = _control(held, known)
    names = [entry.name for entry in held.trained]
    again = [row.name for entry in held.trained for row in entry.rows if row.unaware]
    decided = {"trained": names, "again": again, "provisional": provisional}
    course.store.decide(key, {**known, **decided})
    rows = [row for entry in held.trained for row in entry.rows if row.name not in found.unfit]
    if held.trained:
        rows += [row for row in course.plan.beside if row.role == "assistant"]
    measured = {row.name for row in (*rows, *control)}
    stopped = {**unfit, **found.dropped, **found.unfit, **held.skipped}
    stopped = {name: why for name, why in stopped.items() if name not in measured}
    return Outcome((*teachers, *rows, *control), stopped, provisional)


def _recorded(found: Shortlist) -> dict[str, Any]:
    return {
        "order": [entry.name for entry in found.order],
        "dropped": {name: list(why) for name, why in found.dropped.items()},
        "unfit": {name: list(why) for name, why in found.unfit.items()},
        "p90": dict(found.p90),
    }


def _known(known: Mapping[str, Any], everyone: list[Entry]) -> Shortlist:
    """Return the shortlist that an earlier run of this plan made."""
    by_name = {entry.name: entry for entry in everyone}
    return Shortlist(
        order=tuple(by_name[name] for name in known["order"]),
        dropped={name: tuple(why) for name, why in known["dropped"].items()},
        unfit={name: tuple(why) for name, why in known["unfit"].items()},
        p90=known.get("p90", {}),
    )


def _teachers(course: Course) -> tuple[tuple[Candidate, ...], Stopped]:
    """Return the rows of the quantized teacher (or .onnx) that the target's runtime can run."""
    made: list[Candidate] = []
    unfit: dict[str, tuple[str, str]] = {}
    for row in course.plan.candidates:
        if row.training is None:
            lacks = figures.lacks(course, row, row.graph)
            if lacks:
                unfit[row.name] = ("dropped", lacks)
            else:
                made.append(row)
    return tuple(made), unfit


def _train(held: _Contest, known: Mapping[str, Any]) -> None:
    """Train in order until one is eligible; later ones are rows with their reason."""
    enough: str | None = None
    needs: dict[str, float] = {}
    named = bool(held.course.job.student.named())
    for entry in held.found.order:
        if "trained" in known and entry.name not in known["trained"]:
            _skip(held, entry, "an earlier run of this plan did not train it")
        elif enough and not named:
            _skip(held, entry, f"{enough} is eligible already; --student names more")
        elif _trained(held, entry, known, needs):
            enough = _enough(held, known, enough)
            again = _again(held, entry, enough, known)
            if again and _trained(held, again, known, needs):
                enough = _enough(held, known, enough)
    if held.trained:
        return
    name = min(needs, key=lambda each: needs[each])
    spent = held.course.job.run.seconds() - held.course.left()
    raise UserError(
        f"no student fits the time limit of {held.course.job.run.time_limit}: the quickest, "
        f"{name}, needs about {told(needs[name])} with its control and the measuring: "
        f"--time-limit {int((needs[name] + spent) / 60) + 2}m"
    )


def _trained(
    held: _Contest, entry: Entry, known: Mapping[str, Any], needs: dict[str, float]
) -> bool:
    """Train one where the time that is left is enough for it; say whether it was."""
    course = held.course
    needs[entry.name] = need = 0.0 if "trained" in known else _needs(held, entry)
    if need and need > course.left():
        left = told(max(0.0, course.left()))
        _skip(held, entry, f"needs about {told(need)} with its control; {left} left")
        return False
    for mine, other in _beside(held, entry, known):
        if course.store.find(mine) is None and _can_begin(course, other):
            course.run_both(mine, other)
    for row in entry.rows:
        course.run(row.validation, row.own.get("own_validation"))
    held.trained.append(entry)
    return True


def _beside(held: _Contest, entry: Entry, known: Mapping[str, Any]) -> list[Pair]:
    """Pair a student's trainings with its control's, in most builds asked for.

    Where several students are named, with the next one's, if it will be trained at all.
    """
    pairs = _pairs(held.course, entry.rows, entry.controls)
    following = _following(held, entry)
    if not pairs or following is None:
        return pairs
    if "trained" in known:
        fits = following.name in known["trained"]
    else:
        fits = _needs(held, following) <= held.course.left()
    return _pairs(held.course, entry.rows, following.rows) if fits else pairs


def _following(held: _Contest, entry: Entry) -> Entry | None:
    """Return the student that is trained after one where all are, as they are named."""
    order = held.found.order
    if held.course.job.student.named() and entry in order[:-1]:
        return order[order.index(entry) + 1]
    return None


def _pairs(course: Course, rows: Sequence[Candidate], beside: Sequence[Candidate]) -> list[Pair]:
    """Pair the trainings of rows with those beside them, where there are threads for both.

    Processes that train together, or a GPU, train one at a time.
    """
    ours, theirs = (
        list({id(row.training): row.training for row in each if row.training}.values())
        for each in (rows, beside)
    )
    return [
        pair
        for pair in zip(ours, theirs, strict=False)
        if sum(step.settings["threads"] for step in pair) <= course.facts.host.threads
        and all(step.settings["processes"] == 1 for step in pair)
        and all(step.settings["device"] == "cpu" for step in pair)
    ]


def _can_begin(course: Course, training: Step) -> bool:
    """Say whether what a training goes on from is there, where that is trained itself."""
    before = training.inputs["student.0"]
    if not isinstance(before, Step) or before.stage not in TRAINED_ON:
        return True
    return course.store.find(before) is not None


def _enough(held: _Contest, known: Mapping[str, Any], before: str | None) -> str | None:
    """Return the first row that was eligible; what an earlier run trained is trained again."""
    if before or "trained" in known:
        return before
    return _so_far(held).chosen


def _again(
    held: _Contest, entry: Entry, enough: str | None, known: Mapping[str, Any]
) -> Entry | None:
    """Return what is distilled on with int8 simulated of a trained student: rows that it may help.

    As the job says: none, all, or those that int8 costs more points than allowed, unless one is
    eligible already and recovery gave up no speed for it.
    """
    if entry.again is None:
        return None
    gone = {**held.found.unfit, **held.found.dropped}
    before = {row.name: row for row in entry.rows if row.name not in gone}
    rows = [row for row in entry.again.rows if row.unaware in before]
    if "trained" in known:
        rows = [row for row in rows if row.name in known.get("again", ())]
    elif held.course.job.quantize.aware == "auto":
        single = entry.rows[0]
        rows = [row for row in rows if _costs(held, single, before[row.unaware or ""], enough)]
    return dataclasses.replace(entry.again, rows=tuple(rows)) if rows else None


def _costs(held: _Contest, single: Candidate, row: Candidate, enough: str | None) -> bool:
    """Say whether int8 costs more of the float row's score than allowed, and nothing makes up.

    What makes up for it: another file in int8 that is eligible, or recovery that kept the speed.
    """
    course = held.course
    assert isinstance(row.graph, Step)
    recovered = course.artifact(row.graph).facts["recovered"]
    if recovered:
        lost = recovered.get("milder_points", recovered["before_points"])
    else:
        drop = figures.judge(course, row, single, "validation").drop
        lost = drop.value if drop else 0.0
    if lost <= row.graph.settings["recover_points"]:
        return False
    if enough in (None, single.name):
        return True
    whole, now = held.found.p90.get(row.name), held.brief.get(row.name)
    slow = whole and now and shortlist.p90(now) > SLOWER * whole
    return bool(slow and enough == row.name)


def _skip(held: _Contest, entry: Entry, why: str) -> None:
    for row in entry.rows:
        held.skipped[row.name] = ("skipped", why)


def _needs(held: _Contest, entry: Entry) -> float:
    """Estimate the seconds of a student: labels, training, a control, evaluation, measuring."""
    course = held.course
    mine = _ahead(course, [entry.training])
    controls = [row.training for row in entry.controls[-1:] if row.training]
    known = {id(step) for step in mine}
    more = [step for step in _ahead(course, controls) if id(step) not in known]
    parts = [_training_seconds(course, steps) for steps in (mine, more)]
    twins = _following(held, entry) is None
    paired = twins and _pairs(course, entry.rows, entry.controls)
    training = max(parts) if paired else sum(parts)
    if training:
        course.tell("estimate", f"{entry.name}: {told(training)} of training, control included")
    labels = [step for step in (*mine, *more) if step.stage == "label"]
    labelling = sum(_label_seconds(course, step) for step in labels)
    judging = ("validation", "test", "own_validation", "own_test")
    evaluated = sum(course.facts.rows.get(name, 0) for name in judging)
    after = 2 * course.job.measure.seconds + AFTER + 2 * evaluated * _row_seconds(course)
    return training + labelling + after


def _training_seconds(course: Course, steps: Sequence[Step]) -> float:
    """Estimate what those steps take together whose stages can say."""
    able = (step for step in steps if hasattr(keys.stage_of(step), "estimate"))
    return sum(course.estimate(_at_once(step)) for step in able)


def _ahead(course: Course, steps: Sequence[Step]) -> list[Step]:
    """Return the steps and all that they need which lie in no store yet, each once."""
    found: dict[int, Step] = {}
    todo = list(steps)
    while todo:
        step = todo.pop()
        if id(step) not in found and course.store.find(step) is None:
            found[id(step)] = step
            todo += [each for each in step.inputs.values() if isinstance(each, Step)]
    return list(found.values())


def _at_once(step: Step) -> Step:
    """Return a training whose time can be taken now, with untrained models in place of trained.

    A start that is yet to be chosen, or an assistant, costs minutes itself.
    """
    inputs = dict(step.inputs)
    for name, thing in step.inputs.items():
        while isinstance(thing, Step) and "student.0" in thing.inputs and name in BEFORE:
            thing = thing.inputs["student.0"]
            inputs[name] = thing
    return dataclasses.replace(step, inputs=inputs)


def _row_seconds(course: Course) -> float:
    """Return what the teacher's float graph took for one validation row."""
    made = course.artifact(course.plan.baseline.validation)
    return made.seconds / max(1, course.facts.rows["validation"])


def _teacher_seconds(course: Course) -> float:
    """Return what the float graphs of all teachers took for one validation row."""
    spent = sum(course.artifact(each.validation).seconds for each in course.plan.teachers)
    return spent / max(1, course.facts.rows["validation"])


def _label_seconds(course: Course, step: Step) -> float:
    """Estimate a labelling from what the same rows cost the teacher's graph, one by one.

    Batches on all threads: a row costs at most two thirds of that on each.
    """
    source = step.inputs["rows.0"]
    assert isinstance(source, Step)
    rows = course.facts.rows[course.facts.split_of(source)]
    each = _teacher_seconds(course) / (1.5 * course.facts.host.threads)
    return rows * max(1, len(source.settings["made"])) * each


def _so_far(held: _Contest) -> Choice:
    """Choose among the trained rows by validation and brief figures."""
    course = held.course
    rows = [row for entry in held.trained for row in entry.rows]
    rows = [row for row in rows if row.name not in held.found.unfit]
    for row in rows:
        if row.name not in held.brief:
            held.brief[row.name] = shortlist.measure(course, row)
    made = [contender(course, row, held.brief[row.name]) for row in rows]
    return judge.choose(made, course.target.limits, objective=course.job.run.objective)


def contender(course: Course, row: Candidate, found: Figures) -> judge.Contender:
    """Return a row as the choice sees it."""
    baseline = course.plan.baseline
    seen = figures.judge(course, row, baseline, "validation")
    own = figures.judge_own(course, row, baseline, "own_validation")
    return judge.Contender(
        row.name, row.role, seen, found, row.parent, own=own, unpruned=row.unpruned
    )


def _control(held: _Contest, known: Mapping[str, Any]) -> tuple[str | None, tuple[Candidate, ...]]:
    """Train the control of the provisional choice: the same shape, on labels alone.

    Its float and quantized rows share that training; which of them is the control of what the full
    measuring chooses is known only then.
    """
    if not held.trained:
        return None, ()
    provisional = known.get("provisional")
    if provisional is None:
        choice = _so_far(held)
        provisional = choice.chosen or choice.best_miss or held.trained[0].name
    for entry in held.trained:
        shown = next((row for row in entry.rows if row.name == provisional), None)
        if shown is not None:
            alike = (row for row in entry.controls if row.shape == shown.shape)
            twins = tuple(row for row in alike if _shown(held, entry, row))
            held.course.run(*(row.validation for row in twins))
            return provisional, twins
    return provisional, ()


def _shown(held: _Contest, entry: Entry, control: Candidate) -> bool:
    """Say whether a control's counterpart can be chosen at all."""
    gone = {**held.found.unfit, **held.found.dropped}
    rows = [row for row in entry.rows if row.shape == control.shape]
    return any(row.scheme == control.scheme and row.name not in gone for row in rows)
