"""Hard labels: the cross-entropy with the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgedistill.settings import setting

READS_TEACHER = False
NEEDS_TRUTH = True
DIMENSIONS = ()
OUTPUTS = ("classes",)


@dataclass(frozen=True)
class Settings:
    """The settings of this loss."""

    smoothing: float = setting(0.0, "of the truth, spread evenly over all labels", low=0, high=1)


def loss(
    student: Mapping[str, Any],
    teacher: Mapping[str, Any],
    batch: Mapping[str, Any],
    settings: Settings,
    learned: Any,
) -> Any:
    """Return the mean cross-entropy, in nats, over the rows that have a truth (0 where none has).

    Logits (rows, labels); truth (rows,) with -1 where there is none.
    """
    from torch.nn.functional import cross_entropy

    logits, truth = student["logits"].float(), batch["truth"]
    total = cross_entropy(
        logits, truth, ignore_index=-1, reduction="sum", label_smoothing=settings.smoothing
    )
    return total / (truth >= 0).sum().clamp(min=1)
