"""Which teacher layer stands beside each student layer, and what losses over layers share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgedistill.errors import JobError, nearest
from edgedistill.records import Shape

MAPS = ("uniform", "last", "first")
ABOUT = "teacher layer of each student layer: uniform, last, first, or their numbers from 0"


def pairs(told: Sequence[int] | str, student: int, teacher: int, place: str) -> list[int]:
    """Return for each of the student's layers the number, from 0, of the teacher's beside it.

    uniform: the last of as many equal parts (TinyBERT, Jiao et al., 2020); last, first: the
    teacher's topmost or lowest ones in their order. Raises `JobError` naming `place`.
    """
    if isinstance(told, str):
        if told not in MAPS:
            hint = nearest(told, MAPS)
            raise JobError(f"{place}: unknown map '{told}': {hint}, or layer numbers such as 1,3")
        if student > teacher:
            raise JobError(
                f"{place}: '{told}' needs a teacher of as many layers, it has {teacher} for "
                f"{student}: give their numbers"
            )
        made = {
            "uniform": [(index + 1) * teacher // student - 1 for index in range(student)],
            "last": list(range(teacher - student, teacher)),
            "first": list(range(student)),
        }
        return made[told]
    if len(told) != student or not all(0 <= index < teacher for index in told):
        raise JobError(
            f"{place}: expected a layer of the teacher, 0 to {teacher - 1}, for each of the "
            f"student's {student}, got {', '.join(map(str, told))}"
        )
    return list(told)


def named(
    kind: str, told: Sequence[int] | str, student: Shape, teacher: Shape, place: str
) -> dict[str, str]:
    """Return the student's names of a kind ("hidden.0") -> the teacher's beside them."""
    found = pairs(told, student["layers"], teacher["layers"], place)
    return {f"{kind}.{ours}": f"{kind}.{theirs}" for ours, theirs in enumerate(found)}


def tokens(batch: Mapping[str, Any], like: Any) -> Any:
    """Return which tokens count of (rows, length, ...), bool: all where the batch has no mask."""
    import torch

    mask = batch.get("attention_mask")
    if mask is None:
        return torch.ones(like.shape[:2], dtype=torch.bool, device=like.device)
    return mask.bool()


def mean_over(values: Any, valid: Any) -> Any:
    """Return the mean of (rows, length) values over the valid ones."""
    return values.where(valid, 0.0).sum() / valid.sum().clamp(min=1)


def projections(names: Sequence[str], student: int, teacher: int) -> Any:
    """Return a learned map from the student's width to the teacher's for each name; None if equal.

    It starts orthogonal: lengths and angles come through as well as the widths let them.
    """
    from torch import nn

    if student == teacher:
        return None
    made = nn.ModuleDict()
    for name in names:
        part = nn.Linear(student, teacher, bias=False)
        nn.init.orthogonal_(part.weight)
        made[key(name)] = part
    return made


def key(name: str) -> str:
    """Return a need's name as a ModuleDict takes it."""
    return name.replace(".", "_")


def stages(told: Sequence[int], student: Shape, teacher: Shape, place: str) -> list[str]:
    """Return the names of stages of a convolutional network, all where none are told."""
    count = min(student["stages"], teacher["stages"])
    if not all(0 <= stage < count for stage in told):
        raise JobError(f"{place}: expected 0 to {count - 1}, got {', '.join(map(str, told))}")
    return [f"feature.{stage}" for stage in told or range(count)]


def same_size(ours: Any, theirs: Any) -> tuple[Any, Any]:
    """Average the larger of two feature maps (rows, channels, height, width) down to the other."""
    from torch.nn.functional import adaptive_avg_pool2d

    size = (min(ours.shape[2], theirs.shape[2]), min(ours.shape[3], theirs.shape[3]))

    def fitted(one: Any) -> Any:
        return one if tuple(one.shape[2:]) == size else adaptive_avg_pool2d(one, size)

    return fitted(ours), fitted(theirs)
