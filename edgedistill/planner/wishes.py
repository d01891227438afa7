"""What the recipe, the starter and the job say of each stage: checked, and laid over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgedistill import plugins
from edgedistill.errors import JobError, nearest
from edgedistill.job import Job
from edgedistill.planner.facts import Facts
from edgedistill.records import Shape
from edgedistill.settings import coerce, names, setting
from edgedistill.train import objective, pace, recipe


@dataclass(frozen=True)
class Planned:
    """Settings of finetune that the planner turns into others before they reach the stage."""

    epochs: float = setting(4.0, "passes over the rows", low=0.001, high=100_000)


@dataclass(frozen=True)
class Recovery:
    """Settings of prune that the planner turns into others before they reach the stage."""

    epochs: float = setting(2.0, "passes over all rows, of all rounds together", low=0.001)


MADE_OF = ("train", "unlabelled", "own_train")  # splits that rows are made of
MOST_COUNTED = 3  # kinds of made rows that say how long to train
MOST_MADE = 300_000  # rows, beyond which none is made twice, unless the job says so

PLANNED: Mapping[str, type] = {
    "finetune": Planned,
    "distill": recipe.Planned,
    "prune": Recovery,
}


@dataclass(frozen=True)
class Wishes:
    """What is wished of each stage. The job lies over the starter, and that over the recipe."""

    job: Job
    facts: Facts

    def check(self) -> None:
        """Refuse what no stage takes, of stages that this plan does without too."""
        for stage in self.job.stages:
            self.settings(stage)
            if stage in PLANNED:
                self.planned(stage)

    def of(self, stage: str) -> dict[str, Any]:
        """Return what is wished of a stage's own settings.

        Raises `JobError` for a name that the stage does not know.
        """
        planned = names(PLANNED[stage]) if stage in PLANNED else []
        return {name: value for name, value in self._all(stage).items() if name not in planned}

    def settings(self, stage: str) -> Any:
        """Return the wishes as the stage reads them, its defaults filled in."""
        return coerce(plugins.find("stages", stage).Settings, self.of(stage), stage)

    def planned(self, stage: str) -> Any:
        """Return the settings that the planner turns into others: epochs into steps."""
        known = names(PLANNED[stage])
        told = {name: value for name, value in self._all(stage).items() if name in known}
        return coerce(PLANNED[stage], told, stage)

    def steps(self, stage: str, rows: int, batch: int) -> int:
        """Return how many steps a training of a stage takes: its epochs, as many as the job says.

        Where it says none, those of the recipe, and more of them where rows are few.
        """
        asked = "epochs" in self.job.stages.get(stage, {})
        fewest = 1 if asked else pace.FEWEST
        return pace.steps(rows, epochs=self.planned(stage).epochs, batch=batch, fewest=fewest)

    def losses(self, outputs: str, *shapes: Shape) -> tuple[objective.Told, ...]:
        """Return the losses: the recipe's, what the job says of each laid over it.

        Each that reads outputs must know those of the task. Of a recipe's losses those count that
        find what they read in models of these shapes, so that one recipe can serve encoders and
        convolutions; the job's must be among them, and at least one that reads more than logits,
        where there are such. Raises `JobError`.
        """
        told = self.job.stages.get("distill", {}).get("losses", {})
        if not isinstance(told, Mapping):
            raise JobError(f"distill.losses: expected losses by name, got {told!r}")
        merged: dict[str, Any] = dict(self.facts.recipe.losses)
        for name, values in told.items():
            ours = merged.get(name, {})
            merged[name] = {**ours, **values} if isinstance(values, Mapping) else values
        allowed = self.job.run.allow_code
        found = objective.read(merged, place="distill.losses", allow_code=allowed)
        for one in found:
            if not one.serves(outputs):
                raise JobError(
                    f"distill.losses: '{one.name}' makes no sense for {self.facts.task}, whose "
                    f"outputs are {outputs}: it reads {_words(one.plugin.OUTPUTS)}"
                )
            lacks = one.lacks(*shapes)
            if lacks and one.name in told and (one.first or one.last):
                raise JobError(
                    f"distill.losses: '{one.name}' reads {_words(lacks)} of both models, and here "
                    f"not both have such: their shapes say {_words(_common(shapes))}"
                )
        kept = tuple(one for one in found if not one.lacks(*shapes))
        if any(one.inside for one in found) and not any(one.inside for one in kept):
            able = [each for each in plugins.names("recipes") if _reads(each, shapes)]
            raise JobError(
                f"the recipe '{self.facts.recipe.name}' reads nothing of such a model: "
                f"{_inside(found, shapes)}; recipes that do: {', '.join(able)}"
            )
        return kept

    def made(self, offered: tuple[str, ...]) -> list[str]:
        """Return the kinds of made rows, each as often as it is wished.

        Of a recipe's kinds those that the task offers; the job's must be among them. Of many rows
        each kind is made fewer times than the recipe says: they are varied enough themselves.
        """
        planned = self.planned("distill")
        if "none" in planned.made and len(planned.made) > 1:
            raise JobError("distill.made: 'none' stands alone, or is left out")
        kinds = [kind for kind in planned.made if kind not in ("", "none")]
        if "made" in self.job.stages.get("distill", {}):
            for kind in kinds:
                if kind not in offered:
                    raise JobError(f"distill.made: unknown kind '{kind}': {nearest(kind, offered)}")
        kinds = [kind for kind in kinds if kind in offered]
        copies = planned.copies
        if "copies" not in self.job.stages.get("distill", {}):
            rows = sum(self.facts.rows.get(name, 0) for name in MADE_OF)
            copies = max(1, min(copies, MOST_MADE // max(1, rows * len(kinds))))
        return kinds * copies

    def counted(self, offered: tuple[str, ...]) -> tuple[str, ...]:
        """Return the kinds of made rows by which epochs are counted.

        Each once and three at most: copies and more kinds vary what is read, not how much.
        """
        return tuple(dict.fromkeys(self.made(offered)))[:MOST_COUNTED]

    def _all(self, stage: str) -> dict[str, Any]:
        told = dict(self.job.stages.get(stage, {}))
        known = names(plugins.find("stages", stage).Settings)
        known += names(PLANNED[stage]) if stage in PLANNED else []
        for name in told:
            if name not in known:
                raise JobError(f"unknown setting '{stage}.{name}': {nearest(name, known)}")
        told.pop("losses", None)  # see `losses`
        made: dict[str, Any] = {}
        recipes = self.facts.recipe.settings if stage == "distill" else {}
        for layer in (recipes, self.facts.starter.get(stage, {}), told):
            if "epochs" in layer:  # they say how many steps, whatever was said below
                made.pop("steps", None)
            made |= layer
        return made


def _reads(name: str, shapes: Sequence[Shape]) -> bool:
    """Say whether a recipe has what it reads in models of these shapes."""
    found = objective.read(recipe.read(name).losses)
    inside = [one for one in found if one.inside]
    return not inside or any(not one.lacks(*shapes) for one in inside)


def _inside(found: Sequence[objective.Told], shapes: Sequence[Shape]) -> str:
    """Say what losses look for in vain."""
    vain = [one for one in found if one.inside]
    return "; ".join(f"'{one.name}' reads its {_words(one.lacks(*shapes))}" for one in vain)


def _common(shapes: Sequence[Shape]) -> list[str]:
    return [name for name in shapes[0] if all(name in shape for shape in shapes)]


def _words(names: Sequence[str]) -> str:
    return ", ".join(name for name in names if "." not in name)
