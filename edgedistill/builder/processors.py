"""Run the chosen file as each processor that the target names, where this host is another one.

By emulation (`measure.emulation`), on validation rows: a file whose answers are not this host's is
not chosen, so test has no say. What was found is remembered in the store. A processor that can't be
emulated here is told as not checked, with the reason, and the build goes on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgedistill import judge, plugins
from edgedistill.builder import figures
from edgedistill.builder.course import Course
from edgedistill.data import arrays
from edgedistill.errors import EdgedistillError
from edgedistill.graph import feeds, session
from edgedistill.measure import emulation, lane
from edgedistill.progress import told
from edgedistill.records import Candidate, OnProcessor
from edgedistill.report import words
from edgedistill.store import keys

ROWS = 200  # at most, spread evenly: emulation is some hundred times slower
LEAST_ROWS = 40  # fewer can't tell 5 % of rows, nor 2 % of answers, from chance
SECONDS = 25.0  # for the rows of one processor; loading comes on top, some seconds
LEAST_LEFT = 120.0  # seconds of the time limit, below which nothing more is begun


def check(course: Course, row: Candidate) -> tuple[OnProcessor, ...]:
    """Run a row's graph as each processor of the target; what differs there has `state` differs."""
    return tuple(_known(course, row, each) for each in course.target.processors)


def _known(course: Course, row: Candidate, processor: str) -> OnProcessor:
    """Return what is known of a row on a processor, from the store where it was checked before."""
    if processor == course.facts.host.instructions:
        rows = course.facts.rows["validation"]
        return OnProcessor(processor, None, rows, 100.0, None, None, "checked", "this host")
    given = course.facts.teacher.given
    if row.scheme == "none" and (given is None or given.precision == "fp32"):
        return _unchecked(processor, "floats differ between processors by rounding alone")
    if course.job.run.emulate == "never":
        return _unchecked(processor, "run.emulate is 'never'")
    try:
        cpu = emulation.standing_for(processor)
        key = _key(course, row, cpu)
        before = None if course.job.run.redecide else course.store.decision(key)
        if before is not None:
            return OnProcessor(**before)
        if course.left() < LEAST_LEFT:
            return _unchecked(processor, f"{told(max(0.0, course.left()))} of the time limit left")
        found = _run(course, row, processor, cpu)
    except EdgedistillError as error:
        return _unchecked(processor, str(error))
    if found.state != "not_checked":  # a busy machine is no finding
        course.store.decide(key, dataclasses.asdict(found))
    return found


def _unchecked(processor: str, why: str) -> OnProcessor:
    return OnProcessor(processor, None, 0, None, None, None, "not_checked", why)


def _key(course: Course, row: Candidate, cpu: emulation.Cpu) -> str:
    """Return under which name the store remembers a check."""
    what = [keys.key(row.validation), cpu.name, emulation.version(cpu), ROWS]
    return f"processor-{hashlib.sha256(json.dumps(what).encode()).hexdigest()}"


def _run(course: Course, row: Candidate, processor: str, cpu: emulation.Cpu) -> OnProcessor:
    started = time.monotonic()
    outputs, truth = figures.outputs_of(course, row, "validation")
    batch = row.validation.settings["batch"]
    runs = [np.arange(at, min(at + batch, len(outputs))) for at in range(0, len(outputs), batch)]
    order = lane.spread_order(len(runs), 0.5)[: max(1, ROWS // batch)]
    course.note(f"running {row.name} as {cpu.name}, by emulation")
    answers = emulation.outputs(
        cpu,
        course.folder(row.graph) / "model.onnx",
        row.validation.settings["session"],
        _feeds(course, row, [runs[at] for at in order]),
        seconds=SECONDS,
        progress=course.progress,
    )
    done = [runs[at] for at in order[: len(answers)]]
    which = np.concatenate(done)
    if len(which) < min(LEAST_ROWS, len(outputs)):
        why = f"{len(which)} rows in {SECONDS:.0f} s tell too little"
        return _unchecked(processor, why)
    there = np.concatenate([each[: len(run)] for each, run in zip(answers, done, strict=True)])
    here = outputs[which]
    alike = judge.alike(here, there)
    found = OnProcessor(
        name=processor,
        cpu=cpu.name,
        rows=len(which),
        agreement=alike.agreement,
        score=_score(course, there, truth[which]),
        score_here=_score(course, here, truth[which]),
        state="differs" if alike.reason else "checked",
        reason=alike.reason,
    )
    spent = told(time.monotonic() - started)
    course.tell("processor", f"{words.on_processor(dataclasses.asdict(found))} ({spent})")
    return found


def _score(course: Course, outputs: np.ndarray, truth: np.ndarray) -> float:
    task: Any = plugins.find("tasks", course.facts.task, allow_code=True)
    metric = course.facts.metric
    return float(task.score(task.statistics(outputs, truth, metric).sums(), metric))


def _feeds(
    course: Course, row: Candidate, runs: list[np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the validation rows as `evaluate` fed them, run by run."""
    told = row.validation.settings
    rows = arrays.Arrays(course.folder(row.validation.inputs["rows.0"]))
    task: Any = plugins.find("tasks", course.facts.task, allow_code=True)
    encoder = task.open_encoder(course.folder(row.graph), told["encoder"])
    fixed = session.fixed(session.start(course.folder(row.graph) / "model.onnx"))
    shape = {"integers": told["integers"], "length": fixed.length, "batch": fixed.batch}
    for run in runs:
        yield feeds.padded([rows.row(int(index)) for index in run], encoder, **shape)
