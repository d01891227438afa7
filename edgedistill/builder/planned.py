"""Plan a job without running it: what would be done, in which order, what is in the store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgedistill import planner
from edgedistill.builder.course import steps_of
from edgedistill.builder.opening import open_job
from edgedistill.builder.prepare import job_filled, prepare
from edgedistill.job import Job
from edgedistill.records import Plan
from edgedistill.store import keys


@dataclass(frozen=True)
class Planned:
    """What a build would do."""

    job: Mapping[str, Any]
    plan: Plan
    lines_first: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    cached: frozenset[str]  # keys that lie in the store

    def record(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        return {
            "job": self.job,
            "warnings": list(self.warnings),
            "rows": [
                {"name": row.name, "role": row.role, "shape": dict(row.shape), "scheme": row.scheme}
                for row in self.plan.rows()
            ],
            "steps": [
                {
                    "stage": step.stage,
                    "key": keys.key(step),
                    "cached": keys.key(step) in self.cached,
                    "settings": step.settings,
                    "inputs": {name: keys.key(each) for name, each in step.inputs.items()},
                }
                for step in steps_of(self.plan.everyone())
            ],
        }

    def lines(self, *, verbose: bool = False, quiet: bool = False) -> Iterator[str]:
        """Tell the plan, a line a step."""
        if not quiet:
            for heading, text in self.lines_first:
                yield f"{heading:<11}{text}"
            for note in self.plan.notes:
                yield f"{'':<11}{note}"
            for warning in self.warnings:
                yield f"{'warning':<11}{warning}"
            yield ""
        auto = self.job["quantize"]["aware"] == "auto"
        spare = {row.name for row in self.plan.rows() if row.unaware and auto}
        users: dict[str, list[str]] = {}
        for row in self.plan.everyone():
            for step in steps_of([row]):
                users.setdefault(keys.key(step), []).append(row.name)
        for step in steps_of(self.plan.everyone()):
            key = keys.key(step)
            where = "in the store" if key in self.cached else "to do"
            if where == "to do" and spare.issuperset(users[key]):
                where = "if needed"
                if step.stage != "distill" and not verbose:
                    continue
            yield f"{step.stage:<11}{key[:12]}  {where:<13}{_for(users[key])}"
            if verbose:
                yield f"{'':<11}{json.dumps(step.settings, sort_keys=True)}"
        yield ""
        if all(row.training is None for row in self.plan.rows()):
            yield "nothing is trained: every row is measured, and int8 is kept where it pays"
            return
        yield (
            "students train in the objective's order until one is eligible; "
            "the control is that of the chosen one"
        )


def plan_job(job: Job) -> Planned:
    """Plan what the job asks for; runs nothing and writes nothing."""
    opened = open_job(job)
    prepared = prepare(job, opened.target, None, about_host=opened.store)
    plan = planner.propose(job, opened.target, prepared.facts)
    if not job.run.allow_code:  # keys import plugins: before the first one
        keys.refuse_strangers(steps_of(plan.everyone()))
    cached = frozenset(
        keys.key(step)
        for step in steps_of(plan.everyone())
        if opened.store.has(keys.key(step), step.stage)
    )
    return Planned(job_filled(job, prepared), plan, prepared.lines, prepared.warnings, cached)


def _for(names: list[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
