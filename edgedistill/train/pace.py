"""How long and how fast to train: the settings that every training shares, and the schedule.

Pure: the planner reads it, so nothing heavy is imported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgedistill.settings import setting

FEWEST = 1500  # steps, where rows are few
MOST_EPOCHS = 60


@dataclass(frozen=True)
class Training:
    """The settings of the loop, shared by every stage that trains."""

    steps: int = setting(1000, "how many batches are trained on", low=1)
    batch: int = setting(64, "rows in a batch, of each process", low=1)
    processes: int = setting(1, "that share a step, each with a batch of its own", low=1)
    repeats: tuple[int, ...] = setting(
        (), "how often an epoch reads the rows of each train input; none: once", low=1
    )
    rate: float = setting(5e-4, "highest learning rate", low=0)
    embedding_rate: float = setting(0.1, "of the rate, for embedding tables", low=0, high=1)
    schedule: str = setting(
        "linear", "how the rate falls to nothing", choices=("linear", "cosine", "constant")
    )
    warmup: float = setting(0.1, "part of the steps in which the rate rises", low=0, high=1)
    weight_decay: float = setting(0.01, "of matrices; never of embeddings, norms, biases", low=0)
    clip: float = setting(1.0, "largest norm of all gradients together; 0: no limit", low=0)
    dropout: float | None = setting(None, "in the student; none: as its config says", low=0, high=1)
    average: str = setting("ema", "averaged weights scored beside the raw", choices=("none", "ema"))
    average_decay: float = setting(0.999, "of the average, a step", low=0, high=1)
    evaluate_every: int = setting(0, "steps between validations; 0: a twelfth of the run", low=0)
    patience: int = setting(6, "validations without a better one before it stops; 0: never", low=0)
    metric: str = setting("accuracy", "what validation is scored by")
    seed: int = setting(0, "of every random draw", low=0)
    threads: int = setting(1, "processor threads; the bytes depend on it", low=1)
    dtype: str = setting(
        "float32", "arithmetic of matrix products", choices=("float32", "bfloat16")
    )
    int8_largest: int = setting(
        0, "simulate int8 with weights up to this (127; 64 for 7 bits); 0: don't", low=0, high=127
    )
    device: str = setting("cpu", "where tensors live", choices=("cpu", "cuda", "mps"))


def factor(step: int, training: Training) -> float:
    """Return what the rate is multiplied by at a step (0-based): warm-up, then the schedule."""
    warm = round(training.warmup * training.steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    if training.schedule == "constant":
        return 1.0
    left = (training.steps - step) / max(training.steps - warm, 1)
    return left if training.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))


def every(training: Training) -> int:
    """Return how many steps lie between two validations."""
    return training.evaluate_every or max(1, math.ceil(training.steps / 12))


def steps(rows: int, *, epochs: float, batch: int, fewest: int = FEWEST) -> int:
    """Return how many steps a training takes: that many epochs, more of them where rows are few.

    Few rows are seen up to 60 times, until `fewest` steps are made.
    """
    each = max(rows // batch, 1)
    return max(1, round(epochs * each), min(round(MOST_EPOCHS * each), fewest))


def finetuning(width: int) -> float:
    """Return the learning rate that fine-tunes a pretrained encoder of that width as it is.

    5e-5 at BERT-base's 768 (Devlin et al., 2019), and by the inverse square of the width from
    there, as practice has it: 2.8e-5 for 1,024, 2e-4 for 384, and never over 1e-3.
    """
    return float(f"{min(5e-5 * (768 / width) ** 2, 1e-3):.2g}")


def rate(kept: float, *, nothing: float, whole: float) -> float:
    """Return the learning rate from the part of the teacher's layers that a student keeps.

    `nothing` where no pretrained layer remains, `whole` where all do, log-linear between in the
    square of the part: of an encoder 384 wide 8.4e-4 for 2 of 6 layers, 6.7e-4 for 3 of 6.
    """
    kept = min(max(kept, 0.0), 1.0)
    return float(f"{nothing * (whole / nothing) ** (kept * kept):.2g}")
