"""A build under way: what its parts share, and the one way to run steps."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgedistill.job import Job
from edgedistill.planner import Facts
from edgedistill.records import Artifact, Candidate, Plan, Progress, Source, Step, Teacher
from edgedistill.store import Store, keys
from edgedistill.store.runner import Runner
from edgedistill.target import Target

TRAINED_ON = ("distill", "prune")  # stages that train what another may have trained before


@dataclass(frozen=True)
class Course:
    """One build: the job, its plan, where steps run, and when it began."""

    job: Job
    target: Target  # with the job's limits in place
    facts: Facts
    plan: Plan
    store: Store
    runner: Runner
    progress: Progress
    scratch: Path  # a temporary folder
    started: float = field(default_factory=time.monotonic)
    about: Mapping[str, str] = field(default_factory=dict)  # what a step is for, by its key
    made: dict[str, Artifact] = field(default_factory=dict)  # what this build used, by key
    _told: set[str] = field(default_factory=set)  # keys of steps that were said to be there

    def run(self, *steps: Step | Source | None) -> None:
        """Make the steps and all that they need, unless they lie in the store."""
        wanted = [step for step in steps if isinstance(step, Step)]
        self._keep(self.runner.run(wanted, self._named))

    def run_both(self, first: Step, second: Step) -> None:
        """Make two steps at the same time."""
        self._keep(self.runner.run_both(first, second, self._named))

    def estimate(self, step: Step) -> float:
        """Return how many seconds a step would take here; 0 where its stage can't say."""
        return self.runner.estimate(step, self._named) or 0.0

    def _keep(self, artifacts: Iterable[Artifact]) -> None:
        for artifact in artifacts:
            self.made.setdefault(artifact.key, artifact)

    def _named(self, event: Mapping[str, Any]) -> None:
        """Pass an event on, with what its step is for; that a step is there is told once."""
        key = event.get("key", "")
        if event["kind"] == "end":
            if event["cached"] and key in self._told:
                return
            self._told.add(key)
        about = self.about.get(key)
        self.progress({**event, "about": about} if about else event)

    def folder(self, thing: Step | Source) -> Path:
        """Return where a source or a step that was run lies."""
        return thing.path if isinstance(thing, Source) else self.made[keys.key(thing)].path

    def artifact(self, step: Step | Source) -> Artifact:
        return self.made[keys.key(step)]

    def left(self) -> float:
        """Return the seconds left of the time limit."""
        return self.job.run.seconds() - (time.monotonic() - self.started)

    def tell(self, heading: str, text: str) -> None:
        self.progress({"kind": "line", "about": heading, "text": text})

    def note(self, text: str) -> None:
        self.progress({"kind": "note", "text": text})


def begun(row: Candidate) -> Step | Source | None:
    """Return what a row's student was before any training; None where nothing was trained."""
    step: Step | Source | None = row.training
    while isinstance(step, Step) and step.stage in TRAINED_ON:
        step = step.inputs["student.0"]
    return step


def evaluated(row: Candidate) -> tuple[Step | None, ...]:
    """Return the evaluations of a row, on every split."""
    return (row.train, row.validation, row.test, *row.own.values())


def steps_of(rows: Iterable[Candidate | Teacher], *, untrained: bool = True) -> list[Step]:
    """Return the steps of rows, inputs first, each once; those of untrained graphs too."""
    seen: dict[int, Step] = {}

    def visit(thing: Step | Source) -> None:
        if isinstance(thing, Source) or id(thing) in seen:
            return
        for each in thing.inputs.values():
            visit(each)
        seen[id(thing)] = thing

    for row in rows:
        ends: tuple[Step | Source | None, ...] = (row.train, row.validation)
        if isinstance(row, Candidate):
            first = row.untrained if untrained else None
            ends = (first, row.graph, *ends, row.test, *row.own.values(), row.fixed)
        for thing in ends:
            if thing is not None:
                visit(thing)
    return list(seen.values())
