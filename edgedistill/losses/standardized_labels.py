"""Standardized labels: soft labels of z-scored logits (Sun et al., CVPR 2024).

Each row's logits lose their mean and are divided by their standard deviation before the
temperature, so a small student need not reach the size of its teacher's logits, only their order
and proportions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgedistill.settings import setting

READS_TEACHER = True
NEEDS_TRUTH = False
DIMENSIONS = ()
OUTPUTS = ("classes",)
OWN_TEMPERATURE = True  # of logits whose deviation is 1, the recipe's would leave next to nothing

SMALLEST = 1e-7  # deviation, so that equal logits divide


@dataclass(frozen=True)
class Settings:
    """The settings of this loss."""

    temperature: float = setting(2.0, "flattens both answers", low=0.05, high=100)


def loss(
    student: Mapping[str, Any],
    teacher: Mapping[str, Any],
    batch: Mapping[str, Any],
    settings: Settings,
    learned: Any,
) -> Any:
    """Return T² KL(teacher || student) of z-scored logits: summed over labels, mean over rows.

    Logits (rows, labels); the deviation is that of a row's labels as a whole (no correction).
    """
    from torch.nn.functional import kl_div, log_softmax

    temperature = settings.temperature
    ours = log_softmax(_standardized(student["logits"]) / temperature, dim=-1)
    theirs = log_softmax(_standardized(teacher["logits"]) / temperature, dim=-1)
    return temperature**2 * kl_div(ours, theirs, reduction="sum", log_target=True) / len(ours)


def _standardized(logits: Any) -> Any:
    logits = logits.float()
    centred = logits - logits.mean(dim=-1, keepdim=True)
    return centred / (logits.std(dim=-1, correction=0, keepdim=True) + SMALLEST)
