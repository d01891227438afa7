"""Recipes: recipes/*.toml into one frozen record, checked key by key; nothing heavy is loaded.

about           one line
[losses.NAME]   weight = number | [first, last] | [first, last, until], and settings of the loss
[optimisation]  settings of the stage distill, and `epochs`
[augmentation]  made = kinds of made rows, copies = how many times each
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgedistill import plugins
from edgedistill.errors import JobError, nearest
from edgedistill.settings import coerce, names, plain, setting
from edgedistill.train import objective

KEYS = ("about", "losses", "optimisation", "augmentation")
# Settings of the stage that are the plan's to decide, never a recipe's.
DECIDED = (
    "task", "family", "encoder", "losses", "metric", "seed", "threads", "dtype", "device",
    "repeats",
)  # fmt: skip


@dataclass(frozen=True)
class Planned:
    """Settings of distill that the planner turns into others before they reach the stage."""

    epochs: float = setting(
        6.0,
        "passes over all rows and those made of them, of three kinds at most; more kinds, copies "
        "vary what is read, not how much",
        low=0.001,
        high=100_000,
    )
    made: tuple[str, ...] = setting((), "kinds of made rows, or none")
    copies: int = setting(1, "how many times each kind is made", low=1, high=100)


@dataclass(frozen=True)
class Recipe:
    """How to distill: what is given, coerced; the rest are the defaults of stage and losses."""

    name: str
    about: str = ""
    losses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)  # of distill, and of `Planned`


def read(name: str, *, allow_code: bool = False) -> Recipe:
    """Read a recipe by its name or its file.

    Raises `JobError` for an unknown recipe, key, loss or kind (with the nearest), for a value out
    of range, and for a loss that is a file unless `allow_code`.
    """
    path = plugins.find_file("recipes", name)
    table = plugins.read_toml(path, JobError)
    place = f"recipe '{path.name}'"
    _known(table, KEYS, place)
    losses = {_beside(path, loss): told for loss, told in _table(table, "losses", place).items()}
    if not losses:
        raise JobError(f"{place} names no losses: write [losses.soft_labels]")
    found = objective.read(losses, place=f"{place} losses", allow_code=allow_code)
    augmentation = _table(table, "augmentation", place)
    _known(augmentation, ("made", "copies"), f"{place} [augmentation]")
    optimisation = _table(table, "optimisation", place)
    stage = plugins.find("stages", "distill").Settings
    allowed = [*(each for each in names(stage) if each not in DECIDED), "epochs"]
    _known(optimisation, allowed, f"{place} [optimisation]")
    epochs = {each: value for each, value in optimisation.items() if each == "epochs"}
    rest = {each: value for each, value in optimisation.items() if each != "epochs"}
    settings = _given(stage, rest, f"{place} [optimisation]")
    settings |= _given(Planned, epochs, f"{place} [optimisation]")
    settings |= _given(Planned, augmentation, f"{place} [augmentation]")
    _kinds(settings.get("made", ()), place)
    return Recipe(
        name=path.stem,
        about=str(table.get("about", "")),
        losses={told.name: told.plain() for told in found},
        settings=settings,
    )


def _given(cls: type, values: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the values that are given, as the class coerces them."""
    made = plain(coerce(cls, values, place))
    return {name: made[name] for name in values}


def _known(table: Mapping[str, Any], known: Any, place: str) -> None:
    for key in table:
        if key not in known:
            raise JobError(f"{place}: unknown key '{key}': {nearest(key, known)}")


def _table(table: Mapping[str, Any], name: str, place: str) -> Mapping[str, Any]:
    found = table.get(name, {})
    if not isinstance(found, Mapping):
        raise JobError(f"{place}: '{name}' is a section: write [{name}], not {name} = {found!r}")
    return found


def _kinds(made: Any, place: str) -> None:
    """Refuse a kind of made rows that no task makes; one of another task is no mistake."""
    tasks = [plugins.find("tasks", name) for name in plugins.names("tasks")]
    known = {kind for task in tasks for kind in task.MADE}
    for kind in made:
        if kind not in known:
            hint = nearest(kind, known)
            raise JobError(f"{place} [augmentation]: unknown kind of made rows '{kind}': {hint}")


def _beside(path: Path, loss: str) -> str:
    """Read the path of a loss's file from where the recipe lies."""
    near = path.parent / loss
    return str(near) if loss.endswith(".py") and near.is_file() else loss
