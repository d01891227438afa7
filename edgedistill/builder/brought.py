"""The models of a build: read, held against the rows, and brought into the store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill import plugins
from edgedistill.data import graph_files, graphs, models, split, starter
from edgedistill.errors import JobError, ModelError
from edgedistill.families import family_of, student_family
from edgedistill.job import Job
from edgedistill.planner import Model
from edgedistill.progress import silent
from edgedistill.records import Progress, Source
from edgedistill.store import Store
from edgedistill.target import Target
from edgedistill.train import outputs

SAMPLE = 5_000  # training rows whose lengths decide max_length
BESIDE = ("unlabelled", "own_train")  # read beside the training rows
LOOKED_AT = 500  # training rows whose pieces are held against the table of embeddings

Found = models.ModelFound | graphs.GraphFound
Keep = Callable[..., Source]


def keeper(store: Store | None, progress: Progress = silent) -> Keep:
    """Return what turns content into a Source: the store, or (for a plan) its name alone."""

    def keep(
        kind: str, digest: str, fill: Callable[[Path], Any], name: str = "", **facts: Any
    ) -> Source:
        if store is None:
            return Source(kind, digest, Path(digest), name, facts)
        return store.bring(kind, digest, fill, name=name, facts=facts, progress=progress)

    return keep


def graph(job: Job) -> graph_files.Opened | None:
    """Open the .onnx that a job names as its model; None where it names none."""
    if job.starter or not graph_files.is_graph(job.model.path):
        return None
    return graph_files.open(job.model.path, encoder=job.model.encoder)


def tried(
    graph: graph_files.Opened, job: Job, target: Target, data: split.DataSet, task: Any
) -> graphs.GraphFound:
    """Hold an opened .onnx against the task, the labels and the target. Raises `ModelError`."""
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


def named(found: Found, labels: Sequence[str]) -> Found:
    """Give the model's outputs their labels' names, where it has none of its own."""
    if isinstance(found, graphs.GraphFound):
        return found.named(labels)
    return models.named(found, labels)


def teacher(job: Job, task: str, scratch: Path) -> models.ModelFound:
    """Read the checkpoint that a job names first. Raises `JobError` or `ModelError`."""
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


def further(
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


def model(
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


def new_heads(students: Mapping[str, models.ModelFound], labels: Sequence[str]) -> Iterator[str]:
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


def all_foldable(job: Job, task: Any, teacher: Model, encoder: Path) -> None:
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


def students(
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
