"""Recover accuracy: return to float what costs most, one operator after another.

Operators are ranked by what each does alone: all others in float, how far the logits move on a few
rows. Then they return in that order, as in NNCF's accuracy-aware quantization, each result measured
on validation rows, until int8 costs no more than allowed or the bound is reached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgedistill.progress import bar
from edgedistill.records import Progress


class Trial(NamedTuple):
    """How a scheme is tried: each call makes a graph and runs it."""

    lost: Callable[[tuple[str, ...]], float]  # points below the parent, on validation rows
    moved: Callable[[tuple[str, ...]], float]  # mean squared difference of logits, on a few rows
    operators: Sequence[str]  # results of what can stay in float


def recover(
    trial: Trial, *, before: float, allowed: float, most: int, progress: Progress
) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """Return which operators stay in float (none where that doesn't help), and what each gave.

    `before` and `allowed` are points lost against the parent; `most` bounds the operators.
    """
    alone = {
        name: trial.moved(tuple(each for each in trial.operators if each != name))
        for name in bar(trial.operators, progress, total=len(trial.operators), unit="operators")
    }
    order = sorted(alone, key=lambda name: (-alone[name], trial.operators.index(name)))[:most]
    tried: list[dict[str, Any]] = []
    best, least = 0, before
    for count in bar(range(1, len(order) + 1), progress, total=len(order), unit="trials"):
        lost = trial.lost(tuple(order[:count]))
        name = order[count - 1]
        tried.append({"operator": name, "moves": alone[name], "lost_points": lost})
        if lost < least:
            best, least = count, lost
        if lost <= allowed:
            break
    return tuple(order[:best]), tried


def moved(expected: np.ndarray, found: np.ndarray) -> float:
    """Return the mean squared difference of logits; what is not finite is the worst."""
    error = float(((expected.astype(np.float64) - found) ** 2).mean())
    return error if np.isfinite(error) else float("inf")
