"""Which rows a training reads: labelled ones, those without labels, made ones, own ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edgedistill.data import split
from edgedistill.records import Step

if TYPE_CHECKING:
    from edgedistill.planner.facts import Model
    from edgedistill.planner.steps import Steps, Tutor

Part = tuple[str, tuple[str, ...]]  # a split, and the kinds of rows made of it; none: itself


class Reading(NamedTuple):
    """What one training reads."""

    parts: tuple[Part, ...]  # the training rows first
    repeats: tuple[int, ...]  # how often an epoch reads each part; empty: once
    rows: int  # of an epoch


def read(steps: Steps, kinds: tuple[str, ...] = (), *, answered: bool) -> Reading:
    """Return what a training reads; `answered`: what has no truth too, since a teacher answers.

    Own rows are repeated until they make up `data.own_weight` of an epoch, or nearly so.
    """
    wanted = ("train", "unlabelled", "own_train") if answered else ("train", "own_train")
    splits = [name for name in wanted if name in steps.facts.splits]
    parts = [(name, made) for made in dict.fromkeys(((), kinds)) for name in splits]
    counts = [steps.facts.rows[name] * max(1, len(made)) for name, made in parts]
    if "own_train" not in splits:
        return Reading(tuple(parts), (), sum(counts))
    few = sum(count for (name, _), count in zip(parts, counts, strict=True) if name == "own_train")
    times = split.repeats(steps.job.data.own_weight, sum(counts) - few, few)
    repeats = tuple(times if name == "own_train" else 1 for name, _ in parts)
    total = sum(count * often for count, often in zip(counts, repeats, strict=True))
    return Reading(tuple(parts), repeats, total)


def validation(steps: Steps, model: Model) -> dict[str, Step]:
    """Return what stops and tunes a training: the validation rows, own ones among them."""
    names = [name for name in ("validation", "own_validation") if name in steps.facts.splits]
    return {f"validation.{index}": steps.encode(name, model) for index, name in enumerate(names)}


def answers(steps: Steps, model: Model, tutor: Tutor | None) -> dict[str, Step]:
    """Return what the teacher, who reads as `model` does, answers to the validation rows.

    Nothing where a user's own rows are among them: what it errs on is what they are there for.
    """
    if "own_validation" in steps.facts.splits:
        return {}
    return {"answers.0": steps.label(steps.encode("validation", model), tutor)}
