"""Hidden states: each layer's output comes near that of a teacher's layer.

TinyBERT (Jiao et al., 2020), through a learned projection where the widths differ; with `normalize`
PKD (Sun et al., 2019): directions alone.
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
DIMENSIONS = ("layers", "hidden")
OUTPUTS = ()


@dataclass(frozen=True)
class Settings:
    """The settings of this loss."""

    map: tuple[int, ...] | str = setting("uniform", _layers.ABOUT)
    normalize: bool = setting(False, "compare directions: each token's vector at length 1 (PKD)")


def needs(settings: Settings, student_shape: Shape, teacher_shape: Shape) -> Mapping[str, str]:
    """Name the student's layers, and the teacher's beside them."""
    return _layers.named("hidden", settings.map, student_shape, teacher_shape, "hidden_states.map")


def build(settings: Settings, student_shape: Shape, teacher_shape: Shape) -> Any:
    """Learn a projection for each layer where the widths differ."""
    names = list(needs(settings, student_shape, teacher_shape))
    return _layers.projections(names, student_shape["hidden"], teacher_shape["hidden"])


def loss(
    student: Mapping[str, Any],
    teacher: Mapping[str, Any],
    batch: Mapping[str, Any],
    settings: Settings,
    learned: Any,
) -> Any:
    """Return the squared difference: mean over features, valid tokens and layers.

    Hidden states (rows, tokens, width). Normalized it is the sum over features, 0 to 4: twice
    1 - cosine.
    """
    found = []
    for name, ours in student.items():
        theirs = teacher[name].float()
        ours = ours.float() if learned is None else learned[_layers.key(name)](ours).float()
        if settings.normalize:
            ours, theirs = _unit(ours), _unit(theirs)
        squared = (ours - theirs).square()
        each = squared.sum(dim=-1) if settings.normalize else squared.mean(dim=-1)
        found.append(_layers.mean_over(each, _layers.tokens(batch, each)))
    return sum(found[1:], found[0]) / len(found)


def _unit(states: Any) -> Any:
    from torch.nn.functional import normalize

    return normalize(states, dim=-1)
