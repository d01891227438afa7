"""Build: from a Job to a Report, the straight line in one sitting.

prepare -> propose -> contest (train) -> measure -> judge -> report -> bundle
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedistill import bundle, judge, planner
from edgedistill.builder import contest, figures, narrate, processors, record, shipping, tuning
from edgedistill.builder.course import Course, evaluated, steps_of
from edgedistill.builder.opening import Opened, open_job
from edgedistill.builder.prepare import Prepared, prepare
from edgedistill.builder.reading import hold_encoder
from edgedistill.builder.record import Judged
from edgedistill.builder.shortlist import plan_key
from edgedistill.builder.teacher import hold_teacher
from edgedistill.errors import SurroundingsError, UsageError
from edgedistill.job import Job
from edgedistill.progress import silent
from edgedistill.records import Choice, OnProcessor, Plan, Progress, Step
from edgedistill.report import words
from edgedistill.store import crew, keys
from edgedistill.store.runner import Runner
from edgedistill.train import host

TRAININGS = ("finetune", "distill", "prune")

EXIT = {"fits": 0, "fits_closely": 0, "misses": 1}


@dataclass(frozen=True)
class Report:
    """What a build leaves: the record, and where its files lie."""

    record: Mapping[str, Any]  # report.json
    folder: Path | None  # the bundle, or None where none was written
    path: Path  # report.json

    @property
    def verdict(self) -> str:
        """fits | fits_closely | misses"""
        return str(self.record["verdict"])

    @property
    def chosen(self) -> str | None:
        """The name of the chosen row."""
        return self.record["chosen"]

    @property
    def exit_code(self) -> int:
        """What the command line exits with."""
        return EXIT[self.verdict]

    def closing(self) -> list[str]:
        """Return the last lines that people are told: where the files are."""
        if self.folder is None:
            lines = [f"report     {self.path}"]
            out = self.path.with_name(self.path.name.removesuffix(".report.json"))
            when = shipping.earlier(out)
            return [*lines, f"untouched  {out}/ is the bundle of {when}"] if when else lines
        files = ", ".join(sorted(path.name for path in self.folder.iterdir()))
        return [f"bundle     {self.folder}/  ({files})"]

    def bundle(self) -> bundle.Bundle:
        """Open the bundle that was written. Raises `BundleError` where there is none."""
        return bundle.load(self.folder or self.path.parent)


def build_job(job: Job, progress: Progress = silent) -> Report:
    """Build what the job asks for; returns the report, whatever the verdict."""
    started = time.monotonic()
    opened = open_job(job)
    if crew.follows():
        raise UsageError("under torchrun processes beside the first follow: `edgedistill build`")
    with crew.leading(opened.store.root):
        return _built(job, opened, progress, started)


def follow_job(job: Job) -> None:
    """Train along with the process that builds the same job, as torchrun started both."""
    crew.follow(open_job(job).store.root)


def _built(job: Job, opened: Opened, progress: Progress, started: float) -> Report:
    prepared = prepare(job, opened.target, opened.store, progress=progress)
    _tell(prepared, progress)
    plan = planner.propose(job, opened.target, prepared.facts)
    if not job.run.allow_code:  # keys import plugins: before the first one
        keys.refuse_strangers(steps_of(plan.everyone()))
    with _course(job, opened, prepared, plan, progress=progress, started=started) as course:
        differs = hold_encoder(course, prepared)
        hold_teacher(course)
        outcome = contest.hold(course)
        rows = [plan.baseline, *outcome.rows]
        course.run(*(each for row in rows for each in evaluated(row)))
        first = tuning.chosen_first(outcome.rows, outcome.provisional)
        trials = tuning.subjects(course, first) if first and job.measure.tune else []
        measured = figures.measure(course, rows, trials)
        tuned = None
        if first and trials:
            tuned, measured = tuning.settle(course, first, measured)
        judged = {
            row.name: record.judged(course, prepared, row, measured.figures[row.name])
            for row in rows
        }
        choice, said, found = _chosen(course, judged, outcome)
        said = (*filter(None, [differs]), *said)
        judged = _one_control(judged, choice)
        _run_fixed(course, judged.get(choice.chosen or ""))
        made = record.make(
            course, prepared, judged, choice=choice, measured=measured, said=said, processors=found
        )
        one = judged.get(choice.chosen or choice.best_miss or "")
        if one is None or (made["verdict"] == "misses" and not job.run.best_effort):
            return Report(made, None, shipping.leave_report(opened.out, made))
        licence = bundle.licence_of(prepared.model.folder)
        folder = shipping.ship(
            course, opened.out, one=one, report=made, licence=licence, tuned=tuned
        )
        return Report(made, folder, folder / "report.json")


def _tell(prepared: Prepared, progress: Progress) -> None:
    for heading, text in prepared.lines:
        progress({"kind": "line", "about": heading, "text": text})
    for text in prepared.warnings:
        progress({"kind": "warning", "text": text})


@contextmanager
def _course(
    job: Job,
    opened: Opened,
    prepared: Prepared,
    plan: Plan,
    *,
    progress: Progress,
    started: float,
) -> Iterator[Course]:
    """Open what the parts of a build share, and close it whatever happens."""
    steps = steps_of(plan.everyone())
    _room(opened, prepared, steps)
    _devices(opened, steps)
    for note in plan.notes:
        progress({"kind": "note", "text": note})
    store, threads = opened.store, prepared.facts.host.threads
    scratch = Path(tempfile.mkdtemp(prefix="edgedistill-"))
    try:
        with Runner(store.root, threads=threads, allow_code=job.run.allow_code) as runner:
            runner.hold(steps)
            yield Course(
                job=job,
                target=opened.target,
                facts=prepared.facts,
                plan=plan,
                store=store,
                runner=runner,
                progress=progress,
                scratch=scratch,
                started=started,
                about=narrate.about(plan, prepared.facts),
            )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _room(opened: Opened, prepared: Prepared, steps: list[Step]) -> None:
    """Refuse a build that the disk can't hold: what its steps write, and training's checkpoints."""
    missing = [step for step in steps if not opened.store.has(keys.key(step), step.stage)]
    need = sum(_bytes(step, prepared) for step in missing)
    need += _checkpoints(missing, prepared)
    free = opened.store.free_bytes()
    if need > free:
        raise SurroundingsError(
            f"the build may write {need / 1e6:,.0f} MB, and '{opened.store.root}' has "
            f"{free / 1e6:,.0f} MB free: make room, or name another place with --store"
        )


def _devices(opened: Opened, steps: list[Step]) -> None:
    """Refuse a device that torch does not see, before the first step runs."""
    asked: dict[str, str] = {}
    for step in steps:
        device = step.settings.get("device", "cpu")
        if device != "cpu" and not opened.store.has(keys.key(step), step.stage):
            asked.setdefault(device, step.stage)
    for device, stage in asked.items():
        if not host.sees(device):
            raise SurroundingsError(
                f"{stage}.device: torch sees no '{device}' here: leave it out for the processor, "
                "or install the build of torch for it (pytorch.org/get-started)"
            )


def _checkpoints(steps: list[Step], prepared: Prepared) -> float:
    """Return at most what checkpoints of the trainings take that run at once.

    Each holds weights, two moments of them, their average and the best; two are kept while a third
    is written.
    """
    at_once = min(2, sum(step.stage in TRAININGS for step in steps))
    return at_once * 3 * 5 * _weights(prepared)


def _weights(prepared: Prepared) -> float:
    return 4.0 * (prepared.model.parameters or 0)


def _bytes(step: Step, prepared: Prepared) -> float:
    """Return at most what lies there of a step when it has ended."""
    facts = prepared.facts
    rows = max(facts.rows.values())
    if step.stage == "encode":
        tokens = facts.teacher.encoder.get("max_length")
        each = 8.0 * tokens if tokens else _pixels(prepared)
        return rows * max(1, len(step.settings["made"])) * each
    if step.stage == "label":
        told = step.inputs["rows.0"]
        kinds = told.settings["made"] if isinstance(told, Step) else ()
        return 2.0 * rows * max(1, len(kinds)) * len(facts.labels)
    if step.stage == "evaluate":
        return 4.0 * rows * len(facts.labels)
    return _weights(prepared)


def _pixels(prepared: Prepared) -> float:
    """Return the bytes of one encoded image."""
    told = json.loads(prepared.model.encoder["image.json"])
    height, width = told["size"]
    return float(height * width * told["channels"])


def _run_fixed(course: Course, one: Judged | None) -> None:
    """Make the graph of one shape of the chosen row, where the target asks for it."""
    if one is not None and one.row.fixed is not None:
        course.run(one.row.fixed)


# ---------------------------------------------------------------- the choice


def _chosen(
    course: Course, judged: Mapping[str, Judged], outcome: contest.Outcome
) -> tuple[Choice, tuple[str, ...], tuple[OnProcessor, ...]]:
    """Choose a row that is on every processor of the target what it is here, as far as checked."""
    key = plan_key(course)
    known = course.store.decision(key) or {}
    wrong = {} if course.job.run.redecide else dict(known.get("wrong", {}))
    while True:
        choice, said = _choose(course, judged, outcome, wrong)
        name = choice.chosen or (choice.best_miss if course.job.run.best_effort else None)
        found = processors.check(course, judged[name].row) if name else ()
        differs = [each for each in found if each.state == "differs"]
        if not differs or name != choice.chosen:
            break
        wrong[name] = words.on_processor(dataclasses.asdict(differs[0]))
        course.progress({"kind": "warning", "text": f"{name}: {wrong[name]}; choosing again"})
        course.store.decide(key, {**(course.store.decision(key) or {}), "wrong": wrong})
    return choice, said, found


def _choose(
    course: Course,
    judged: Mapping[str, Judged],
    outcome: contest.Outcome,
    wrong: Mapping[str, str],
) -> tuple[Choice, tuple[str, ...]]:
    """Choose, repeating what an earlier run of this plan chose; say what contradicts it.

    Rows that are `wrong` on a processor, each with its reason, are not chosen.
    """
    fresh = _fresh(course, judged, outcome, wrong)
    key = plan_key(course)
    known = course.store.decision(key) or {}
    before = None if course.job.run.redecide else known.get("chosen")
    state, why = fresh.states.get(before or "", ("dropped", ""))
    repeats = before in judged and before not in wrong and state != "failed"
    said: list[str] = []
    choice = fresh
    if before and repeats and before != fresh.chosen:
        said.append(
            f"an earlier run of this plan chose '{before}', and this one repeats it; its fresh "
            f"figures alone would choose '{fresh.chosen or 'nothing'}' ({state}: {why}); "
            "--set run.redecide=true decides again"
        )
        as_before = "as an earlier run of this plan chose"
        states = {**fresh.states, before: ("chosen", as_before)}
        if fresh.chosen:
            states[fresh.chosen] = ("kept", f"fresh figures alone: {fresh.reason}")
        choice = dataclasses.replace(fresh, chosen=before, reason=as_before, states=states)
    if choice.chosen:
        course.store.decide(key, {**known, "chosen": choice.chosen})
    trained = {row.name: row.training for row in course.plan.rows()}
    first = outcome.provisional
    if first and choice.chosen and trained[first] is not trained[choice.chosen]:
        said.append(
            f"the control is that of '{first}', the best by brief figures; "
            f"the full measuring chose '{choice.chosen}'"
        )
    return choice, tuple(said)


def _one_control(judged: Mapping[str, Judged], choice: Choice) -> dict[str, Judged]:
    """Keep the one control that has the scheme of the chosen row, where there is one."""
    shown = judged.get(choice.chosen or choice.best_miss or "")
    controls = {name for name, one in judged.items() if one.row.role == "control"}
    same = {name for name in controls if shown and judged[name].row.scheme == shown.row.scheme}
    gone = controls - same if same else set()
    return {name: one for name, one in judged.items() if name not in gone}


def _fresh(
    course: Course,
    judged: Mapping[str, Judged],
    outcome: contest.Outcome,
    wrong: Mapping[str, str],
) -> Choice:
    roles = {row.name: row.role for row in course.plan.rows()}
    contenders = [
        judge.Contender(
            name,
            one.row.role,
            one.validation,
            one.figures,
            one.row.parent,
            stopped=("dropped", wrong[name]) if name in wrong else None,
            own=one.own.validation,
            ships=record.ships_itself(course, one.row),
            unpruned=one.row.unpruned,
        )
        for name, one in judged.items()
    ]
    contenders += [
        judge.Contender(name, roles[name], stopped=why)
        for name, why in outcome.stopped.items()
        if name not in judged
    ]
    return judge.choose(
        contenders,
        course.target.limits,
        objective=course.job.run.objective,
        max_drop=course.job.quantize.max_drop,
    )
