"""The losses of a recipe as one: L = (1 - alpha) x those of the truth + alpha x the teacher's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgedistill import plugins, settings
from edgedistill.errors import JobError, TrainingError, nearest
from edgedistill.records import Shape


@dataclass(frozen=True)
class Told:
    """What a recipe or a job says of one loss, checked."""

    name: str
    plugin: Any
    values: Mapping[str, Any]  # those of its settings that are given
    first: float  # its weight at the first step, and at the last
    last: float
    until: float = 1.0  # the share of the run at which the last is reached

    def plain(self) -> dict[str, Any]:
        """Return it as a step's settings hold it."""
        ends = [self.first, self.last] if self.until == 1 else [self.first, self.last, self.until]
        return {"weight": self.first if self.first == self.last else ends, **self.values}

    def own(self, temperature: float) -> Any:
        """Return its own settings, complete; a temperature is the recipe's unless it names one.

        Or unless the loss has its own, for what it softens is of another size than logits are.
        """
        values = dict(self.values)
        shared = not getattr(self.plugin, "OWN_TEMPERATURE", False)
        if shared and "temperature" in settings.names(self.plugin.Settings):
            values.setdefault("temperature", temperature)
        return settings.coerce(self.plugin.Settings, values, f"losses.{self.name}")

    def needs(self, temperature: float, student: Shape, teacher: Shape) -> dict[str, str]:
        """Name what is read of the student -> of the teacher. Raises `JobError`."""
        return reads(self.plugin, self.own(temperature), student, teacher)

    @property
    def inside(self) -> bool:
        """Say whether it reads more of the models than their logits, by what it declares."""
        return bool(getattr(self.plugin, "DIMENSIONS", ()))

    def serves(self, outputs: str) -> bool:
        """Say whether it reads outputs of that kind, or none at all."""
        known = getattr(self.plugin, "OUTPUTS", ())
        return not known or outputs in known

    def lacks(self, *shapes: Shape) -> tuple[str, ...]:
        """Name the dimensions that it reads and a shape has not: then it has nothing to read."""
        wanted = getattr(self.plugin, "DIMENSIONS", ())
        return tuple(each for each in wanted if not all(each in shape for shape in shapes))


@dataclass(frozen=True)
class Term:
    """One loss, with its weight at the first step and at the last (linear between).

    The last is reached when the share `until` of the run is over, and kept from there.
    """

    name: str
    plugin: Any
    settings: Any
    first: float
    last: float
    needs: Mapping[str, str]  # the student's name -> the teacher's beside it
    learned: Any  # a torch Module, trained with the student and never exported; or None
    until: float = 1.0

    def weight(self, share: float) -> float:
        """Return the weight when that share (0 to 1) of the run is over."""
        return self.first + (self.last - self.first) * min(share / self.until, 1.0)


def read(
    losses: Mapping[str, Any], *, place: str = "losses", allow_code: bool = False
) -> tuple[Told, ...]:
    """Check a mapping: loss name -> {"weight": ..., settings of its own}.

    A weight is a number, [first, last] or [first, last, until]. Loads nothing heavy. Raises
    `JobError` naming the place ("distill.losses.soft_labels.weight").
    """
    made, all_names = [], plugins.names("losses")
    for name, told in losses.items():
        if not name.endswith(".py") and name not in all_names:
            raise JobError(f"{place}: unknown loss '{name}': {nearest(name, all_names)}")
        plugin = plugins.find("losses", name, allow_code=allow_code)
        if not isinstance(told, Mapping):
            raise JobError(f"{place}.{name}: expected settings such as weight, got {told!r}")
        known = [*settings.names(plugin.Settings), "weight"]
        for key in told:
            if key not in known:
                raise JobError(f"{place}.{name}: unknown setting '{key}': {nearest(key, known)}")
        given = {key: value for key, value in told.items() if key != "weight"}
        values = settings.plain(settings.coerce(plugin.Settings, given, f"{place}.{name}"))
        ends = _ends(told.get("weight", 1.0), f"{place}.{name}.weight")
        made.append(Told(name, plugin, {key: values[key] for key in given}, *ends))
    return tuple(made)


def terms(
    losses: Mapping[str, Mapping[str, Any]],
    *,
    alpha: float,
    temperature: float,
    student: Shape,
    teacher: Shape,
    seed: int = 0,
) -> tuple[Term, ...]:
    """Make the terms of the losses that have a weight; what they learn is drawn from the seed.

    Raises `JobError` or `TrainingError`.
    """
    # Whether a stranger's code may run was asked before a step that names it was made.
    found = weighed(read(losses, allow_code=True), alpha)
    made = []
    for told in found:
        own = told.own(temperature)
        scale = alpha if told.plugin.READS_TEACHER else 1 - alpha
        made.append(
            Term(
                name=told.name,
                plugin=told.plugin,
                settings=own,
                first=scale * told.first,
                last=scale * told.last,
                until=told.until,
                needs=told.needs(temperature, student, teacher),
                learned=_drawn(told.plugin, own, student, teacher, seed),
            )
        )
    return tuple(made)


def weighed(found: Sequence[Told], alpha: float) -> tuple[Told, ...]:
    """Return the losses that count. Raises `TrainingError` where none does."""
    kept = tuple(
        told
        for told in found
        if (told.first or told.last) and (alpha if told.plugin.READS_TEACHER else 1 - alpha)
    )
    if not kept:
        raise TrainingError("no loss has a weight above zero: nothing would be trained")
    return kept


def reads(plugin: Any, own: Any, student: Shape, teacher: Shape) -> dict[str, str]:
    """Return what a loss reads: the student's name -> the teacher's. Raises `JobError`."""
    if not hasattr(plugin, "needs"):
        return {"logits": "logits"}
    named = plugin.needs(own, student, teacher)
    return dict(named) if isinstance(named, Mapping) else {name: name for name in named}


def learns(plugin: Any, own: Any, student: Shape, teacher: Shape) -> Any:
    """Return what a loss learns (a torch Module), or None."""
    return plugin.build(own, student, teacher) if hasattr(plugin, "build") else None


def needs(found: Sequence[Term], *, of_teacher: bool = False) -> tuple[str, ...]:
    """Name all that is read of the student, or of the teacher."""
    if of_teacher:
        read = (term.needs.values() for term in found if term.plugin.READS_TEACHER)
        return tuple(sorted({name for names in read for name in names}))
    return tuple(sorted({name for term in found for name in term.needs}))


def total(
    found: Sequence[Term],
    student: Mapping[str, Any],
    teacher: Mapping[str, Any],
    batch: Mapping[str, Any],
    *,
    share: float,
) -> Any:
    """Return the scalar that is minimised; `student` and `teacher` each by its own names."""
    parts = []
    # Where all have faded out, the end is a zero that still has a gradient.
    for term in [term for term in found if term.weight(share)] or found:
        ours = {name: student[name] for name in term.needs}
        theirs = {}
        if term.plugin.READS_TEACHER:
            theirs = {name: teacher[other] for name, other in term.needs.items()}
        value = term.plugin.loss(ours, theirs, batch, term.settings, term.learned)
        parts.append(term.weight(share) * value)
    return sum(parts[1:], parts[0])


def _drawn(plugin: Any, own: Any, student: Shape, teacher: Shape, seed: int) -> Any:
    """Return what a loss learns, from the seed alone."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return learns(plugin, own, student, teacher)


def _ends(weight: Any, where: str) -> tuple[float, float, float]:
    """Read a weight: a number, [first, last] or [first, last, until].

    Texts of a command line too ("2", "1,0", "[1, 0, 0.5]").
    """
    told = weight
    if isinstance(weight, str):
        told = weight.strip().strip("[]()").split(",")
        told = told if len(told) > 1 else told[0]
    ends = list(told) if isinstance(told, list | tuple) else [told, told]
    try:
        numbers = [math.nan if isinstance(end, bool) else float(end) for end in ends]
    except (TypeError, ValueError):
        numbers = []
    numbers += [1.0] if len(numbers) == 2 else []
    if len(numbers) == 3 and all(0 <= number < math.inf for number in numbers):
        first, last, until = numbers
        if 0 < until <= 1:
            return first, last, until
    raise JobError(
        f"{where}: expected a number of 0 or more, or [first, last], or [first, last, share of the "
        f"run at which it is reached], got {weight!r}"
    )
