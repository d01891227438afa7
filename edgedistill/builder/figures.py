"""Measure and judge rows: from graphs in the store to what the report says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill import bundle, plugins
from edgedistill import judge as judging
from edgedistill.builder.course import Course
from edgedistill.bundle.evidence import digest as evidence_digest
from edgedistill.data import arrays
from edgedistill.data.rows import Rows
from edgedistill.errors import BundleError
from edgedistill.graph import count, operators
from edgedistill.graph import feeds as feeds_of
from edgedistill.graph import session as sessions
from edgedistill.judge import confidence, evidence
from edgedistill.judge.evidence import Evaluation
from edgedistill.judge.unseen import UnseenWords
from edgedistill.measure import sample, session
from edgedistill.records import Candidate, Interval, Measured, Score, Source, Step
from edgedistill.store import keys

ENCODED = 200  # examples whose encoding is timed


def subject(course: Course, row: Candidate, graph: Step | Source | None = None) -> session.Subject:
    """Return a row (or its untrained `graph`) as something to measure on real encoded rows."""
    graph = graph or row.graph
    taken = _sample(course, encoded(row), graph)
    path = course.folder(graph) / "model.onnx"
    settings = row.test.settings
    return session.Subject(
        name=row.name,
        model=path,
        session=settings["session"],
        sample=taken.folder,
        longest=taken.timed,
        timed=taken.timed,
        products=sample.products(lambda shapes: count.products(path, shapes), taken.feeds),
    )


def lacks(course: Course, row: Candidate, graph: Step | Source) -> str | None:
    """Return why a row's graph can't ship: what the runtime lacks, or what its scheme says."""
    if isinstance(graph, Step) and row.scheme != "none":
        parent = graph.inputs["graph.0"]
        assert isinstance(parent, Step)
        operators_there = course.artifact(parent).facts.get("operators")
        scheme = plugins.find("schemes", row.scheme, allow_code=course.job.run.allow_code)
        convolutional = course.facts.teacher.convolutional
        known = {"convolutional": convolutional, "operators": operators_there}
        for processor in course.target.processors:
            why = scheme.valid(known, course.target, processor)
            if why:
                return f"{Path(row.scheme).name}: {why}"
        if course.artifact(graph).facts["precision"] != scheme.PRECISION:
            return f"{Path(row.scheme).name}: no product of the graph has constant weights"
    wanted = course.target.runtime.onnxruntime
    found = operators.missing(course.folder(graph) / "model.onnx", wanted)
    if not found:
        return None
    return f"onnxruntime {wanted} lacks {', '.join(found[:3])}"


def measure(
    course: Course, rows: Sequence[Candidate], beside: Sequence[session.Subject] = ()
) -> Measured:
    """Measure the rows in one run, the baseline first, and what is to be measured beside them."""
    asked = course.job.measure
    return session.measure(
        [*(subject(course, row) for row in rows), *beside],
        course.target,
        seed=course.job.run.seed,
        on_device=course.job.run.on_device,
        progress=course.progress,
        effort=session.Effort(seconds=asked.seconds, rounds=asked.rounds, runs=asked.runs),
    )


def encode_ms(course: Course, row: Candidate) -> Mapping[str, float]:
    """Time the encoder of a row, one example at a time, on real test rows."""
    step = encoded(row)
    task = plugins.find("tasks", course.facts.task, allow_code=True)
    encoder = task.open_encoder(course.folder(row.graph), step.settings["encoder"])
    examples = Rows(course.folder(step.inputs["rows.0"]))
    timed = [examples.example(index) for index in range(min(ENCODED, len(examples)))]
    return sample.time_each(lambda example: encoder.batch([encoder.encode(example)]), timed)


def judge(
    course: Course,
    row: Candidate,
    baseline: Candidate,
    split: str,
    temperature: float | None = None,
) -> Evaluation:
    """Judge the outputs of a row on one split, paired with the baseline's."""
    outputs, truth = outputs_of(course, row, split)
    theirs = None if row.name == baseline.name else outputs_of(course, baseline, split)[0]
    return evidence.evaluate(
        outputs,
        truth,
        theirs,
        task=plugins.find("tasks", course.facts.task, allow_code=True),
        metric=course.facts.metric,
        labels=course.facts.labels,
        temperature=temperature,
        seed=course.job.run.seed,
    )


def gain(course: Course, row: Candidate, other: Candidate, split: str) -> Interval:
    """Return by how many points a row scores above another on a split, paired."""
    outputs, truth = outputs_of(course, row, split)
    return evidence.gain(
        outputs,
        outputs_of(course, other, split)[0],
        truth,
        task=plugins.find("tasks", course.facts.task, allow_code=True),
        metric=course.facts.metric,
        seed=course.job.run.seed,
    )


def judge_own(course: Course, row: Candidate, baseline: Candidate, split: str) -> Evaluation | None:
    """Judge a row on the own rows of one split; None where there are none."""
    return judge(course, row, baseline, split) if split in row.own else None


def temperature(course: Course, row: Candidate) -> float:
    """Fit a row's temperature on validation."""
    return confidence.fit_temperature(*outputs_of(course, row, "validation"))


def outputs_of(course: Course, row: Candidate, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits (rows, labels) and the truth of an evaluated split."""
    named = {"train": row.train, "validation": row.validation, "test": row.test, **row.own}
    step = named[split]
    assert step is not None
    return read(course, step)


def read(course: Course, step: Step) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits and the truth that an evaluation left."""
    made = arrays.Arrays(course.folder(step))
    return made.stacked("logits"), np.asarray(made.stacked("truth"))


def train_score(course: Course, row: Candidate) -> Score | None:
    """Score the sample of training rows, for the gap to validation."""
    if row.train is None:
        return None
    outputs, truth = read(course, row.train)
    return evidence.score_of(
        outputs,
        truth,
        task=plugins.find("tasks", course.facts.task, allow_code=True),
        metric=course.facts.metric,
        seed=course.job.run.seed,
    )


def unseen(course: Course, row: Candidate) -> UnseenWords | None:
    """Judge a row on the test rows with words that no training row holds; None for images."""
    splits = course.facts.splits
    which = _unseen_rows(course.folder(splits["train"]), course.folder(splits["test"]))
    if which is None:
        return None
    baseline = course.plan.baseline
    outputs, truth = outputs_of(course, row, "test")
    theirs = None if row.name == baseline.name else outputs_of(course, baseline, "test")[0]
    return judging.unseen_words(outputs, truth, theirs, which)


@lru_cache(maxsize=2)  # a source never changes
def _unseen_rows(train: Path, test: Path) -> np.ndarray | None:
    seen, asked = Rows(train), Rows(test)
    if asked.kind != "text":
        return None
    texts = (" ".join(filter(None, map(example.get, seen.columns))) for example in seen.examples())
    found = (
        " ".join(filter(None, map(example.get, asked.columns))) for example in asked.examples()
    )
    return judging.holding(found, texts)


def encoded(row: Candidate) -> Step:
    """Return the step that encodes a row's test split."""
    step = row.test.inputs["rows.0"]
    assert isinstance(step, Step)
    return step


def digests(course: Course, row: Candidate) -> list[str]:
    """Return the digests of the test rows that the evidence file holds."""
    rows = Rows(course.folder(encoded(row).inputs["rows.0"]))
    return [evidence_digest(each) for each in rows.examples()]


def prove(course: Course, row: Candidate, made: bundle.Bundle) -> None:
    """Hold a reloaded bundle against the judged outputs of the test rows. Raises `BundleError`."""
    outputs, truth = outputs_of(course, row, "test")
    examples = Rows(course.folder(encoded(row).inputs["rows.0"])).examples()
    again = made.outputs(examples)
    why = unlike(outputs, again, truth)
    if why:
        raise BundleError(f"the bundle, reloaded, {why}: not shipped")


def unlike(judged: np.ndarray, again: np.ndarray, truth: np.ndarray) -> str | None:
    """Return why outputs (rows, labels) are not those that were judged, None where they are.

    Rounding apart, which another session or batch may bring; but not one answer that is right or
    wrong now and was not then.
    """
    before, after = ((each.argmax(axis=1) == truth) for each in (judged, again))
    alike = judging.alike(judged, again)
    if after.mean() != before.mean() or alike.reason:
        return (
            f"answers {100 * after.mean():.2f} % of the test rows rightly where "
            f"{100 * before.mean():.2f} % were judged ({alike.agreement:.2f} % the same, "
            f"{alike.other:.2f} % computed otherwise)"
        )
    return None


@dataclass(frozen=True)
class _Sample:
    """The timing sample of one encoding: real rows by length, then one of max_length."""

    folder: Path
    timed: int  # rows that are timed; the one after them is run for memory alone
    feeds: Sequence[Mapping[str, np.ndarray]]  # those that are timed


def _sample(course: Course, step: Step, graph: Step | Source) -> _Sample:
    rows = arrays.Arrays(course.folder(step))
    first = "input_ids" if "input_ids" in rows.names else rows.names[0]
    lengths = np.asarray(rows.lengths(first))
    task = plugins.find("tasks", course.facts.task, allow_code=True)
    encoder = task.open_encoder(course.folder(graph), step.settings["encoder"])
    runtime = course.target.runtime
    told = course.artifact(graph).facts["inputs"]
    shape = sessions.fixed_by([each["shape"] for each in told.values()])
    order = np.argsort(lengths, kind="stable")
    place = {int(index): at for at, index in enumerate(order)}

    def feed(mates: Sequence[Any]) -> dict[str, np.ndarray]:
        made = feeds_of.padded(mates, encoder, integers=runtime.integers, length=shape.length)
        return dict(made)

    feeds = []
    for index in sample.choose(lengths, seed=course.job.run.seed):
        at = min(place[index], max(0, len(order) - runtime.batch))
        mates = [index] if runtime.batch == 1 else order[at : at + runtime.batch].tolist()
        feeds.append(feed([rows.row(each) for each in mates]))
    golden = encoder.encode_many(task.golden(encoder, course.facts.labels))
    longest = max(golden, key=lambda row: sum(value.size for value in row.values()))
    folder = course.scratch / f"sample-{keys.key(step)[:16]}-{shape.length}"
    if not folder.exists():
        sample.write(folder, [*feeds, feed([longest] * runtime.batch)])
    return _Sample(folder, len(feeds), feeds)
