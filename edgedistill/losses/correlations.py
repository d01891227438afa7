"""Correlations: how the answers vary, not what they are (DIST, Huang et al., NeurIPS 2022).

Pearson's correlation between teacher and student, of each row over the labels and of each label
over the rows of a batch: a student whose answers are the teacher's but for shift and scale loses
nothing.
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

SMALLEST = 1e-8  # of a product of deviations, so that answers that never vary divide


@dataclass(frozen=True)
class Settings:
    """The settings of this loss."""

    temperature: float = setting(4.0, "flattens both answers", low=0.05, high=100)
    rows: float = setting(1.0, "weight of each row's correlation over the labels (beta)", low=0)
    labels: float = setting(1.0, "weight of each label's correlation over the rows (gamma)", low=0)


def loss(
    student: Mapping[str, Any],
    teacher: Mapping[str, Any],
    batch: Mapping[str, Any],
    settings: Settings,
    learned: Any,
) -> Any:
    """Return T² (rows · mean(1 - r of a row) + labels · mean(1 - r of a label)).

    Logits (rows, labels). A label's correlation is over the rows of this batch; of one row alone it
    says nothing (and has no gradient).
    """
    temperature = settings.temperature
    ours = (student["logits"].float() / temperature).softmax(dim=-1)
    theirs = (teacher["logits"].float() / temperature).softmax(dim=-1)
    rows, labels = _apart(ours, theirs), _apart(ours.T, theirs.T)
    return temperature**2 * (settings.rows * rows + settings.labels * labels)


def _apart(ours: Any, theirs: Any) -> Any:
    """Return the mean of 1 - Pearson's r over the lines of two matrices."""
    from torch.nn.functional import cosine_similarity

    ours, theirs = (one - one.mean(dim=-1, keepdim=True) for one in (ours, theirs))
    return (1 - cosine_similarity(ours, theirs, dim=-1, eps=SMALLEST)).mean()
