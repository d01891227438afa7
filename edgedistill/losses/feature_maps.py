"""Feature maps: what a stage of a convolutional network gives (FitNets, Romero et al., ICLR 2015).

Through a learned 1 x 1 convolution from the student's channels to the teacher's where they differ.
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
    return _layers.stages(settings.stages, student_shape, teacher_shape, "feature_maps.stages")


def build(settings: Settings, student_shape: Shape, teacher_shape: Shape) -> Any:
    """Learn a 1 x 1 convolution for each stage whose channels differ."""
    from torch import nn

    made = nn.ModuleDict()
    for name in needs(settings, student_shape, teacher_shape):
        stage = name.partition(".")[2]
        ours, theirs = (one[f"channels.{stage}"] for one in (student_shape, teacher_shape))
        if ours != theirs:
            made[_layers.key(name)] = nn.Conv2d(ours, theirs, 1, bias=False)
    return made if len(made) else None


def loss(
    student: Mapping[str, Any],
    teacher: Mapping[str, Any],
    batch: Mapping[str, Any],
    settings: Settings,
    learned: Any,
) -> Any:
    """Return the squared difference: mean over channels, places, rows and stages.

    Feature maps (rows, channels, height, width); of two sizes the larger is averaged down.
    """
    found = []
    for name, ours in student.items():
        theirs = teacher[name].float()
        place = _layers.key(name)
        ours = learned[place](ours) if learned is not None and place in learned else ours
        ours, theirs = _layers.same_size(ours.float(), theirs)
        found.append((ours - theirs).square().mean())
    return sum(found[1:], found[0]) / len(found)
