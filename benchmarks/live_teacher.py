"""What a live teacher costs a training step, against what a cache of its insides would cost.

    python benchmarks/live_teacher.py /path/to/data [--student 2] [--batches 9] [--turns 5]

Of nine batches of CLINC150's training rows, short to long, in turn: a step of the student without
its teacher, the teacher's forward pass, and reading hidden states and attention of two of its
layers back from a cache. Prints milliseconds (the least of all turns, one thread), bytes a row.
"""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from edgedistill import plugins
from edgedistill.cli import run
from edgedistill.data import arrays
from edgedistill.errors import DataError
from edgedistill.train import compact, host, outputs, weights

BATCH, LAYERS = 64, (2, 5)
Act = Callable[[int], None]  # of a batch, by its number


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--student", default="2")
@click.option("--batches", default=9)
@click.option("--turns", default=5)
def main(data: Path, student: str, batches: int, turns: int) -> None:
    """Time the three in turn, print what each takes and how large a cache would be."""
    outputs.prepare(1)
    dtype = host.host_dtype()
    task, family = plugins.find("tasks", "text-classification"), plugins.find("families", "encoder")
    folder, table = data / "checkpoints" / "minilm_clinc150", data / "clinc150" / "train.csv"
    for each in (folder, table):
        if not each.exists():
            raise DataError(f"'{each}' is not there: DATA is the folder that holds both")
    teacher = weights.load(folder, task).eval()
    shape = family.shape(weights.config_of(folder))
    small = family.parse(student, shape)
    learner, _ = family.shrink(
        teacher, small, layers=family.layers(small, shape), init="teacher", seed=0
    )
    with tempfile.TemporaryDirectory() as place:
        encoder, rows = _encoded(task, folder, table, Path(place))
        lengths = np.array([len(row["input_ids"]) for row in rows])
        compact.compact(learner, np.unique(np.concatenate([row["input_ids"] for row in rows])))
        order = np.argsort(lengths, kind="stable")
        starts = np.linspace(0, len(order) - BATCH, batches).astype(int)
        chosen = [order[start : start + BATCH] for start in starts]
        fed = [_tensors(encoder.batch([rows[index] for index in each])) for each in chosen]
        cache = Path(place) / "cache"
        arrays.write(
            cache,
            (_cached(int(lengths[index]), shape) for each in chosen for index in each),
        )
        actions = {
            "step": _step(learner.train(), fed, dtype),
            "live": _live(teacher, fed, dtype),
            "read": _read(arrays.Arrays(cache), [lengths[each] for each in chosen], shape),
        }
        least = _least(actions, batches, turns)
    hidden = 2.0 * lengths.mean() * shape["hidden"]
    square = 2.0 * np.square(lengths, dtype=float).mean() * shape["heads"]
    print(f"{dtype}, {BATCH} rows a step, {lengths.mean():.1f} tokens a row")
    print(" · ".join(f"{name} {1e3 * found.mean():.1f} ms" for name, found in least.items()))
    print(
        f"bytes a row (float16): a layer's hidden states {hidden:,.0f}, its attention {square:,.0f}"
    )
    print(f"its queries, keys and values {3 * hidden:,.0f}; logits {2 * teacher.num_labels:,}")


def _encoded(task: Any, folder: Path, table: Path, place: Path) -> tuple[Any, list[Any]]:
    """Return the teacher's encoder, and the training rows in its encoding."""
    with table.open(newline="") as file:
        texts = [{"text": row["text"]} for row in csv.DictReader(file)]
    settings = task.encoder_settings(folder, 24)
    task.prepare_encoder(folder, place, settings)
    encoder = task.open_encoder(place, settings)
    return encoder, encoder.encode_many(texts)


def _tensors(batch: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def _step(student: Any, fed: list[dict[str, torch.Tensor]], dtype: str) -> Act:
    """A training step of the student, whatever its loss."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.0, fused=True)

    def step(index: int) -> None:
        with outputs.arithmetic("cpu", dtype):
            loss = student(**fed[index]).logits.float().logsumexp(-1).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _live(teacher: Any, fed: list[dict[str, torch.Tensor]], dtype: str) -> Act:
    """A forward pass of the teacher."""

    def live(index: int) -> None:
        with torch.no_grad(), outputs.arithmetic("cpu", dtype):
            teacher(**fed[index])

    return live


def _read(cache: arrays.Arrays, lengths: list[np.ndarray], shape: dict[str, int]) -> Act:
    """What `_live` would give, from the cache, padded to the batch."""

    def read(index: int) -> None:
        longest = int(lengths[index].max())
        for name in cache.names:
            square = name.startswith("attention")
            size = (shape["heads"], longest, longest) if square else (longest, shape["hidden"])
            padded = np.zeros((BATCH, *size), np.float32)
            for row in range(BATCH):
                value = cache.value(name, index * BATCH + row)
                padded[row][tuple(slice(0, length) for length in value.shape)] = value

    return read


def _least(actions: dict[str, Act], batches: int, turns: int) -> dict[str, np.ndarray]:
    """Return the least seconds of each, batch by batch, all in turn."""
    least = {name: np.full(batches, np.inf) for name in actions}
    for _ in range(turns):
        for index in range(batches):
            for name, act in actions.items():
                started = time.perf_counter()
                act(index)
                spent = time.perf_counter() - started
                least[name][index] = min(least[name][index], spent)
    return least


def _cached(length: int, shape: dict[str, int]) -> dict[str, np.ndarray]:
    sizes = {"hidden": (length, shape["hidden"]), "attention": (shape["heads"], length, length)}
    return {
        f"{kind}.{layer}": np.zeros(size, np.float16)
        for kind, size in sizes.items()
        for layer in LAYERS
    }


if __name__ == "__main__":
    run(main, "live_teacher.py")
