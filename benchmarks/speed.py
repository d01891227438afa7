"""Training speed: our loop against a plain one with the teacher in it, alternating in one run.

    python benchmarks/speed.py --model M --data D --student 2

The same teacher, student, rows and batch on both sides (peers/plain_loop.py, peers/our_loop.py), a
process each; they are told in turn to train a block of steps, so that only one runs at a time. The
labels are made first, in the store; their time counts in the whole run and is told apart. FLOPs are
counted from shapes, of real tokens and of what an answer takes (of the last layer every token's
key and value, and the rest for the first): 6 a weight of a matrix and token, forward and backward,
and 12 a layer, width and pair of tokens for attention. Ends with one line of JSON.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgedistill import job as jobs
from edgedistill import planner, plugins
from edgedistill.builder.opening import open_job
from edgedistill.builder.prepare import prepare
from edgedistill.cli import run
from edgedistill.data.arrays import Arrays
from edgedistill.records import Source, Step
from edgedistill.settings import coerce
from edgedistill.store import keys
from edgedistill.store.runner import Runner
from edgedistill.train import pace

PEERS = Path(__file__).with_name("peers")


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--model", required=True)
@click.option("--data", required=True)
@click.option("--student", default="2")
@click.option("--recipe", default="logits")
@click.option("--steps", default=40, help="in a block")
@click.option("--blocks", default=7, help="of each side; the first warms up and is dropped")
@click.option("--threads", type=int, default=1, help="of both sides, and of the labels")
@click.option("--store", default=None)
def main(**told: Any) -> None:
    """Make what both need, time them in turn, print the table."""
    settings = [
        ("model.path", told["model"]),
        ("data.path", told["data"]),
        ("student.shapes", told["student"]),
        ("distill.recipe", told["recipe"]),
        ("distill.made", "none"),  # the plain loop makes no rows
        ("run.threads", told["threads"]),
        ("distill.threads", told["threads"]),
        *([("run.store", told["store"])] if told["store"] else []),
    ]
    job = jobs.make({}, settings, target="phone")
    opened = open_job(job)
    prepared = prepare(job, opened.target, opened.store)
    plan = planner.propose(job, opened.target, prepared.facts)
    step = next(row.training for row in plan.candidates if row.training)
    threads = told["threads"]
    with Runner(opened.store.root, threads=threads) as runner:
        made = runner.run([each for each in step.inputs.values() if isinstance(each, Step)])
        environment = runner.environment()
    folders = {name: opened.store.path(each) for name, each in step.inputs.items()}
    seconds = {artifact.key: artifact.seconds for artifact in made}
    labels = sum(
        seconds.get(keys.key(each), 0.0) for n, each in step.inputs.items() if "labels" in n
    )
    ours = {
        "inputs": {name: str(path) for name, path in folders.items()},
        "settings": dict(step.settings),
    }
    plain = {
        "student": str(folders["student.0"]),
        "teacher": str(_folder(opened.store, plan.baseline.model)),
        "tokenizer": told["model"],
        "rows": str(folders["train.0"]),
        "threads": threads,
        **{name: step.settings[name] for name in ("batch", "rate", "temperature", "alpha")},
    }
    usual = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    sides = {
        "plain loop": _start("plain_loop.py", plain, usual),
        "ours": _start("our_loop.py", ours, environment),
    }
    blocks: dict[str, list[float]] = {name: [] for name in sides}
    rates = _ask(sides["ours"], "matmul")
    for index in range(told["blocks"]):
        for name in sorted(sides, reverse=bool(index % 2)):
            answer = _ask(sides[name], str(told["steps"]))
            blocks[name].append(answer["seconds"] / answer["steps"])
    validation = _ask(sides["ours"], "validate")["seconds"]
    for side in sides.values():
        side.stdin.close()  # type: ignore[union-attr]
        side.wait()
    shape = plugins.find("families", "encoder").shape(
        json.loads((folders["student.0"] / "config.json").read_text())
    )
    lengths = Arrays(folders["train.0"]).lengths("input_ids")
    each = _flops(shape, np.asarray(lengths, float), len(prepared.facts.labels))
    _print(step, {name: kept[1:] for name, kept in blocks.items()}, labels, validation, each, rates)


def _print(
    step: Step,
    blocks: Mapping[str, list[float]],
    labels: float,
    validation: float,
    flops: float,
    rates: Mapping[str, float],
) -> None:
    told = coerce(plugins.find("stages", "distill").Settings, step.settings, "distill")
    batch, steps = told.batch, told.steps
    ms = {name: 1000 * statistics.median(kept) for name, kept in blocks.items()}
    pairs = [p / o for p, o in zip(blocks["plain loop"], blocks["ours"], strict=True)]
    rounds = math.ceil(steps / pace.every(told)) * (2 if told.average == "ema" else 1)
    whole = {
        "plain loop": ms["plain loop"] * steps / 1000,
        "ours": labels + ms["ours"] * steps / 1000 + rounds * validation,
    }
    reached = flops * batch / ms["ours"] * 1000 / 1e9
    of = "bfloat16" if told.dtype == "bfloat16" else "float32"
    print(f"{told.threads} threads, batch {batch}, {told.dtype}; blocks alternating")
    print(f"{'':<12}{'ms a step':>10}{'rows/s':>10}{'times plain':>13}{'a whole run, s':>16}")
    for name in blocks:
        times = 1.0 if name == "plain loop" else statistics.median(pairs)
        rows = batch / ms[name] * 1000
        print(f"{name:<12}{ms[name]:>10.1f}{rows:>10.0f}{times:>13.2f}{whole[name]:>16.0f}")
    print(
        f"times plain: {min(pairs):.2f} to {max(pairs):.2f} over {len(pairs)} pairs of blocks; "
        f"{whole['plain loop'] / whole['ours']:.2f} over a whole run of {steps:,} steps, of which "
        f"labels {labels:.0f} s and validation {rounds * validation:.0f} s"
    )
    print(
        f"matrix products here: {rates['bfloat16']:.0f} GFLOP/s in bfloat16, "
        f"{rates['float32']:.0f} in float32; our training reaches {reached:.0f}, "
        f"{100 * reached / rates[of]:.0f} % of {of}"
    )
    print(
        json.dumps(
            {
                "ms_a_step": ms,
                "times_plain": statistics.median(pairs),
                "times_plain_pairs": pairs,
                "whole_run_s": whole,
                "times_plain_whole_run": whole["plain loop"] / whole["ours"],
                "labels_s": labels,
                "validation_s": rounds * validation,
                "gflops": {**rates, "reached": reached},
                "batch": batch,
                "steps": steps,
                "threads": told.threads,
            }
        )
    )


def _flops(shape: Mapping[str, int], lengths: np.ndarray, labels: int) -> float:
    """Return the mean FLOPs of training on a row, forward and backward."""
    hidden = shape["hidden"]
    layer = 4 * hidden**2 + 2 * hidden * shape["feed_forward"]
    read = 2 * hidden**2  # keys and values
    below = shape["layers"] - 1
    weights = (below * layer + read) * lengths.mean() + layer - read
    head = hidden**2 + hidden * labels
    pairs = hidden * (below * (lengths**2).mean() + lengths.mean())
    return float(6 * (weights + head) + 12 * pairs)


def _folder(store: Any, thing: Step | Source) -> Path:
    return store.path(thing)


def _start(script: str, told: Mapping[str, Any], environment: Mapping[str, str]) -> Any:
    return subprocess.Popen(
        [sys.executable, str(PEERS / script), json.dumps(told)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(environment),
    )


def _ask(side: Any, word: str) -> dict[str, float]:
    side.stdin.write(word + "\n")
    side.stdin.flush()
    line = side.stdout.readline()
    if not line:
        raise SystemExit(f"a side ended: see above (exit {side.wait()})")
    return json.loads(line)


if __name__ == "__main__":
    run(main, "speed.py")
