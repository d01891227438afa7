"""Losses: one file each.

One convention for all: sum over classes, mean over valid examples or tokens, times T² where there
is a temperature. Weights and schedules are the recipe's. A loss that reads the teacher names what
it needs of it; `logits` come from the store, everything else from a live teacher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from edgedistill.records import Shape


class Loss(Protocol):
    """What a file in losses/ offers, as module attributes."""

    Settings: type
    READS_TEACHER: bool
    NEEDS_TRUTH: bool  # rows without a label are left out of its mean

    def needs(self, settings: Any, student_shape: Shape, teacher_shape: Shape) -> Sequence[str]:
        """Name what is read of both models: "logits", "hidden.3", "attention.1"."""

    def build(self, settings: Any, student_shape: Shape, teacher_shape: Shape) -> Any | None:
        """Return what the loss learns (a torch Module), or None."""

    def loss(
        self,
        student: Mapping[str, Any],
        teacher: Mapping[str, Any],
        batch: Mapping[str, Any],
        settings: Any,
        learned: Any,
    ) -> Any:
        """Return the scalar loss. `student`, `teacher`: needed tensors by name; `batch` holds
        "truth" (int64, -1 where a row has none) and "attention_mask" where there is one."""
