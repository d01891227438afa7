"""Decoupled labels: soft labels in two parts, each with its weight (DKD, Zhao et al., CVPR 2022).

The KL of soft labels is KL(target against the rest) + (1 - p_target) KL(among the rest); here the
second part has a weight of its own, so that a sure teacher still tells what it thinks of the other
labels. With target 1 and others (1 - p_target) it would be soft labels again.
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


@dataclass(frozen=True)
class Settings:
    """The settings of this loss."""

    temperature: float = setting(4.0, "flattens both answers", low=0.05, high=100)
    target: float = setting(1.0, "weight of the target against the rest (alpha)", low=0)
    others: float = setting(8.0, "weight of what is said among the rest (beta)", low=0)


def loss(
    student: Mapping[str, Any],
    teacher: Mapping[str, Any],
    batch: Mapping[str, Any],
    settings: Settings,
    learned: Any,
) -> Any:
    """Return T² (target · KL(target, rest) + others · KL(among the rest)), mean over rows.

    Logits (rows, labels), two labels or more. The target is a row's truth; of a row that has none
    it is what the teacher holds most likely, so that made and unlabelled rows count as well.
    """
    from torch.nn.functional import kl_div, log_softmax

    temperature = settings.temperature
    ours = log_softmax(student["logits"].float() / temperature, dim=-1)
    theirs = log_softmax(teacher["logits"].float() / temperature, dim=-1)
    target = theirs.argmax(dim=-1)
    truth = batch.get("truth")
    if truth is not None:
        target = target.where(truth < 0, truth)
    parts = [_parts(each, target) for each in (ours, theirs)]
    binary, rest = (
        kl_div(mine, its, reduction="sum", log_target=True) / len(ours)
        for mine, its in zip(*parts, strict=True)
    )
    return temperature**2 * (settings.target * binary + settings.others * rest)


def _parts(logs: Any, target: Any) -> tuple[Any, Any]:
    """Return log-probabilities of target and rest (rows, 2), and among the rest (rows, others)."""
    import torch

    labels = torch.arange(logs.shape[1], device=logs.device)
    rest = logs[labels != target[:, None]].view(len(logs), -1)
    both = rest.logsumexp(dim=-1, keepdim=True)
    return torch.cat([logs.gather(1, target[:, None]), both], dim=-1), rest - both
