"""Embeddings: the output of the embedding layer comes near the teacher's (TinyBERT, 2020).

Jiao et al.; through a learned projection where the widths differ. A student that starts with its
teacher's embeddings begins at nothing, and is held there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgedistill.losses import _layers
from edgedistill.records import Shape

READS_TEACHER = True
NEEDS_TRUTH = False
DIMENSIONS = ("layers", "hidden")
OUTPUTS = ()


@dataclass(frozen=True)
class Settings:
    """The settings of this loss: none."""


def needs(settings: Settings, student_shape: Shape, teacher_shape: Shape) -> Sequence[str]:
    """Name what is read of both models."""
    return ("embeddings",)


def build(settings: Settings, student_shape: Shape, teacher_shape: Shape) -> Any:
    """Learn a projection where the widths differ."""
    return _layers.projections(["embeddings"], student_shape["hidden"], teacher_shape["hidden"])


def loss(
    student: Mapping[str, Any],
    teacher: Mapping[str, Any],
    batch: Mapping[str, Any],
    settings: Settings,
    learned: Any,
) -> Any:
    """Return the squared difference: mean over features and valid tokens.

    Embeddings (rows, tokens, width), of pieces and positions together, after their norm.
    """
    ours, theirs = student["embeddings"], teacher["embeddings"].float()
    ours = ours.float() if learned is None else learned["embeddings"](ours).float()
    each = (ours - theirs).square().mean(dim=-1)
    return _layers.mean_over(each, _layers.tokens(batch, each))
