"""Choose: which of several starts a student is trained from, by a short training of each.

Bottom layers or evenly spread ones both win somewhere (sentence-transformers, TextBrewer, 2020), so
a few hundred steps decide instead of habit. What is written is the winner's untrained start. On
CLINC150, 2 of 6 layers, after 120 steps (after 480): 0, 1 88.6 (93.7); 0, 3 90.7; 0, 5 92.7 (95.0);
4, 5 91.7; 16 seconds of one thread each.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedistill import plugins as doors
from edgedistill.progress import silent
from edgedistill.records import Progress
from edgedistill.settings import setting
from edgedistill.stages import indexed
from edgedistill.train.pace import Training

INPUTS = {"student": "model", "train": "arrays", "labels": "arrays", "validation": "arrays"}
OUTPUT = "model"
ESTIMATES_WITHOUT = ("labels",)
PACKAGES = ("torch", "transformers", "safetensors", "numpy")
LOSS = "soft_labels"  # what the teacher answers is all that a short training needs


@dataclass(frozen=True)
class Settings(Training):
    """The settings of this stage: those of a training, short and without an average."""

    steps: int = setting(120, "batches that each start is trained on", low=1)
    average: str = setting("none", "averaged weights beside the raw", choices=("none", "ema"))
    task: str = setting("text-classification", "the task, by name")
    family: str = setting("encoder", "the family, by name")
    encoder: Mapping[str, Any] = setting({}, "settings of the task's encoder")
    temperature: float = setting(4.0, "of the soft labels", low=0.05, high=100)
    names: tuple[str, ...] = setting((), "what the starts are called, in their order")
    rows: int = setting(1000, "validation rows to score on, evenly spread", low=1)


def plugins(settings: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Name the plugins that a step with these settings uses."""
    return [("tasks", settings["task"]), ("families", settings["family"]), ("losses", LOSS)]


def run(
    inputs: Mapping[str, Path], settings: Settings, out: Path, progress: Progress
) -> Mapping[str, Any]:
    """Train each start alike on the teacher's soft labels; write the best one as it was before.

    Of equal scores the first wins: the family's own habit. Facts: starts [{name, score, seconds}]
    in their order, chosen (a name), said (one line for people).
    """
    from edgedistill.train import loop, weights

    starts = indexed(inputs, "student")
    table: list[dict[str, Any]] = []
    for index, folder in enumerate(starts):
        begun = time.monotonic()
        model, work = _work(inputs, folder, settings, out / ".resume" / str(index), progress)
        score = loop.fit(model, work).score
        took = round(time.monotonic() - begun, 1)
        table.append({"name": _name(settings, index), "score": score, "seconds": took})
    sign = 1 if doors.find("tasks", settings.task, allow_code=True).HIGHER_IS_BETTER else -1
    best = max(range(len(table)), key=lambda index: sign * table[index]["score"])
    for file in sorted(starts[best].iterdir()):
        if file.is_file() and file.name not in ("artifact.json", "source.json"):
            shutil.copyfile(file, out / file.name)
    scores = ", ".join(f"{one['name']} {one['score']:.1f}" for one in table)
    said = f"starts from {table[best]['name']}: {scores} after {settings.steps} steps"
    progress({"kind": "note", "text": said})
    return {
        "starts": table,
        "chosen": table[best]["name"],
        "said": said,
        "parameters": weights.parameters(model),
    }


def estimate(inputs: Mapping[str, Path], settings: Settings, scratch: Path) -> float:
    """Time some steps of the first start; return the seconds that `run` will take."""
    from edgedistill.train import loop

    starts = indexed(inputs, "student")
    work = _work(inputs, starts[0], settings, scratch / ".resume", silent)
    return len(starts) * loop.seconds(*work)


def _name(settings: Settings, index: int) -> str:
    return settings.names[index] if index < len(settings.names) else f"start {index}"


def _work(
    inputs: Mapping[str, Path], folder: Path, settings: Settings, resume: Path, progress: Progress
) -> tuple[Any, Any]:
    """Return a start's model, and the loop's `Work`: one validation, at the end."""
    from edgedistill.train import loop, objective, outputs, signals, weights
    from edgedistill.train.batches import Examples

    outputs.prepare(settings.threads)
    task: Any = doors.find("tasks", settings.task, allow_code=True)
    family: Any = doors.find("families", settings.family, allow_code=True)
    shape = family.shape(weights.config_of(folder))
    model = weights.load(folder, task, dropout=settings.dropout)
    examples = Examples(indexed(inputs, "train"), indexed(inputs, "labels"))
    if examples.labels:
        read: Any = signals.Cached(examples, settings.device).read
    else:  # an estimate is made before there are any
        read = signals.Zeros(model.config.num_labels, settings.device).read
    training = dataclasses.replace(settings, evaluate_every=settings.steps, patience=0)
    work = loop.Work(
        task=task,
        encoder=task.open_encoder(folder, settings.encoder),
        examples=examples,
        validation=Examples(indexed(inputs, "validation")).few(settings.rows),
        terms=objective.terms(
            {LOSS: {"weight": 1.0}},
            alpha=1.0,
            temperature=settings.temperature,
            student=shape,
            teacher=shape,
        ),
        training=training,
        resume=resume,
        teacher=read,
        family=family,
        progress=progress,
    )
    return model, work
