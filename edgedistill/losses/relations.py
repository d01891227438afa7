"""Relations: how queries, keys and values of all tokens relate (MiniLMv2, Wang et al., 2021).

Of the student's last layer and one layer of the teacher, the queries (keys, values) are cut into as
many relation heads, whatever the widths and heads of both; of each head softmax(A A^T / sqrt(size))
says how each token relates to all others. Nothing is learned, and widths may differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from typing import Any

from edgedistill.errors import JobError
from edgedistill.losses import _layers
from edgedistill.records import Shape
from edgedistill.settings import setting

READS_TEACHER = True
NEEDS_TRUTH = False
DIMENSIONS = ("layers", "hidden", "heads")
OUTPUTS = ()

KINDS = ("query", "key", "value")
MOST = 48  # relation heads, as the paper has them


@dataclass(frozen=True)
class Settings:
    """The settings of this loss."""

    teacher_layer: int = setting(
        -1, "which of the teacher's layers, from 0; from its end where negative"
    )
    heads: int = setting(0, "relation heads; 0: the most, up to 48, that fit both widths", low=0)
    of: tuple[str, ...] = setting(KINDS, "what is related", choices=KINDS)


def needs(settings: Settings, student_shape: Shape, teacher_shape: Shape) -> Mapping[str, str]:
    """Name queries, keys and values of the student's last layer, and of the teacher's."""
    ours, depth = student_shape["layers"] - 1, teacher_shape["layers"]
    theirs = settings.teacher_layer
    if not -depth <= theirs < depth:
        raise JobError(f"relations.teacher_layer: {theirs}: expected {-depth} to {depth - 1}")
    _heads(settings.heads, student_shape["hidden"], teacher_shape["hidden"])
    return {f"{kind}.{ours}": f"{kind}.{theirs % depth}" for kind in settings.of}


def loss(
    student: Mapping[str, Any],
    teacher: Mapping[str, Any],
    batch: Mapping[str, Any],
    settings: Settings,
    learned: Any,
) -> Any:
    """Return KL(teacher || student): summed over tokens and kinds, mean over heads, valid tokens.

    Queries, keys and values (rows, tokens, width).
    """
    import torch
    from torch.nn.functional import kl_div

    found = []
    for name, ours in student.items():
        theirs = teacher[name]
        heads = _heads(settings.heads, ours.shape[-1], theirs.shape[-1])
        valid = _layers.tokens(batch, ours)
        with torch.autocast(ours.device.type, enabled=False):  # too coarse for what differs
            mine, its = (_related(one, heads, valid) for one in (ours, theirs))
        each = kl_div(mine, its, reduction="none", log_target=True)
        each = each.where(valid[:, None, None, :], 0.0).sum(dim=-1).mean(dim=1)
        found.append(_layers.mean_over(each, valid))
    return sum(found[1:], found[0])


def _related(states: Any, heads: int, valid: Any) -> Any:
    """Return log-probabilities (rows, heads, tokens, tokens) of (rows, tokens, width)."""
    rows, length, width = states.shape
    parts = states.float().view(rows, length, heads, width // heads).transpose(1, 2)
    scores = parts @ parts.transpose(-1, -2) / (width // heads) ** 0.5
    lowest = -1e9  # not minus infinity: nothing times infinity is not a number
    return scores.masked_fill(~valid[:, None, None, :], lowest).log_softmax(dim=-1)


def _heads(told: int, ours: int, theirs: int) -> int:
    both = gcd(ours, theirs)
    if told and both % told:
        raise JobError(f"relations.heads: {told} heads don't divide the widths {ours} and {theirs}")
    return told or max(count for count in range(1, min(MOST, both) + 1) if both % count == 0)
