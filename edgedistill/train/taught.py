"""What distill and prune share: inputs, settings, the score on training rows. Light to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgedistill.settings import setting
from edgedistill.train.pace import Training

INPUTS = {
    "student": "model",
    "teacher": "model",
    "train": "arrays",
    "labels": "arrays",
    "validation": "arrays",
}
PACKAGES = ("torch", "transformers", "safetensors", "numpy")
ESTIMATES_WITHOUT = ("labels",)  # zeros stand in for them
GAP_ROWS = 1000  # of the training rows that are scored at the end, to show the gap


@dataclass(frozen=True)
class Taught(Training):
    """The settings: L = (1 - alpha) x losses of the truth + alpha x those that read the teacher."""

    task: str = setting("text-classification", "the task, by name")
    family: str = setting("encoder", "the family, by name")
    encoder: Mapping[str, Any] = setting({}, "settings of the task's encoder")
    losses: Mapping[str, Any] = setting(
        {"soft_labels": {"weight": 1.0}, "hard_labels": {"weight": 1.0}},
        "the losses by name, each with its weight (number, [first, last(, until)]) and settings",
    )
    alpha: float = setting(0.9, "share of the losses that read the teacher", low=0, high=1)
    temperature: float = setting(4.0, "of soft labels", low=0.05, high=100)


def plugins(settings: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Name the plugins that a step with these settings uses."""
    losses = [("losses", name) for name in sorted(settings["losses"])]
    return [("tasks", settings["task"]), ("families", settings["family"]), *losses]


def train_score(model: Any, work: Any) -> float | None:
    """Score a model on some of its training rows, in points; None where none has a truth."""
    from edgedistill.train import loop

    if not (work.examples.truth >= 0).any():
        return None
    return loop.score(model, work.examples, work, most=GAP_ROWS)
