"""Losses: one file each.

One convention for all: sum over classes (or over the keys of an attention), mean over valid rows or
tokens, times T² where there is a temperature; of hidden features the mean, so that a width does not
weigh. Padding never counts. Weights and schedules are the recipe's. A loss that reads the teacher
names what it needs of it; `logits` come from the store, everything else from a live teacher. One
that reads logits alone leaves out `needs`, one that learns nothing leaves out `build`. A setting
`temperature` is the recipe's, unless a job names it or the loss has `OWN_TEMPERATURE = True`.
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
    DIMENSIONS: tuple[str, ...]  # both shapes have them, or there is nothing to read ("layers")
    OUTPUTS: tuple[
        str, ...
    ]  # kinds of a task's outputs that it reads ("classes"); none: it doesn't

    def needs(
        self, settings: Any, student_shape: Shape, teacher_shape: Shape
    ) -> Sequence[str] | Mapping[str, str]:
        """Name what is read of both models: "logits", "hidden.3", "attention.1".

        A mapping where the names differ: the student's name -> the teacher's beside it. Raises
        `JobError` for a layer that a model has not.
        """

    def build(self, settings: Any, student_shape: Shape, teacher_shape: Shape) -> Any | None:
        """Return what the loss learns (a torch Module), or None. It is never exported."""

    def loss(
        self,
        student: Mapping[str, Any],
        teacher: Mapping[str, Any],
        batch: Mapping[str, Any],
        settings: Any,
        learned: Any,
    ) -> Any:
        """Return the scalar loss. `student`, `teacher`: needed tensors, both by the student's name.

        `batch` holds "truth" (int64, -1 where a row has none) and "attention_mask" where there is
        one. Where the teacher is not read, `teacher` is empty.
        """
