"""Rank recipes, shapes and settings of distillation: train each, score the int8 file that ships.

    python benchmarks/rank.py --model M --data D --student 2 --student 1 \\
        --recipe logits --recipe hybrid --vary none --vary distill.dropout=0 --seed 0

One line a combination: scores on validation and test (accuracy of the int8 file, points), its
control's (the same on labels alone) with --control, and the minutes of training. Rank by
validation; the test column is for the report. "from T" is how far the answers on validation are
from the teacher's (mean KL divergence, thousandths of a nat): two trainings that differ by chance
alone differ less in it than in their scores. Everything lies in the store: a second run of the
same command trains nothing.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgedistill import job as jobs
from edgedistill import planner, plugins
from edgedistill.builder.opening import open_job
from edgedistill.builder.prepare import prepare
from edgedistill.cli import run
from edgedistill.data import arrays
from edgedistill.records import Artifact, Candidate, Source, Step
from edgedistill.store import keys
from edgedistill.store.runner import Runner

COLUMNS = ("student", "recipe", "varied", "seed", "role", "validation", "from T", "test", "gap",
           "steps", "minutes", "MB")  # fmt: skip


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--model", help="default, without --data: the network and digits that ship")
@click.option("--data")
@click.option("--target", default="phone")
@click.option("--student", multiple=True, default=("2",))
@click.option("--recipe", multiple=True, default=("logits",))
@click.option("--vary", multiple=True, default=("none",), help="settings, comma between: a=1,b=2")
@click.option("--seed", multiple=True, type=int, default=(0,))
@click.option("--control", is_flag=True, help="train each one's twin on the labels alone too")
@click.option("--threads", type=int, default=None, help="in all; two trainings share them")
@click.option("--json", "as_json", is_flag=True)
def main(**told: Any) -> None:
    """Train and score every combination, two at a time where there are threads for both."""
    asked = (told[name] for name in ("student", "recipe", "vary", "seed"))
    tried = [each for one in itertools.product(*asked) for each in _combination(told, *one)]
    if not tried:
        raise click.ClickException("no student has a quantized row: leave quantize.schemes out")
    if not told["as_json"]:
        print(_line(COLUMNS))
    trainings = {keys.key(each.training): each.training for each in tried}
    left = list(trainings)
    with Runner(tried[0].store, threads=tried[0].threads) as runner:
        for each in tried:
            if keys.key(each.training) in left[:1]:
                pair, left = [trainings[key] for key in left[:2]], left[2:]
                if sum(step.settings["threads"] for step in pair) <= runner.threads:
                    runner.run_both(pair[0], pair[-1], _quiet)
            found = each.names | _row(each, runner)
            print(json.dumps(found) if told["as_json"] else _line(found.values()), flush=True)


@dataclass(frozen=True)
class Tried:
    """One combination, or its control."""

    names: dict[str, Any]  # as the table has them
    row: Candidate
    training: Step
    teacher: Candidate
    store: Path
    threads: int  # of the host


def _combination(
    told: dict[str, Any], student: str, recipe: str, vary: str, seed: int
) -> Iterator[Tried]:
    """Plan one combination, and its control."""
    settings = [
        *((f"{name}.path", told[name]) for name in ("model", "data") if told[name]),
        ("student.shapes", student),
        ("distill.recipe", recipe),
        ("run.seed", seed),
    ]
    if told["threads"]:
        settings.append(("run.threads", told["threads"]))
    if vary != "none":
        settings += [
            (name, value) for name, _, value in (v.partition("=") for v in vary.split(","))
        ]
    job = jobs.make({}, settings, target=told["target"])
    opened = open_job(job)
    prepared = prepare(job, opened.target, opened.store)
    plan = planner.propose(job, opened.target, prepared.facts)
    roles = {"candidate": "student"} | ({"control": "control"} if told["control"] else {})
    for row in plan.rows():
        if row.unaware and job.quantize.aware != "always":
            continue  # an answer to what is measured: only a build knows whether it is needed
        if row.role in roles and row.scheme != "none" and row.training is not None:
            names = {"student": student, "recipe": recipe, "varied": vary, "seed": seed}
            names["role"] = roles[row.role]
            threads = prepared.facts.host.threads
            yield Tried(names, row, row.training, plan.baseline, opened.store.root, threads)


def _row(tried: Tried, runner: Runner) -> dict[str, Any]:
    """Make what a row needs, and return what it measured."""
    row = tried.row
    began = time.monotonic()
    runner.run([row.validation, row.test], _quiet)
    training = _artifact(runner, tried.training)
    graph = _artifact(runner, row.graph)
    print(f"# {row.name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    validation = _score(runner, row.validation)
    facts = training.facts
    gap = facts.get("train_score")
    return {
        "validation": round(validation, 2),
        "from T": round(_distance(runner, row.validation, tried.teacher.validation), 1),
        "test": round(_score(runner, row.test), 2),
        "gap": round(gap - facts["best"]["score"], 2) if gap is not None else None,
        "steps": facts["steps"],
        "minutes": round(training.seconds / 60, 1),
        "MB": round((graph.path / "model.onnx").stat().st_size / 1e6, 1),
    }


def _artifact(runner: Runner, step: Step | Source) -> Artifact:
    assert isinstance(step, Step)
    return next(each for each in runner.run([step], _quiet) if each.key == keys.key(step))


def _score(runner: Runner, step: Step) -> float:
    """Score evaluated outputs by the task's first metric, in points."""
    task: Any = plugins.find("tasks", step.settings.get("task") or _task(step))
    found = arrays.Arrays(_artifact(runner, step).path)
    truth = found.stacked("truth")
    sums = task.statistics(found.stacked("logits"), truth, task.METRICS[0]).sums()
    return float(task.score(sums, task.METRICS[0]))


def _distance(runner: Runner, step: Step, teacher: Step) -> float:
    """Return the mean KL divergence of the teacher's answers from a student's, in thousandths."""
    ours, theirs = (
        _log_softmax(arrays.Arrays(_artifact(runner, each).path).stacked("logits"))
        for each in (step, teacher)
    )
    return float(1000 * (np.exp(theirs) * (theirs - ours)).sum(axis=-1).mean())


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def _task(step: Step) -> str:
    rows = step.inputs["rows.0"]
    assert isinstance(rows, Step)
    return str(rows.settings["task"])


def _quiet(event: Any) -> None:
    """Say nothing: the table is the output."""


def _line(cells: Any) -> str:
    widths = (12, 10, 30, 4, 8, 10, 6, 6, 6, 6, 7, 5)
    return "  ".join(
        f"{'-' if c is None else c!s:<{w}}" for c, w in zip(cells, widths, strict=True)
    )


if __name__ == "__main__":
    run(main, "rank.py")
