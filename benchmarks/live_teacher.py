"""What a live teacher costs a training step, against what a cache of its insides would cost.

    python benchmarks/live_teacher.py /path/to/data [--student 2] [--batches 9] [--turns 5]

Of nine batches of CLINC150's training rows, short to long, in turn: a step of the student without
its teacher, the teacher's forward pass, and reading hidden states and attention of two of its
layers back from a cache. Prints milliseconds (the least of all turns, one thread), bytes a row.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from edgedistill import plugins
from edgedistill.data import arrays
from edgedistill.train import compact, host, outputs, weights

BATCH, LAYERS = 64, (2, 5)


def main() -> None:
    told = argparse.ArgumentParser(description=__doc__)
    told.add_argument("data", type=Path)
    told.add_argument("--student", default="2")
    told.add_argument("--batches", type=int, default=9)
    told.add_argument("--turns", type=int, default=5)
    asked = told.parse_args()
    outputs.prepare(1)
    dtype = host.host_dtype()
    task, family = plugins.find("tasks", "text-classification"), plugins.find("families", "encoder")
    folder = asked.data / "checkpoints" / "minilm_clinc150"
    teacher = weights.load(folder, task).eval()
    shape = family.shape(weights.config_of(folder))
    with (asked.data / "clinc150" / "train.csv").open(newline="") as file:
        texts = [{"text": row["text"]} for row in csv.DictReader(file)]
    with tempfile.TemporaryDirectory() as place:
        settings = task.encoder_settings(folder, 24)
        task.prepare_encoder(folder, Path(place), settings)
        encoder = task.open_encoder(Path(place), settings)
        rows = encoder.encode_many(texts)
        lengths = np.array([len(row["input_ids"]) for row in rows])
        order = np.argsort(lengths, kind="stable")
        starts = np.linspace(0, len(order) - BATCH, asked.batches).astype(int)
        batches = [order[start : start + BATCH] for start in starts]
        inputs = [
            {name: torch.from_numpy(array) for name, array in encoder.batch(found).items()}
            for found in ([rows[index] for index in batch] for batch in batches)
        ]
        small = family.parse(asked.student, shape)
        student, _ = family.shrink(
            teacher, small, layers=family.layers(small, shape), init="teacher", seed=0
        )
        compact.compact(student, np.unique(np.concatenate([row["input_ids"] for row in rows])))
        optimizer = torch.optim.AdamW(student.train().parameters(), lr=0.0, fused=True)
        arrays.write(
            Path(place) / "cache",
            (_cached(int(lengths[index]), shape) for batch in batches for index in batch),
        )
        cache = arrays.Arrays(Path(place) / "cache")

        def step(index: int) -> None:
            with outputs.arithmetic("cpu", dtype):
                loss = student(**inputs[index]).logits.float().logsumexp(-1).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

        def live(index: int) -> None:
            with torch.no_grad(), outputs.arithmetic("cpu", dtype):
                teacher(**inputs[index])

        def read(index: int) -> None:
            longest = int(lengths[batches[index]].max())
            for name in cache.names:
                square = name.startswith("attention")
                size = (shape["heads"], longest, longest) if square else (longest, shape["hidden"])
                padded = np.zeros((BATCH, *size), np.float32)
                for row in range(BATCH):
                    value = cache.value(name, index * BATCH + row)
                    padded[row][tuple(slice(0, length) for length in value.shape)] = value

        least = {each.__name__: np.full(asked.batches, np.inf) for each in (step, live, read)}
        for _ in range(asked.turns):
            for index in range(asked.batches):
                for each in (step, live, read):
                    started = time.perf_counter()
                    each(index)
                    spent = time.perf_counter() - started
                    least[each.__name__][index] = min(least[each.__name__][index], spent)
    hidden = 2.0 * lengths.mean() * shape["hidden"]
    square = 2.0 * np.square(lengths, dtype=float).mean() * shape["heads"]
    print(f"{dtype}, {BATCH} rows a step, {lengths.mean():.1f} tokens a row")
    print(" · ".join(f"{name} {1e3 * found.mean():.1f} ms" for name, found in least.items()))
    print(
        f"bytes a row (float16): a layer's hidden states {hidden:,.0f}, its attention {square:,.0f}"
    )
    print(f"its queries, keys and values {3 * hidden:,.0f}; logits {2 * teacher.num_labels:,}")


def _cached(length: int, shape: dict[str, int]) -> dict[str, np.ndarray]:
    sizes = {"hidden": (length, shape["hidden"]), "attention": (shape["heads"], length, length)}
    return {
        f"{kind}.{layer}": np.zeros(size, np.float16)
        for kind, size in sizes.items()
        for layer in LAYERS
    }


if __name__ == "__main__":
    main()
