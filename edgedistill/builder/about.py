"""What people are told first of a build: the rows, the teacher, what the test rows can show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgedistill import plugins
from edgedistill.builder import given
from edgedistill.builder.brought import BESIDE, Found
from edgedistill.data import split
from edgedistill.judge import evidence
from edgedistill.planner import Facts

MUCH_CUT = 0.02  # of rows whose length had no say
LABELS_SHOWN = 10  # of a model that has no names for them


@dataclass(frozen=True)
class About:
    """Tells what was found, as `plan` and `build` print it first."""

    data: split.DataSet
    found: Found
    facts: Facts
    why: str  # this metric
    cut: Mapping[str, float]  # share of the rows of a split that max_length cuts
    private: bool
    unnamed: bool  # the model's outputs have no names of their own
    own_limit: bool  # the drop on the own rows has a limit

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield headings and texts."""
        yield from self._rows()
        yield from self._teacher()
        yield "metric", f"{self.facts.metric.replace('_', ' ')} ({self.why})"
        yield "", evidence.can_show(self.facts.rows["test"])
        for pair, count in self.data.overlap.items():
            if count:
                yield "overlap", f"{count:,} rows of {pair} are the same inputs"

    def _rows(self) -> Iterator[tuple[str, str]]:
        data, facts = self.data, self.facts
        order = [name for name in split.SPLITS if name in facts.rows]
        rows = ", ".join(f"{facts.rows[name]:,} {name}" for name in order)
        columns = " + ".join(f"'{data.columns[c]}'" for c in data.columns if c != "label")
        shown = facts.labels[:4]
        labels = ", ".join(shown) + (", ..." if len(facts.labels) > len(shown) else "")
        yield (
            "task",
            f"{data.task} · {len(facts.labels)} labels ({labels}) · "
            f"{columns} -> '{data.columns.get('label', 'label')}' · {rows} rows",
        )
        yield from self._own()
        for row in () if self.private else data.preview:
            yield "", " | ".join(f"{name}: {value}" for name, value in row.items())[:110]
        every = (*order, *split.OWN)
        ours = [name.replace("_", " ") for name in every if data.origin.get(name) == "cut"]
        if ours:
            yield "", f"{' and '.join(ours)} cut by us, by the hash of each row's inputs"
        if data.ignored:
            yield "ignored", f"{', '.join(data.ignored)} (beside the splits, not used)"

    def _own(self) -> Iterator[tuple[str, str]]:
        if self.data.own is None:
            return
        name, columns = self.data.own
        rows = ", ".join(f"{self.facts.rows[each]:,} {each[4:]}" for each in split.OWN)
        inputs = " + ".join(f"'{columns[role]}'" for role in columns if role != "label")
        yield "own rows", f"{name} · {inputs} -> '{columns['label']}' · {rows} rows"
        yield "", f"own: {evidence.can_show(self.facts.rows['own_test'])}"
        if not self.own_limit:
            yield "", "no limit on their drop: --limit max_own_drop_points=2 sets one"

    def _teacher(self) -> Iterator[tuple[str, str]]:
        found, teacher = self.found, self.facts.teacher
        if found.given is not None:
            yield from given.lines(found.name, found.given, found.parameters, found.dtype)
        else:
            yield from self._checkpoint()
        length, cut = teacher.encoder.get("max_length"), self.cut
        if length:
            share = ""
            if "train" in cut:  # not where the user has named it
                share = f", which cuts {100 * cut['train']:.1f} % of the training rows"
            yield "", f"max_length {length}{share}"
            for name in (name for name in BESIDE if cut.get(name, 0) > MUCH_CUT):
                told = f"it cuts {100 * cut[name]:.1f} % of the {name.replace('_', ' ')} rows"
                yield "", f"{told}: --set task.max_length={2 * length} would cut fewer"
        if self.unnamed:
            labels = self.facts.labels
            yield "labels", "the model names none: its outputs are taken in this order"
            for index, label in enumerate(labels[:LABELS_SHOWN]):
                yield "", f"LABEL_{index:<4} {label}"
            if len(labels) > LABELS_SHOWN:
                yield "", f"and {len(labels) - LABELS_SHOWN} more"

    def _checkpoint(self) -> Iterator[tuple[str, str]]:
        found, teacher = self.found, self.facts.teacher
        family = plugins.find("families", teacher.family)
        head = "" if found.has_head else " · no head yet: it gets one first"
        kind = (found.config.get("architectures") or [found.model_type])[0]
        size = found.dtype
        if found.parameters:
            size = f"{found.parameters / 1e6:.1f} M · {found.dtype}"
        yield "teacher", f"{kind} · {family.name(teacher.shape)} · {size}{head}"
        for model in self.facts.further:
            family = plugins.find("families", model.family)
            text = f"{model.source.name} · {family.name(model.shape)} · beside the first"
            yield "", f"{text}, its logits averaged with the others'"
