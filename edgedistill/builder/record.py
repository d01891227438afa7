"""Make report.json: what was asked, found, done, measured and judged, as plain values."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from edgedistill import __version__, judge, plugins
from edgedistill import report as reports
from edgedistill import target as targets
from edgedistill.builder import figures
from edgedistill.builder.course import Course, begun, steps_of
from edgedistill.builder.prepare import Prepared, job_filled
from edgedistill.builder.teacher import answered
from edgedistill.data import hub
from edgedistill.job import Job
from edgedistill.records import (
    Candidate,
    Check,
    Choice,
    Figures,
    Interval,
    Measured,
    OnProcessor,
    Step,
)
from edgedistill.store import keys

OF_GRAPH = ("nodes", "operators", "fusions", "batched", "recovered")  # facts that a report states


class OnOwn(NamedTuple):
    """What the own rows show of one row; None where there are none."""

    validation: judge.Evaluation | None
    test: judge.Evaluation | None


@dataclass(frozen=True)
class Judged:
    """One row with everything that is known of it."""

    row: Candidate
    figures: Figures
    validation: judge.Evaluation
    test: judge.Evaluation
    temperature: float
    checks: tuple[Check, ...]
    own: OnOwn


def judged(course: Course, prepared: Prepared, row: Candidate, found: Figures) -> Judged:
    """Judge one measured row on both splits, and hold its limits on test."""
    found = dataclasses.replace(found, encode_ms=figures.encode_ms(course, row))
    temperature = figures.temperature(course, row)
    baseline = course.plan.baseline
    validation = figures.judge(course, row, baseline, "validation", temperature)
    test = figures.judge(course, row, baseline, "test", temperature)
    own = OnOwn(
        *(figures.judge_own(course, row, baseline, f"own_{name}") for name in OnOwn._fields)
    )
    values, reasons = judge.figures_of(found, test, own.test)
    if ships_itself(course, row):  # a graph loses nothing against itself
        values |= {name: Interval(0.0, 0.0, 0.0) for name in judge.PAIRED}
    limits = course.target.limits
    checks = judge.checks(
        limits,
        values,
        reasons,
        rows=course.facts.rows["test"],
        own_rows=course.facts.rows.get("own_test"),
        at_best_close={
            **(judge.not_unseen(limits) if doubted(course, prepared) else {}),
            **(judge.not_unseen(limits, own=True) if doubted(course, prepared, own=True) else {}),
        },
        vanished=test.vanished,
    )
    return Judged(row, found, validation, test, temperature, checks, own)


def ships_itself(course: Course, row: Candidate) -> bool:
    """Say whether a row is an .onnx as the user brought it, which may be chosen as it is."""
    return row.role == "baseline" and course.facts.teacher.given is not None


def doubted(course: Course, prepared: Prepared, *, own: bool = False) -> bool:
    """Say whether the teacher may have been trained on our test rows, general or own ones."""
    seen = prepared.seen_by_teacher("own_test" if own else "test")
    return seen and not course.job.data.unseen_by_teacher


def make(
    course: Course,
    prepared: Prepared,
    rows: Mapping[str, Judged],
    *,
    choice: Choice,
    measured: Measured,
    said: tuple[str, ...],
    processors: Sequence[OnProcessor] = (),
) -> dict[str, Any]:
    """Make report.json; `said` are warnings beside those of the data and of the measuring.

    `processors` are what the chosen file was found to answer as each of the target's.
    """
    doubt: tuple[str, ...] = ()
    if doubted(course, prepared):
        whose = "the teacher" if course.facts.teacher.given is None else "the model"
        doubt = (f"the test rows were cut by us, and {whose} may have been trained on them",)
    told = [
        _row(course, row, rows.get(row.name))
        for row in course.plan.rows()
        if row.name in rows or (row.name in choice.states and row.role != "control")
    ]
    verdict = judge.verdict(
        rows[choice.chosen].checks if choice.chosen else None, strict=course.job.run.strict
    )
    build = reports.Build(
        job=_private(job_filled(course.job, prepared)),
        target=_target(course.target),
        data=_data(course, prepared),
        environment={
            **measured.environment,
            "yardstick": dataclasses.asdict(measured.yardstick),
        },
        source_model={
            "kind": "model" if course.facts.teacher.given is None else "graph",
            "name": prepared.model.name,
            "hash": prepared.model.digest,
            "commit": getattr(prepared.model, "commit", None),  # of a hub id
            "size_mb": prepared.model.bytes / 1e6 if not prepared.starter else None,
        },
        teachers=_teachers(course),
        seconds={"total": time.monotonic() - course.started, "measure": measured.seconds},
        version=__version__,
        command=command(course.job),
        warnings=(*doubt, *prepared.warnings, *course.plan.notes, *measured.warnings, *said),
        strict=course.job.run.strict,
        about=course.about,
    )
    return reports.make(
        build,
        told,
        choice=choice,
        verdict=verdict,
        steps=list(course.made.values()),
        worth=_worth(course, rows, choice),
        processors=processors,
    )


def _worth(course: Course, rows: Mapping[str, Judged], choice: Choice) -> reports.Worth | None:
    """Hold a student against its control, of the same start, shape and scheme: the chosen one's.

    Where what was chosen has no control, that of the student which has one.
    """
    controls = [one.row for one in rows.values() if one.row.role == "control"]
    pairs = {
        one.row.name: (one.row, control)
        for one in rows.values()
        for control in controls
        if one.row.role in ("candidate", "student_fp32")
        and one.row.scheme == control.scheme
        and one.row.shape == control.shape
        and begun(one.row) is begun(control)
    }
    if not pairs:
        return None
    shown = choice.chosen or choice.best_miss
    row, control = pairs.get(shown or "") or next(iter(pairs.values()))
    gains = {split: figures.gain(course, row, control, split) for split in ("validation", "test")}
    rows_of = rows[row.name].test.score.rows
    return reports.Worth(row.name, control.name, gains["validation"], gains["test"], rows_of)


def _row(course: Course, row: Candidate, one: Judged | None) -> reports.Row:
    precision = "fp32"
    if row.scheme != "none":
        precision = plugins.find(
            "schemes", row.scheme, allow_code=course.job.run.allow_code
        ).PRECISION
    elif ships_itself(course, row):
        precision = course.facts.teacher.given.precision  # type: ignore[union-attr]
    graph = course.artifact(row.graph).facts if one else None
    return reports.Row(
        name=row.name,
        role=row.role,
        shape=row.shape,
        precision=precision,
        scheme=None if row.scheme == "none" else Path(row.scheme).name,
        parameters=graph.get("parameters") if graph else None,
        steps=tuple(keys.key(each) for each in steps_of([row], untrained=False)) if one else (),
        train=figures.train_score(course, row) if one else None,
        validation=one.validation if one else None,
        test=one.test if one else None,
        unseen=figures.unseen(course, row) if one else None,
        own={name: each for name, each in one.own._asdict().items() if each} if one else {},
        figures=one.figures if one else Figures(),
        graph={name: graph.get(name) for name in OF_GRAPH} if graph else None,
        checks=one.checks if one else (),
    )


def _teachers(course: Course) -> tuple[dict[str, Any], ...]:
    """Return the teachers with their weights, and their scores on validation."""
    task = plugins.find("tasks", course.facts.task, allow_code=True)
    made = []
    for each in course.plan.teachers:
        score = judge.score_of(
            *answered(course, each, each.validation),
            task=task,
            metric=course.facts.metric,
            seed=course.job.run.seed,
        )
        about = {"name": each.name, "hash": each.hash, "weight": each.weight}
        made.append({**about, "validation": score})
    return tuple(made)


def _target(target: targets.Target) -> dict[str, Any]:
    made = dataclasses.asdict(target)
    return {**made, "limits": dict(target.limits), "reasons": dict(target.reasons)}


def _data(course: Course, prepared: Prepared) -> dict[str, Any]:
    data = prepared.data
    return {
        "name": data.name,
        "hash": {name: source.hash for name, source in course.facts.splits.items()},
        "splits": {
            name: {
                "rows": len(part),
                "labels": len(set(part.truth or ())),
                "origin": data.origin.get(name, "given"),
            }
            for name, part in data.splits.items()
        },
        "made": _made(course),
        "own": data.own
        and {"name": data.own[0], "columns": data.own[1], "weight": course.job.data.own_weight},
        "columns": dict(data.columns),
        "ignored": list(data.ignored),
        "overlap": dict(data.overlap),
        "metric_reason": prepared.metric_reason,
        "warnings": list(data.warnings),
    }


def _made(course: Course) -> dict[str, int]:
    """Count the rows that were made for the teacher to label, by kind; those of one student."""
    found: dict[str, int] = {}
    trainings = [row.training for row in course.plan.candidates if row.training is not None]
    for name, step in trainings[0].inputs.items() if trainings else ():
        if name.startswith("train.") and isinstance(step, Step):
            for kind in step.settings["made"]:
                found[kind] = found.get(kind, 0) + course.facts.rows[course.facts.split_of(step)]
    return found


def _private(job: dict[str, Any]) -> dict[str, Any]:
    """Return the job without folders: whatever names a place is cut to its last name.

    An id of the hub stays whole, and so does the name of a column that holds a slash.
    """
    return {name: _base(value) for name, value in job.items()}


def _base(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_base(name): _base(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_base(each) for each in value]
    if isinstance(value, str) and ("\\" in value or ("/" in value and hub.is_path(value))):
        return Path(value.replace("\\", "/")).name
    return value


FLAGS = {  # settings that have a flag of their own
    "model.path": "--model",
    "data.path": "--data",
    "task.name": "--task",
    "distill.recipe": "--recipe",
    "prune.kind": "--prune",
    "run.objective": "--objective",
    "run.seed": "--seed",
    "run.threads": "--threads",
    "run.time_limit": "--time-limit",
}
PLACES = ("run.out", "run.store")  # where a build happened is not what it was


def command(job: Job) -> str:
    """Return the command that repeats a job: all that differs from the defaults, without folders.

    Live models and rows are named as such: that job is repeated from Python.
    """
    plain, usual = _flat(_private(job.plain())), _flat(Job(target=job.target).plain())
    parts = ["edgedistill", "build", "--target", Path(job.target).name]
    for name, value in plain.items():
        if name == "target" or name in PLACES or value == usual.get(name):
            continue
        if name in FLAGS:
            parts += [FLAGS[name], str(value)]
        elif name.startswith("limits."):
            parts += ["--limit", f"{name.removeprefix('limits.')}={value}"]
        elif value is True and name.startswith("run."):
            parts += ["--" + name.removeprefix("run.").replace("_", "-")]
        else:
            told = ",".join(map(str, value)) if isinstance(value, list) else value
            parts += ["--set", f"{name}={told}"]
    return shlex.join(parts)


def _flat(tables: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in tables.items():
        if isinstance(value, Mapping):
            made |= _flat(value, f"{place}{name}.")
        else:
            made[f"{place}{name}"] = value
    return made
