"""Prepare a build: read the rows and the models, match labels, decide what the host decides.

All that can be known wrong is said here, in the first seconds. With a store the sources are
brought into it; without one (`plan`) nothing is written.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill import plugins
from edgedistill.builder import given
from edgedistill.data import graphs, models, sources, split, starter
from edgedistill.errors import DataError, JobError, ModelError, nearest
from edgedistill.families import family_of, student_family
from edgedistill.job import Job
from edgedistill.judge import evidence
from edgedistill.planner import Facts, Host, Model
from edgedistill.records import Source
from edgedistill.store import Store, crew
from edgedistill.target import Target
from edgedistill.train import outputs, recipe

SAMPLE = 5_000  # training rows whose lengths decide max_length
BESIDE = ("unlabelled", "own_train")  # read beside the training rows
MUCH_CUT = 0.02  # of rows whose length had no say
LOOKED_AT = 500  # training rows whose pieces are held against the table of embeddings
LABELS_SHOWN = 10  # of a model that has no names for them


Found = models.ModelFound | graphs.GraphFound


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


def prepare(job: Job, target: Target, store: Store | None) -> Prepared:
    """Read what the job names. Raises `DataError`, `ModelError` or `JobError`."""
    refuse_code(job)
    given.refuse(job)
    how = recipe.read(job.recipe or "logits", allow_code=job.run.allow_code)
    graph = _graph(job)
    known = graph.labels or () if graph else ()
    data = (
        starter.data() if job.starter else sources.read(job.data, task=job.task.name, labels=known)
    )
    task = plugins.find("tasks", data.task, allow_code=job.run.allow_code)
    with tempfile.TemporaryDirectory(prefix="edgedistill-") as folder:
        scratch = Path(folder)
        found = (
            _tried(graph, job, target, data, task) if graph else _teacher(job, data.task, scratch)
        )
        labels = _labels(found, data, job.model.finetune)
        kept = found.has_head and job.model.finetune != "always"
        unnamed = kept and found.labels is None
        found = _named(found, labels) if kept else found
        _all_known(data, labels)
        metric, why = _metric(task, data, job.task.metric)
        keep = _keeper(store)
        teacher, cut = _model(found, data, task, job, keep, scratch)
        beside = list(_further(job, data.task, found, labels))
        further = tuple(_model(each, data, task, job, keep, scratch)[0] for each in beside)
        _all_foldable(job, task, teacher, scratch / found.encoder_digest[:16])
        others = dict(_students(job, data.task, found, scratch))
        students = {
            path: _model(other, data, task, job, keep, scratch)[0] for path, other in others.items()
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
        host=_host(job, target),
        recipe=how,
        students=students,
        starter=starter.SETTINGS if job.starter else {},
    )
    limited = "max_own_drop_points" in target.limits
    about = _About(data, found, facts, why, cut, job.run.private, unnamed, limited)
    warnings = (
        *data.warnings,
        *found.warnings,
        *(line for each in beside for line in each.warnings),
        *_new_heads(others, labels),
        *(_unused(data, labels) if graph else ()),
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


def _graph(job: Job) -> graphs.Opened | None:
    """Open the .onnx that a job names as its model; None where it names none."""
    if job.starter or not graphs.is_graph(job.model.path):
        return None
    return graphs.open(job.model.path, encoder=job.model.encoder)


def _tried(
    graph: graphs.Opened, job: Job, target: Target, data: split.DataSet, task: Any
) -> graphs.GraphFound:
    return graphs.read(
        graph,
        task,
        labels=len(data.labels()),
        onnxruntime=target.runtime.onnxruntime,
        processors=target.processors,
        batch=target.runtime.batch,
        pair="text_pair" in data.columns,
        inputs=job.model.inputs,
    )


def _named(found: Found, labels: Sequence[str]) -> Found:
    """Give the model's outputs their labels' names, where it has none of its own."""
    if isinstance(found, graphs.GraphFound):
        return found.named(labels)
    return models.named(found, labels)


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


Keep = Callable[..., Source]


def _keeper(store: Store | None) -> Keep:
    """Return what turns content into a Source: the store, or (for a plan) its name alone."""

    def keep(
        kind: str, digest: str, fill: Callable[[Path], Any], name: str = "", **facts: Any
    ) -> Source:
        if store is None:
            return Source(kind, digest, Path(digest), name, facts)
        return store.bring(kind, digest, fill, name=name, facts=facts)

    return keep


def _teacher(job: Job, task: str, scratch: Path) -> models.ModelFound:
    if job.starter:
        folder = scratch / "starter"
        folder.mkdir()
        starter.model(folder)
        return models.read(folder, task=task)
    if job.model.path is None:
        raise JobError("no model: name one with --model (a folder, a hub id), beside --data")
    return models.read(
        job.model.path,
        revision=job.model.revision,
        allow_pickle=job.run.allow_pickle,
        allow_code=job.run.allow_code,
        task=task,
    )


def _further(
    job: Job, task: str, first: Found, labels: Sequence[str]
) -> Iterator[models.ModelFound]:
    """Read the teachers beside the first. Raises `ModelError`: no head, other labels, the same."""
    seen = {first.digest: first.name}
    for path in job.model.teachers:
        found = models.read(
            path, allow_pickle=job.run.allow_pickle, allow_code=job.run.allow_code, task=task
        )
        if not found.has_head:
            raise ModelError(
                f"the teacher '{found.name}' has no head for these labels: fine-tune it on them "
                "first (only the first teacher gets its head here), or leave it out"
            )
        if found.labels is None and found.outputs == len(labels):  # LABEL_0, ...: in our order
            found = models.named(found, labels)
        names = found.labels or [f"LABEL_{index}" for index in range(found.outputs or 0)]
        outputs.columns(names, labels, teacher=found.name)
        if found.digest in seen:
            raise ModelError(f"the teachers '{seen[found.digest]}' and '{found.name}' are the same")
        seen[found.digest] = found.name
        yield found


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


def _model(
    found: Found,
    data: split.DataSet,
    task: Any,
    job: Job,
    keep: Keep,
    scratch: Path,
) -> tuple[Model, dict[str, float]]:
    """Return a model for the planner, and by split the share of rows that max_length cuts."""
    folder = scratch / found.encoder_digest[:16]
    found.write_encoder(folder)
    pair = "text_pair" in data.columns
    asked = job.task.max_length
    graph = found if isinstance(found, graphs.GraphFound) else None
    settings = task.encoder_settings(found.folder, None if graph else asked, pair=pair)
    settings = graph.encoding(settings, asked) if graph else settings
    cut: dict[str, float] = {}
    if "max_length" in settings:
        encoder = task.open_encoder(folder, settings)
        if asked is None:
            examples = _some(data.splits["train"].examples)
            length, cut["train"] = task.max_length_for(encoder, examples)
            settings = {**settings, "max_length": length}
        for name in (name for name in BESIDE if name in data.splits):
            lengths = encoder.lengths(_some(data.splits[name].examples))
            cut[name] = float((lengths > settings["max_length"]).mean())
    family = "" if graph else family_of(found.config)
    shape = plugins.find("families", family).shape(found.config) if family else {}
    if graph:
        longest = _longest(data.splits["train"].examples, task.open_encoder(folder, settings))
        graph.hold(task.open_encoder(folder, settings), longest)
    elif "max_length" in settings:
        _same_pieces(found.name, encoder, data.splits["train"].examples, shape.get("vocabulary"))
    model = Model(
        source=keep("graph" if graph else "model", found.digest, found.write, found.name),
        encoder_source=keep("encoder", found.encoder_digest, found.write_encoder, found.name),
        encoder=settings,
        config=found.config,
        family=family,
        shape=shape,
        has_head=found.has_head,
        labels=found.labels or (),
        given=found.given,
    )
    return model, cut


def _longest(examples: Sequence[Any], encoder: Any) -> Any:
    """Return the example with the most tokens; any image is as large as another."""
    if not hasattr(encoder, "lengths"):
        return examples[0]
    some = _some(examples)
    return some[int(np.argmax(encoder.lengths(some)))]


def _same_pieces(name: str, encoder: Any, examples: Sequence[Any], table: int | None) -> None:
    """Refuse a tokenizer that makes pieces which its model has no embeddings for."""
    if table is None:
        return
    step = max(1, -(-len(examples) // LOOKED_AT))
    looked = encoder.encode_many([examples[at] for at in range(0, len(examples), step)])
    largest = max(
        (int(row["input_ids"].max()) for row in looked if len(row["input_ids"])), default=0
    )
    if largest >= table:
        raise ModelError(
            f"'{name}': its tokenizer makes pieces up to {largest:,}, its model has embeddings for "
            f"{table:,}: they do not belong together"
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


def _new_heads(students: Mapping[str, models.ModelFound], labels: Sequence[str]) -> Iterator[str]:
    """Say of each student whose head is for other labels that it gets a new one."""
    for found in students.values():
        if found.has_head and sorted(found.labels or ()) != sorted(labels):
            few = (
                "without names" if found.labels is None else f"({', '.join(found.labels[:3])}, ...)"
            )
            yield (
                f"student '{found.name}': its head is for {found.outputs} other labels {few}; it "
                f"gets a new one for these {len(labels)}"
            )


def _all_foldable(job: Job, task: Any, teacher: Model, encoder: Path) -> None:
    """Refuse students whose vocabulary the teacher's encoder can't be cut down to."""
    for text in job.student.shapes:
        family = plugins.find("families", student_family(text, teacher.family))
        wanted = family.parse(text, teacher.shape).get("vocabulary")
        if wanted not in (None, teacher.shape.get("vocabulary")):
            try:
                task.check_fold(encoder, wanted, teacher.encoder)
            except ModelError as error:
                raise ModelError(f"student '{text}': {error}") from None


def _some(examples: Sequence[Any]) -> list[Any]:
    """Return at most `SAMPLE` examples, evenly spread."""
    step = max(1, -(-len(examples) // SAMPLE))
    return [examples[index] for index in range(0, len(examples), step)]


def _students(
    job: Job, task: str, teacher: Found, scratch: Path
) -> Iterator[tuple[str, models.ModelFound]]:
    """Read the students that come from other checkpoints or configs, by the path that named them.

    One without an encoder takes the teacher's. Raises `ModelError`.
    """
    for path in job.student.paths():
        found = models.read(
            path,
            allow_pickle=job.run.allow_pickle,
            allow_code=job.run.allow_code,
            task=task,
            student=True,
        )
        if not found.has_weights and job.student.init != "random":
            raise ModelError(
                f"student '{path}' is a config without weights: it can only start from random "
                "ones, which need far more rows; say so with --set student.init=random"
            )
        yield path, found if found.encoder else _encoded_by(found, teacher, scratch)


# What must be alike for a model to read what another's encoder makes, by names in config.json.
READ_ALIKE = ("vocab_size", "num_channels", "image_size")


def _encoded_by(found: models.ModelFound, teacher: Found, scratch: Path) -> models.ModelFound:
    """Give a student without an encoder the teacher's, where it can read what that makes."""
    for name in READ_ALIKE:
        ours, theirs = found.config.get(name), teacher.config.get(name)
        if ours != theirs and (name == "vocab_size" or None not in (ours, theirs)):
            raise ModelError(
                f"student '{found.name}' has no encoder of its own, and can't take the teacher's: "
                f"its {name} is {ours or 'not said'}, the teacher's {theirs or 'not said'}"
            )
    folder = scratch / f"student-{found.digest[:16]}"
    folder.mkdir(exist_ok=True)
    for file in teacher.folder.glob("*.json"):  # what the task reads beside the encoder's own file
        if file.name != "config.json" and not file.name.endswith(".index.json"):
            shutil.copyfile(file, folder / file.name)
    (folder / "config.json").write_text(json.dumps(dict(found.config)), encoding="utf-8")
    assert isinstance(teacher, models.ModelFound)  # an .onnx has no students
    return replace(models.encoded_by(found, teacher), folder=folder)


def _host(job: Job, target: Target) -> Host:
    from edgedistill.graph import operators
    from edgedistill.measure import host

    opset, ir = operators.caps(target.runtime.onnxruntime)
    return Host(
        threads=job.run.threads or _cores(),
        dtype="bfloat16" if host.multiplies_bfloat16() else "float32",
        device="cpu",
        instructions=host.instructions(),
        opset=min(opset, OPSET),
        ir=min(ir, IR),
        processes=crew.processes(),
    )


def _cores() -> int:
    """Return the cores that this process may use, its share where torchrun started several."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    here = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, cores // int(here)) if here.isdigit() and int(here) else cores


OPSET, IR = 17, 8  # the floor that runs everywhere; nothing that we write needs more


@dataclass(frozen=True)
class _About:
    """Tells what was found, as `plan` and `build` print it first."""

    data: split.DataSet
    found: Found
    facts: Facts
    why: str  # this metric
    cut: Mapping[str, float]  # share of the rows of a split that max_length cuts
    private: bool
    unnamed: bool  # the model's outputs have no names of their own
    own_limit: bool  # the drop on the own rows has a limit

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield headings and texts."""
        yield from self._rows()
        yield from self._teacher()
        yield "metric", f"{self.facts.metric.replace('_', ' ')} ({self.why})"
        yield "", evidence.can_show(self.facts.rows["test"])
        for pair, count in self.data.overlap.items():
            if count:
                yield "overlap", f"{count:,} rows of {pair} are the same inputs"

    def _rows(self) -> Iterator[tuple[str, str]]:
        data, facts = self.data, self.facts
        order = [name for name in split.SPLITS if name in facts.rows]
        rows = ", ".join(f"{facts.rows[name]:,} {name}" for name in order)
        columns = " + ".join(f"'{data.columns[c]}'" for c in data.columns if c != "label")
        shown = facts.labels[:4]
        labels = ", ".join(shown) + (", ..." if len(facts.labels) > len(shown) else "")
        yield (
            "task",
            f"{data.task} · {len(facts.labels)} labels ({labels}) · "
            f"{columns} -> '{data.columns.get('label', 'label')}' · {rows} rows",
        )
        yield from self._own()
        for row in () if self.private else data.preview:
            yield "", " | ".join(f"{name}: {value}" for name, value in row.items())[:110]
        every = (*order, *split.OWN)
        ours = [name.replace("_", " ") for name in every if data.origin.get(name) == "cut"]
        if ours:
            yield "", f"{' and '.join(ours)} cut by us, by the hash of each row's inputs"
        if data.ignored:
            yield "ignored", f"{', '.join(data.ignored)} (beside the splits, not used)"

    def _own(self) -> Iterator[tuple[str, str]]:
        if self.data.own is None:
            return
        name, columns = self.data.own
        rows = ", ".join(f"{self.facts.rows[each]:,} {each[4:]}" for each in split.OWN)
        inputs = " + ".join(f"'{columns[role]}'" for role in columns if role != "label")
        yield "own rows", f"{name} · {inputs} -> '{columns['label']}' · {rows} rows"
        yield "", f"own: {evidence.can_show(self.facts.rows['own_test'])}"
        if not self.own_limit:
            yield "", "no limit on their drop: --limit max_own_drop_points=2 sets one"

    def _teacher(self) -> Iterator[tuple[str, str]]:
        found, teacher = self.found, self.facts.teacher
        if found.given is not None:
            yield from given.lines(found.name, found.given, found.parameters, found.dtype)
        else:
            yield from self._checkpoint()
        length, cut = teacher.encoder.get("max_length"), self.cut
        if length:
            share = ""
            if "train" in cut:  # not where the user has named it
                share = f", which cuts {100 * cut['train']:.1f} % of the training rows"
            yield "", f"max_length {length}{share}"
            for name in (name for name in BESIDE if cut.get(name, 0) > MUCH_CUT):
                told = f"it cuts {100 * cut[name]:.1f} % of the {name.replace('_', ' ')} rows"
                yield "", f"{told}: --set task.max_length={2 * length} would cut fewer"
        if self.unnamed:
            labels = self.facts.labels
            yield "labels", "the model names none: its outputs are taken in this order"
            for index, label in enumerate(labels[:LABELS_SHOWN]):
                yield "", f"LABEL_{index:<4} {label}"
            if len(labels) > LABELS_SHOWN:
                yield "", f"and {len(labels) - LABELS_SHOWN} more"

    def _checkpoint(self) -> Iterator[tuple[str, str]]:
        found, teacher = self.found, self.facts.teacher
        family = plugins.find("families", teacher.family)
        head = "" if found.has_head else " · no head yet: it gets one first"
        kind = (found.config.get("architectures") or [found.model_type])[0]
        size = found.dtype
        if found.parameters:
            size = f"{found.parameters / 1e6:.1f} M · {found.dtype}"
        yield "teacher", f"{kind} · {family.name(teacher.shape)} · {size}{head}"
        for model in self.facts.further:
            family = plugins.find("families", model.family)
            text = f"{model.source.name} · {family.name(model.shape)} · beside the first"
            yield "", f"{text}, its logits averaged with the others'"


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
