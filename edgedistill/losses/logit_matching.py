"""Logit matching: squared differences of logits (Ba and Caruana, 2014), of centred ones.

Centred, since a constant added to all logits of a row changes no answer. It is what T² KL tends to
at a high temperature, times the number of labels (Hinton, Vinyals and Dean, 2015).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

READS_TEACHER = True
NEEDS_TRUTH = False
DIMENSIONS = ()
OUTPUTS = ("classes",)


@dataclass(frozen=True)
class Settings:
    """The settings of this loss: none."""


def loss(
    student: Mapping[str, Any],
    teacher: Mapping[str, Any],
    batch: Mapping[str, Any],
    settings: Settings,
    learned: Any,
) -> Any:
    """Return half the squared difference of centred logits: summed over labels, mean over rows.

    Logits (rows, labels). Its gradient by the student's logits is the centred difference / rows.
    """
    difference = student["logits"].float() - teacher["logits"].float()
    centred = difference - difference.mean(dim=-1, keepdim=True)
    return 0.5 * centred.square().sum(dim=-1).mean()
