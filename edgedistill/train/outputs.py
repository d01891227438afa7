"""A model's outputs over rows: validation while it trains, and the soft labels of a teacher."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from edgedistill.errors import ModelError
from edgedistill.train.batches import Examples, sequential, tensors

SHOWN = 5  # labels that an error names
MAPPED = 256 * 2**20  # bytes; larger blocks of memory are the kernel's again when they are freed
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
CHUNK = 8192  # rows that are sorted by length together, so that outputs stream in their order


@contextmanager
def arithmetic(device: str, dtype: str) -> Iterator[None]:
    """Compute matrix products in bfloat16 where the settings say so."""
    import torch

    enabled = dtype == "bfloat16"
    with torch.autocast(device.partition(":")[0], dtype=torch.bfloat16, enabled=enabled):
        yield


def prepare(threads: int) -> None:
    """Set what holds for a whole process: threads, denormals flushed to zero, memory kept."""
    import torch

    torch.set_flush_denormal(True)  # before the first parallel region: threads inherit it
    torch.set_num_threads(threads)
    _keep_memory()


def _keep_memory() -> None:
    """Let glibc keep what is freed, for the next step asks for just that again.

    Else gradients and activations are mapped, and filled with zeros by the kernel, in every step: a
    tenth of a small student's time. Blocks above `MAPPED` are given back as ever.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt:
            mallopt(M_MMAP_THRESHOLD, MAPPED)
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def columns(theirs: Sequence[str], ours: Sequence[str], *, teacher: str) -> np.ndarray:
    """Return which of a teacher's outputs stands for each of our labels: `logits[:, columns]`.

    Labels are matched by name. Raises `ModelError` naming the teacher and what one side lacks.
    """
    missing = [label for label in ours if label not in set(theirs)]
    extra = [label for label in theirs if label not in set(ours)]
    if missing or extra or len(theirs) != len(ours):
        parts = [f"has no {_named(missing)}"] if missing else []
        parts += [f"has {_named(extra)}, which the first has not"] if extra else []
        raise ModelError(
            f"the teacher '{teacher}' {' and '.join(parts) or 'names a label twice'}: "
            "teachers beside the first need its labels, in any order"
        )
    place = {label: index for index, label in enumerate(theirs)}
    return np.array([place[label] for label in ours], dtype=np.int64)


def _named(labels: Sequence[str]) -> str:
    shown = ", ".join(f"'{label}'" for label in labels[:SHOWN])
    return shown + (f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else "")


def logits(
    model: Any,
    examples: Examples,
    forward: Callable[[Any, dict[str, Any]], Any],
    encoder: Any,
    *,
    batch: int = 128,
    dtype: str = "float32",
    device: str = "cpu",
    workers: int = 1,
) -> Iterator[np.ndarray]:
    """Yield the logits of all rows in their order, (rows of a chunk, labels) float32.

    `workers` batches are computed at once, each on as many threads as torch was told: with one, the
    numbers are the same for any number of workers, and none waits for another, as the threads of
    one product do where something else runs on the machine.
    """
    import torch

    was = model.training
    model.eval()
    threads = torch.get_num_threads()  # a new thread would begin with the environment's number
    pool = ThreadPoolExecutor(workers, initializer=lambda: torch.set_num_threads(threads))
    try:
        for start in range(0, len(examples), CHUNK):
            stop = min(start + CHUNK, len(examples))
            places = sequential(examples.lengths[start:stop], batch)

            def answer(indices: np.ndarray, start: int = start) -> np.ndarray:
                inputs = tensors(encoder.batch(examples.rows(indices + start)), device)
                with torch.inference_mode(), arithmetic(device, dtype):
                    found: np.ndarray = forward(model, inputs).logits.float().cpu().numpy()
                return found

            parts = list((pool.map if workers > 1 else map)(answer, places))
            back = np.empty(stop - start, dtype=np.int64)
            back[np.concatenate(places)] = np.arange(stop - start)
            yield np.concatenate(parts)[back]
    finally:
        pool.shutdown(cancel_futures=True)
        model.train(was)
