"""Prepare a build: read the rows and the models, match labels, decide what the host decides.

All that can be known wrong is said here, in the first seconds. With a store the sources are
brought into it; without one (`plan`) nothing is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgedistill import plugins
from edgedistill.builder import brought, given
from edgedistill.builder.about import About
from edgedistill.builder.brought import Found
from edgedistill.data import models, sources, split, starter
from edgedistill.errors import DataError, JobError, nearest
from edgedistill.job import Job
from edgedistill.planner import Facts, Host
from edgedistill.progress import silent
from edgedistill.records import Progress
from edgedistill.store import Store, crew
from edgedistill.target import Target
from edgedistill.train import recipe


@dataclass(frozen=True)
class Prepared:
    """The facts for the planner, and what people are told about them."""

    facts: Facts
    data: split.DataSet
    model: Found
    metric_reason: str
    lines: tuple[tuple[str, str], ...]  # (heading, text)
    warnings: tuple[str, ...]

    def seen_by_teacher(self, split: str = "test") -> bool:
        """Say whether a teacher may have been trained on the rows of a split, since we cut it."""
        cut = self.data.origin.get(split) == "cut"
        trained = self.facts.teacher.has_head or bool(self.facts.further)
        return cut and trained and not self.starter

    @property
    def starter(self) -> bool:
        return bool(self.facts.starter)


def prepare(
    job: Job,
    target: Target,
    store: Store | None,
    *,
    about_host: Store | None = None,
    progress: Progress = silent,
) -> Prepared:
    """Read what the job names. Raises `DataError`, `ModelError` or `JobError`.

    Without a store nothing is written and nothing timed; `about_host` remembers what
    a build found of this host.
    """
    refuse_code(job)
    given.refuse(job)
    how = recipe.read(job.recipe or "logits", allow_code=job.run.allow_code)
    graph = brought.graph(job)
    data = (
        starter.data()
        if job.starter
        else sources.read(job.data, task=job.task.name, labels=graph.labels or () if graph else ())
    )
    task = plugins.find("tasks", data.task, allow_code=job.run.allow_code)
    with tempfile.TemporaryDirectory(prefix="edgedistill-") as folder:
        scratch = Path(folder)
        found = (
            brought.tried(graph, job, target, data, task)
            if graph
            else brought.teacher(job, data.task, scratch)
        )
        data = _by_name(data, found, job.model.finetune)
        labels = _labels(found, data, job.model.finetune)
        kept = found.has_head and job.model.finetune != "always"
        unnamed = kept and found.labels is None
        found = brought.named(found, labels) if kept else found
        _all_known(data, labels)
        metric, why = _metric(task, data, job.task.metric)
        keep = brought.keeper(store, progress)
        teacher, cut = brought.model(found, data, task, job, keep, scratch)
        beside = list(brought.further(job, data.task, found, labels))
        further = tuple(brought.model(each, data, task, job, keep, scratch)[0] for each in beside)
        brought.all_foldable(job, task, teacher, scratch / found.encoder_digest[:16])
        others = dict(brought.students(job, data.task, found, scratch))
        students = {
            path: brought.model(other, data, task, job, keep, scratch)[0]
            for path, other in others.items()
        }
        splits = {
            name: keep("rows", part.digest, part.write, _place(data, name))
            for name, part in data.splits.items()
        }
    facts = Facts(
        task=data.task,
        metric=metric,
        labels=tuple(labels),
        rows={name: len(part) for name, part in data.splits.items()},
        splits=splits,
        teacher=teacher,
        further=further,
        host=_host(job, target, store or about_host, probe=store is not None),
        recipe=how,
        students=students,
        starter=starter.SETTINGS if job.starter else {},
    )
    limited = "max_own_drop_points" in target.limits
    about = About(data, found, facts, why, cut, job.run.private, unnamed, limited)
    warnings = (
        *data.warnings,
        *found.warnings,
        *(line for each in beside for line in each.warnings),
        *brought.new_heads(others, labels),
        *(_unused(data, labels) if graph else ()),
        *_newer(target),
    )
    return Prepared(facts, data, found, why, tuple(about.lines()), warnings)


def _place(data: split.DataSet, name: str) -> str:
    """Name a split for people: "clinc150/train"."""
    own = data.own and name in split.OWN
    return f"{data.own[0]}/{name[4:]}" if data.own and own else f"{data.name}/{name}"


def refuse_code(job: Job) -> None:
    """Refuse every .py file that the job names, unless it may run: before anything imports it."""
    if job.run.allow_code:
        return
    for kind, name in _named_code(job):
        plugins.find(kind, name)  # raises, and runs nothing


def _named_code(job: Job) -> Iterator[tuple[str, str]]:
    kinds = {"task": "tasks", "family": "families", "scheme": "schemes", "losses": "losses"}
    told: list[tuple[str, Any]] = [("tasks", job.task.name), ("schemes", job.quantize.schemes)]
    for values in job.stages.values():
        told += [(kinds.get(name, "stages"), value) for name, value in values.items()]
    for kind, value in told:
        texts = [value] if isinstance(value, str) else value
        for text in texts if isinstance(texts, (list, tuple, Mapping)) else ():
            if isinstance(text, str) and text.endswith(".py"):
                yield kind, text


def _by_name(data: split.DataSet, found: Found, finetune: str) -> split.DataSet:
    """Give rows whose labels are the numbers of the model's outputs the names of those."""
    known = found.labels if finetune != "always" else None
    names = models.by_number(data.labels(), known)
    if not names:
        return data

    def named(part: split.Split) -> split.Split:
        if part.truth is None:
            return part
        told = json.dumps([part.digest, names], sort_keys=True)
        truth = [names.get(label, label) for label in part.truth]
        return replace(part, truth=truth, digest=hashlib.sha256(told.encode()).hexdigest())

    some = ", ".join(f"{number} is '{name}'" for number, name in list(names.items())[:SHOWN])
    some += ", ..." if len(names) > SHOWN else ""
    note = f"the rows' labels are numbers, taken as those of the model's outputs: {some}"
    return replace(
        data,
        splits={name: named(part) for name, part in data.splits.items()},
        preview=[{**row, "label": names.get(row["label"], row["label"])} for row in data.preview],
        warnings=(*data.warnings, note),
    )


def _labels(found: Found, data: split.DataSet, finetune: str) -> list[str]:
    """Return the labels in the order of the outputs; a head that is trained anew takes ours."""
    return data.labels() if finetune == "always" else models.labels(found, data.labels())


def _metric(task: Any, data: split.DataSet, asked: str | None) -> tuple[str, str]:
    """Return the metric to judge by, and why."""
    if asked is None:
        metric, why = task.default_metric(Counter(data.splits["train"].truth or ()))
        return metric, why or "labels are about even"
    if asked not in task.METRICS:
        raise JobError(f"task.metric: unknown metric '{asked}': {nearest(asked, task.METRICS)}")
    return asked, "as asked"


def _all_known(data: split.DataSet, labels: list[str]) -> None:
    """Refuse rows of other splits whose label has no training row or no output."""
    known = set(labels)
    for name, part in data.splits.items():
        unknown = Counter(label for label in part.truth or () if label not in known)
        if unknown:
            label, count = unknown.most_common(1)[0]
            first = next(i for i, each in enumerate(part.truth or ()) if each == label) + 1
            total = sum(unknown.values())
            raise DataError(
                f"{data.name}/{name}: {total:,} rows carry a label that no training row has, "
                f"such as '{label}' ({count} rows, the first is row {first})"
            )


def _unused(data: split.DataSet, labels: Sequence[str]) -> Iterator[str]:
    """Say what rows are good for where nothing is trained."""
    if "unlabelled" in data.splits:
        yield "the rows without labels are not used: nothing is trained"
    shown = set(data.splits["train"].truth or ())
    absent = [label for label in labels if label not in shown]
    if absent:
        some = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        yield f"{len(absent)} of {len(labels)} labels have no training row to calibrate on: {some}"


def _host(job: Job, target: Target, known: Store | None, *, probe: bool) -> Host:
    from edgedistill.graph import operators
    from edgedistill.measure import host
    from edgedistill.train.host import host_dtype

    opset, ir = operators.caps(target.runtime.onnxruntime)
    memory = known.root / "host.json" if known else None
    devices = {told.get("device") for told in job.stages.values()}
    return Host(
        threads=job.run.threads or _cores(),
        dtype=host_dtype(memory, probe=probe),
        device="cpu",
        instructions=host.instructions(),
        opset=min(opset, OPSET),
        ir=min(ir, IR),
        processes=crew.processes(),
        gpu_dtype=host_dtype(memory, probe=probe, device="cuda")
        if "cuda" in devices
        else "float32",
    )


def _newer(target: Target) -> Iterator[str]:
    """Say that a target's runtime is newer than the table of what runtimes can run."""
    from edgedistill.graph import operators

    asked, newest = target.runtime.onnxruntime, operators.runtimes()[-1]
    if [int(part) for part in asked.split(".")[:2]] > [int(part) for part in newest.split(".")]:
        yield (
            f"target '{target.name}' names onnxruntime {asked}, newer than any that is known here: "
            f"what it can run is taken to be what {newest} can"
        )


def _cores() -> int:
    """Return the cores that this process may use, its share where torchrun started several."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    here = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, cores // int(here)) if here.isdigit() and int(here) else cores


SHOWN = 5  # labels that a note names
OPSET, IR = 17, 8  # the floor that runs everywhere; nothing that we write needs more


def job_filled(job: Job, prepared: Prepared) -> dict[str, Any]:
    """Return the job with everything inferred filled in; feeding it back gives the same plan."""
    filled = job.plain()
    facts = prepared.facts
    if prepared.starter:
        return filled
    filled["task"] |= {"name": facts.task, "metric": facts.metric}
    if "max_length" in facts.teacher.encoder:
        filled["task"]["max_length"] = facts.teacher.encoder["max_length"]
    for role, column in prepared.data.columns.items():
        if role in filled["data"]:
            filled["data"][role] = column
    filled["run"]["threads"] = facts.host.threads
    return filled
