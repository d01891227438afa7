"""Prune: leave out what a trained student needs least, in rounds, and distill it again after each.

Units (feed-forward channels, heads, channels of convolutions, whole layers) are weighed on training
rows by the loss that trains the student; see `train.importance`. What is left is a plain, smaller
model.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedistill import plugins as doors
from edgedistill.errors import InternalError
from edgedistill.progress import silent
from edgedistill.records import Progress, Shape
from edgedistill.settings import setting
from edgedistill.stages import _lesson

INPUTS = _lesson.INPUTS
OUTPUT = "model"
ESTIMATES_WITHOUT = _lesson.ESTIMATES_WITHOUT
PACKAGES = _lesson.PACKAGES
plugins = _lesson.plugins
PLANNED = ("epochs",)  # what a job may say beside the settings: the planner makes steps of it
DONE = "facts.json"  # written last of a finished round


@dataclass(frozen=True)
class Settings(_lesson.Settings):
    """The settings: those of the training between rounds, and how much is left."""

    shape: Mapping[str, int] = setting({}, "what is left, as the family names dimensions")
    rounds: int = setting(3, "in how many steps it is pruned, each with its share", low=1, high=100)
    rows: int = setting(2048, "training rows that units are weighed on, a round", low=16)


def run(
    inputs: Mapping[str, Path], settings: Settings, out: Path, progress: Progress
) -> Mapping[str, Any]:
    """Write the pruned student.

    Facts: rounds [{shape, layers, parameters, best, steps}], best {score, from_teacher, step,
    weights} of the last round, steps of all, train_score, rows, parameters, shape.
    """
    from edgedistill.train import weights

    resume = out / ".resume"
    model, rounds, last = _pruned(inputs, settings, resume, progress)
    gap = _lesson.train_score(model, last)
    weights.save(model, out, beside=inputs["student.0"])
    return {
        "best": rounds[-1]["best"],
        "steps": sum(each["steps"] for each in rounds),
        "history": rounds[-1]["history"],
        "rounds": [{n: v for n, v in each.items() if n != "history"} for each in rounds],
        "shape": dict(settings.shape),
        "train_score": gap,
        "rows": len(last.examples),
        "parameters": weights.parameters(model),
    }


def estimate(inputs: Mapping[str, Path], settings: Settings, scratch: Path) -> float:
    """Time some steps on the real rows, of the whole student; return the seconds of all rounds."""
    from edgedistill.train import loop

    _, *shapes = _shapes(inputs, settings)
    model = _lesson.student(inputs, settings)
    share = _share(settings, 0, len(shapes))
    some = model.config.num_labels
    part = scratch / ".resume"
    work = _lesson.work(inputs, share, part, silent, stand_in=some)
    each = loop.seconds(model, work)
    weighed = min(settings.rows, len(work.examples)) / (share.steps * share.batch)
    return each * len(shapes) * (1 + weighed)


def follow(inputs: Mapping[str, Path], settings: Settings, resume: Path) -> None:
    """Train along as one of several processes; the first one runs `run`, with this `.resume`."""
    _pruned(inputs, settings, resume, silent, leads=False)


def _pruned(
    inputs: Mapping[str, Path],
    settings: Settings,
    resume: Path,
    progress: Progress,
    *,
    leads: bool = True,
) -> tuple[Any, list[dict[str, Any]], Any]:
    """Prune and train, round by round; return the model, facts of the rounds, and the last `Work`.

    A finished round lies in `resume` and is not run again; the next goes on from what was written,
    whether it was run now or before, so both end with the same bytes.
    """
    from edgedistill.train import importance, loop, weights

    task: Any = doors.find("tasks", settings.task, allow_code=True)
    family: Any = doors.find("families", settings.family, allow_code=True)
    whole, *shapes = _shapes(inputs, settings)
    model, told = _lesson.student(inputs, settings), []
    for index, shape in enumerate(shapes):
        done = resume / f"pruned-{index}"
        part = resume / f"round-{index}"
        share = _share(settings, index, len(shapes))
        work = _lesson.work(inputs, share, part, progress, shape=shape)
        final = index == len(shapes) - 1
        if not (done / DONE).is_file():
            if leads:
                said = f"prunes {family.name(whole)} to {family.name(shape, whole)}"
                which = f" (round {index + 1} of {len(shapes)})"
                progress({"kind": "note", "text": said + (which if len(shapes) > 1 else "")})
            worth = importance.measure(model, work, rows=settings.rows, draw=index)
            model, kept = family.prune(model, shape, worth)
            if not leads:  # the first gives all its weights when a round begins: shapes will do
                loop.fit(copy.deepcopy(model), work)
                continue
            fitted = loop.fit(model, work)
            facts = {"shape": dict(shape), **kept, "parameters": weights.parameters(model)}
            told.append({**facts, **fitted.facts()})
            if not final:
                _keep(model, done, told[-1], beside=inputs["student.0"])
                shutil.rmtree(part, ignore_errors=True)
        else:
            told.append(json.loads((done / DONE).read_text()))
        if not final:
            model = weights.load(done, task, dropout=settings.dropout)
    return model, told, work


def _keep(model: Any, done: Path, facts: Mapping[str, Any], *, beside: Path) -> None:
    """Write what a round left, its facts last."""
    from edgedistill.train import weights

    shutil.rmtree(done, ignore_errors=True)
    weights.save(model, done, beside=beside)
    aside = done / f"{DONE}.partial"
    aside.write_text(json.dumps(facts))
    aside.replace(done / DONE)


def _shapes(inputs: Mapping[str, Path], settings: Settings) -> list[Shape]:
    """Return the student's shape, and what each round leaves; one that leaves all is no round."""
    from edgedistill.train import weights

    family: Any = doors.find("families", settings.family, allow_code=True)
    config = weights.config_of(inputs["student.0"])
    whole, target = family.shape(config), dict(settings.shape)
    found = [whole]
    for index in range(settings.rounds):
        shape = target
        if index < settings.rounds - 1:
            shape = family.between(whole, target, (index + 1) / settings.rounds, config)
        if dict(shape) != dict(found[-1]):
            found.append(shape)
    if len(found) == 1:
        raise InternalError("a step prunes nothing: its shape is the student's own")
    return found


def _share(settings: Settings, index: int, rounds: int) -> Settings:
    """Return the settings of one round's training: its share of the steps."""
    steps = settings.steps * (index + 1) // rounds - settings.steps * index // rounds
    return dataclasses.replace(settings, steps=max(1, steps))
