"""Prune and recover, or distil a smaller student at once? Score against p90 at equal training time.

    python benchmarks/pruning.py --model M --data D --student 2 --prune 0.5 --prune 0.25

For each --prune three rows of int8 files, measured in one interleaved run: the student as it is
distilled, the same one pruned (and distilled again), and a student of the pruned one's very shape,
distilled from the teacher's layers at once, with as many steps as take the time of both trainings
together (by the time of a step, taken in turn on this host). Scores are accuracy in points, with
what each is below the teacher's; "p90" is of this host. --json prints a line a row. Everything lies
in the store: a second run trains nothing.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from edgedistill import job as jobs
from edgedistill import planner
from edgedistill.builder import figures
from edgedistill.builder.course import Course, evaluated
from edgedistill.builder.opening import open_job
from edgedistill.builder.prepare import prepare
from edgedistill.cli import run
from edgedistill.plugins import find
from edgedistill.records import Candidate, Step
from edgedistill.store.runner import Runner

COLUMNS = ("way", "kept", "row", "minutes", "steps", "validation", "test", "drop", "p90", "MB")
WIDTHS = (10, 22, 38, 8, 7, 10, 6, 5, 8, 5)


class Tried(NamedTuple):
    """One row of the table: how it was made, and the steps that were trained for it."""

    way: str
    kept: str
    row: Candidate
    trained: tuple[Step, ...]


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--model", required=True)
@click.option("--data", required=True)
@click.option("--target", default="phone")
@click.option("--student", default="2")
@click.option("--prune", "prunes", multiple=True, default=("0.5", "0.25"))
@click.option("--set", "more", multiple=True, help="any setting: distill.made=none")
@click.option("--threads", default=None)
@click.option("--store", default=None)
@click.option("--json", "as_json", is_flag=True)
def main(prunes: tuple[str, ...], as_json: bool, **told: Any) -> None:
    """Train, measure and print the table."""
    scratch = Path(tempfile.mkdtemp(prefix="edgedistill-"))
    try:
        _compare(told, prunes, as_json, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _compare(told: dict[str, Any], prunes: Sequence[str], as_json: bool, scratch: Path) -> None:
    job = _job(told, told["student"])
    opened = open_job(job)
    prepared = prepare(job, opened.target, opened.store)
    plan = planner.propose(job, opened.target, prepared.facts)
    with Runner(opened.store.root, threads=prepared.facts.host.threads) as runner:
        course = Course(
            job=job,
            target=opened.target,
            facts=prepared.facts,
            plan=plan,
            store=opened.store,
            runner=runner,
            progress=_told,
            scratch=scratch,
        )
        tried = list(_tried(course, told, prunes))
        rows = {each.row.name: each.row for each in tried}
        course.run(*(step for row in (plan.baseline, *rows.values()) for step in evaluated(row)))
        measured = figures.measure(course, [plan.baseline, *rows.values()])
        if not as_json:
            print(_line(COLUMNS))
        for one in tried:
            found = _figures(course, one, measured.figures[one.row.name])
            print(json.dumps(found) if as_json else _line(found.values()))


def _tried(course: Course, told: dict[str, Any], prunes: Sequence[str]) -> Any:
    """Yield the rows of the table, trained: the student, and for each --prune two more."""
    seen = False
    for kept in prunes:
        plan = _plan(course, _job(told, told["student"], kept))
        whole = _candidate(plan.candidates, pruned=False)
        small = _candidate(plan.candidates, pruned=True)
        course.run(whole.validation, small.validation)
        before, after = whole.training, small.training
        assert before is not None and after is not None
        if not seen:
            yield Tried("distilled", "all", whole, (before,))
        seen = True
        yield Tried("pruned", kept, small, (before, after))
        both = course.estimate(before) + course.estimate(after)
        teacher = course.facts.teacher
        text = find("families", teacher.family).name(small.shape, teacher.shape)
        alone = _candidate(_plan(course, _job(told, text)).candidates, pruned=False).training
        assert alone is not None
        course.run(*(each for each in alone.inputs.values() if isinstance(each, Step)))
        steps = max(1, round(alone.settings["steps"] * both / course.estimate(alone)))
        again = _plan(course, _job(told, text, steps=steps))
        row = _candidate(again.candidates, pruned=False)
        if row.shape != small.shape:
            raise click.ClickException(f"{text} is not the shape of '{small.name}'")
        course.run(row.validation)
        assert row.training is not None
        yield Tried("at once", kept, row, (row.training,))


def _job(
    told: dict[str, Any], student: str, prune: str = "none", *, steps: int | None = None
) -> jobs.Job:
    settings = {name: value for name, _, value in (each.partition("=") for each in told["more"])}
    if steps is not None:
        settings["distill.steps"] = steps
    if told["threads"]:
        settings.setdefault("distill.threads", told["threads"])  # nothing trains beside it
    return jobs.named(
        None,
        told["target"],
        model=told["model"],
        data=told["data"],
        student=student,
        prune=prune,
        threads=told["threads"],
        store=told["store"],
        settings=settings,
    )


def _plan(course: Course, job: jobs.Job) -> Any:
    return planner.propose(job, course.target, course.facts)


def _candidate(rows: Sequence[Candidate], *, pruned: bool) -> Candidate:
    """Return the first int8 row of the student, or of what was pruned of it."""
    return next(
        row for row in rows if row.role == "candidate" and (row.unpruned is not None) == pruned
    )


def _figures(course: Course, one: Tried, found: Any) -> dict[str, Any]:
    baseline = course.plan.baseline
    scores = {
        split: figures.judge(course, one.row, baseline, split) for split in ("validation", "test")
    }
    made = [course.artifact(step) for step in one.trained]
    drop = scores["test"].drop
    return {
        "way": one.way,
        "kept": one.kept,
        "row": one.row.name,
        "minutes": round(sum(each.seconds for each in made) / 60, 1),
        "steps": sum(each.facts["steps"] for each in made),
        "validation": round(scores["validation"].score.value, 2),
        "test": round(scores["test"].score.value, 2),
        "drop": round(drop.value, 2) if drop else None,
        "p90": round(found.latency.p90, 3) if found.latency else None,
        "MB": round(found.size_mb, 1) if found.size_mb else None,
    }


def _told(event: Any) -> None:
    """Say on stderr which steps were made."""
    if event["kind"] == "end" and not event["cached"]:
        print(f"# {event.get('stage', '')} {event.get('seconds', 0):.0f} s", file=sys.stderr)


def _line(cells: Any) -> str:
    return "  ".join(
        f"{'-' if c is None else c!s:<{w}}" for c, w in zip(cells, WIDTHS, strict=True)
    ).rstrip()


if __name__ == "__main__":
    run(main, "pruning.py")
