"""Fold: an encoder with a smaller vocabulary, of the pieces that rows and general text use most.

Unseen words fall back to smaller pieces. Embedding tables are most of a small student of texts, so
the vocabulary is the lever on its size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedistill import plugins as doors
from edgedistill.errors import JobError
from edgedistill.records import Progress
from edgedistill.settings import setting
from edgedistill.stages import indexed

INPUTS = {"encoder": "encoder", "train": "arrays"}
OUTPUT = "encoder"
PACKAGES = ("numpy",)


@dataclass(frozen=True)
class Settings:
    """What a fold step can be told."""

    task: str = setting("text-classification", "the task, by name")
    vocabulary: int = setting(0, "pieces that stay, special ones included", low=0)
    encoder: Mapping[str, Any] = setting({}, "settings of the task's encoder")


def plugins(settings: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Name the plugins that a step with these settings uses."""
    return [("tasks", settings["task"])]


def run(
    inputs: Mapping[str, Path], settings: Settings, out: Path, progress: Progress
) -> Mapping[str, Any]:
    """Write the encoder's file, kept.npy (int64: the old id of each new one) and counts.npy.

    counts.npy (int64): how often the training rows hold each piece that stays. Facts: vocabulary,
    whole, needed (pieces that had to stay), tokens (of the training rows), tokens_cut (those whose
    piece is gone: they are cut into smaller ones). Raises `ModelError` for a count that can't be.
    """
    import numpy as np

    from edgedistill.data import arrays

    task: Any = doors.find("tasks", settings.task, allow_code=True)
    if not hasattr(task, "fold"):
        raise JobError(f"the task {settings.task} has no vocabulary that could be smaller")
    used = np.zeros(0, dtype=np.int64)
    for folder in indexed(inputs, "train"):
        more = np.bincount(arrays.Arrays(folder).flat("input_ids"), minlength=len(used))
        more[: len(used)] += used
        used = more
    kept, needed, whole = task.fold(
        inputs["encoder.0"], used, settings.vocabulary, out, settings.encoder
    )
    counts = np.array([used[old] if old < len(used) else 0 for old in kept], dtype=np.int64)
    np.save(out / "kept.npy", np.array(kept, dtype=np.int64))
    np.save(out / "counts.npy", counts)
    return {
        "vocabulary": len(kept),
        "whole": whole,
        "needed": needed,
        "tokens": int(used.sum()),
        "tokens_cut": int(used.sum() - counts.sum()),
    }
