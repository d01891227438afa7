"""Attention transfer: where a convolutional network looks (Zagoruyko and Komodakis, ICLR 2017).

A place's attention is the mean over the channels of what a stage gives there, squared; the whole
map is brought to length 1. Needs no equal channels, and nothing is learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgedistill.losses import _layers
from edgedistill.records import Shape
from edgedistill.settings import setting

READS_TEACHER = True
NEEDS_TRUTH = False
DIMENSIONS = ("stages", "channels")
OUTPUTS = ()


@dataclass(frozen=True)
class Settings:
    """The settings of this loss."""

    stages: tuple[int, ...] = setting((), "which stages, from 0; none: all of them", low=0)


def needs(settings: Settings, student_shape: Shape, teacher_shape: Shape) -> Sequence[str]:
    """Name the stages of both models: a student has as many as its teacher."""
    place = "attention_transfer.stages"
    return _layers.stages(settings.stages, student_shape, teacher_shape, place)


def loss(
    student: Mapping[str, Any],
    teacher: Mapping[str, Any],
    batch: Mapping[str, Any],
    settings: Settings,
    learned: Any,
) -> Any:
    """Return the squared difference of attention: summed over places, mean over rows and stages.

    Feature maps (rows, channels, height, width); of two sizes the larger is averaged down.
    """
    found = []
    for name, ours in student.items():
        ours, theirs = _layers.same_size(ours.float(), teacher[name].float())
        found.append((_attention(ours) - _attention(theirs)).square().sum(dim=-1).mean())
    return sum(found[1:], found[0]) / len(found)


def _attention(maps: Any) -> Any:
    """Return (rows, places) of length 1."""
    from torch.nn.functional import normalize

    return normalize(maps.square().mean(dim=1).flatten(1), dim=-1)
