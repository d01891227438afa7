"""Soft labels: the teacher's answers at a temperature (Hinton, Vinyals and Dean, 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgedistill.settings import setting

READS_TEACHER = True
NEEDS_TRUTH = False
DIMENSIONS = ()
OUTPUTS = ("classes",)


@dataclass(frozen=True)
class Settings:
    """The settings of this loss."""

    temperature: float = setting(4.0, "flattens both answers", low=0.05, high=100)


def loss(
    student: Mapping[str, Any],
    teacher: Mapping[str, Any],
    batch: Mapping[str, Any],
    settings: Settings,
    learned: Any,
) -> Any:
    """Return T² KL(teacher || student): summed over labels, mean over rows.

    Logits (rows, labels). Its gradient by the student's logits is T (p_student - p_teacher) / rows.
    """
    from torch.nn.functional import kl_div, log_softmax

    temperature = settings.temperature
    ours = log_softmax(student["logits"].float() / temperature, dim=-1)
    theirs = log_softmax(teacher["logits"].float() / temperature, dim=-1)
    total = kl_div(ours, theirs, reduction="sum", log_target=True)
    return temperature**2 * total / len(ours)
