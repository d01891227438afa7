"""Attention maps: each layer looks where a teacher's layer looks (TinyBERT, Jiao et al., 2020).

TinyBERT compares scores before the softmax; what modules give, and what is compared here, are the
probabilities after it (a student whose attention is read trains without dropout there). Where the
numbers of heads differ, the means over the heads are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgedistill.losses import _layers
from edgedistill.records import Shape
from edgedistill.settings import setting

READS_TEACHER = True
NEEDS_TRUTH = False
DIMENSIONS = ("layers", "heads")
OUTPUTS = ()


@dataclass(frozen=True)
class Settings:
    """The settings of this loss."""

    map: tuple[int, ...] | str = setting("uniform", _layers.ABOUT)


def needs(settings: Settings, student_shape: Shape, teacher_shape: Shape) -> Mapping[str, str]:
    """Name the student's layers, and the teacher's beside them."""
    place = "attention_maps.map"
    return _layers.named("attention", settings.map, student_shape, teacher_shape, place)


def loss(
    student: Mapping[str, Any],
    teacher: Mapping[str, Any],
    batch: Mapping[str, Any],
    settings: Settings,
    learned: Any,
) -> Any:
    """Return the squared difference: summed over keys, mean over heads, valid tokens and layers.

    Attention (rows, heads, tokens, tokens): of each token (third axis) over all tokens (last).
    """
    found = []
    for name, ours in student.items():
        ours, theirs = ours.float(), teacher[name].float()
        if ours.shape[1] != theirs.shape[1]:
            ours, theirs = (one.mean(dim=1, keepdim=True) for one in (ours, theirs))
        valid = _layers.tokens(batch, ours[:, 0])
        squared = (ours - theirs).square().where(valid[:, None, None, :], 0.0)
        found.append(_layers.mean_over(squared.sum(dim=-1).mean(dim=1), valid))
    return sum(found[1:], found[0]) / len(found)
