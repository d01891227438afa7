"""Say in one line what each step of a plan is for; people read it on screen and in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgedistill.builder.course import steps_of
from edgedistill.planner import Facts
from edgedistill.records import Candidate, Plan, Source, Step, Teacher
from edgedistill.report.words import counted
from edgedistill.store import keys

Row = Candidate | Teacher


def about(plan: Plan, facts: Facts) -> dict[str, str]:
    """Return a line a step, by its key."""
    told: dict[str, str] = {}
    everyone = list(plan.everyone())
    # an assistant's steps serve its students' rows too, and are told as its own
    helpers = [row for row in everyone if getattr(row, "role", "") == "assistant"]
    for row in [*everyone[:1], *helpers, *everyone[1:]]:
        for step in steps_of([row]):
            told.setdefault(keys.key(step), _line(step, row, facts))
    return told


def _line(step: Step, row: Row, facts: Facts) -> str:
    words = SAID.get(step.stage)
    return words(step, row, facts) if words else step.stage


def _bare(row: Row) -> str:
    """Return a row's name without its precision: "student 2x384"."""
    return row.name.partition(" fp32")[0].partition(" int8")[0]


def _encode(step: Step, row: Row, facts: Facts) -> str:
    made = step.settings["made"]
    name = facts.split_of(step)
    count = facts.rows.get(name, 0)
    if made:
        kinds = ", ".join(dict.fromkeys(made))
        return (
            f"make {counted(len(made), 'row')} of each of {count:,} {_words(name)} rows ({kinds})"
        )
    return f"{count:,} {_words(name)} rows"


def _label(step: Step, row: Row, facts: Facts) -> str:
    source = step.inputs["rows.0"]
    assert isinstance(source, Step)
    made, name = source.settings["made"], facts.split_of(source)
    of = "training" if name == "train" else _words(name)
    several = sum(name.startswith("teacher.") for name in step.inputs)
    teacher = step.inputs["teacher.0"]
    if isinstance(teacher, Step) and teacher.stage == "distill":
        return f"the assistant's logits on {f'rows made of {of}' if made else of} rows"
    whose = "the teacher's logits" if several == 1 else f"the mean of {several} teachers' logits"
    return f"{whose} on {f'rows made of {of}' if made else of} rows"


def _evaluate(step: Step, row: Row, facts: Facts) -> str:
    source = step.inputs["rows.0"]
    assert isinstance(source, Step)
    name = facts.split_of(source)
    whole = facts.rows.get(name, 0)
    return f"{row.name} on {min(step.settings['rows'] or whole, whole):,} {_words(name)} rows"


def _words(split: str) -> str:
    return split.replace("_", " ")


def _origin(step: Step) -> str:
    source = step.inputs["teacher.0"]
    return f"{source.name}'s" if isinstance(source, Source) else "the teacher's"


def _untrained(step: Step, row: Row) -> str:
    return " (untrained)" if _is_untrained(step) else ""


def _layers(layers: Sequence[int]) -> str:
    """Name the teacher's layers that start a student."""
    listed = ", ".join(map(str, layers)) or "as the family says"
    return f"{'layer' if len(layers) == 1 else 'layers'} {listed}"


def _is_untrained(step: Step) -> bool:
    for thing in step.inputs.values():
        if isinstance(thing, Step) and thing.stage in ("distill", "finetune", "prune"):
            return False
        if isinstance(thing, Step) and thing.stage == "initialize":
            return True
        if isinstance(thing, Step) and thing.stage in ("export", "quantize"):
            return _is_untrained(thing)
    return False


SAID: Mapping[str, Any] = {
    "encode": _encode,
    "label": _label,
    "evaluate": _evaluate,
    "finetune": lambda step, row, *_: f"the teacher's head, {step.settings['steps']:,} steps",
    "fold": lambda step, *_: f"a vocabulary of {step.settings['vocabulary']:,} pieces",
    "initialize": lambda step, row, *_: (
        f"{_bare(row)} from {_origin(step)} {_layers(step.settings['layers'])}"
        if step.settings["init"] == "teacher"
        else f"{_bare(row)} from random weights"
    ),
    "choose": lambda step, row, *_: (
        f"which layers start {_bare(row)}: {'; '.join(step.settings['names'])}"
    ),
    "distill": lambda step, row, *_: (
        f"{_bare(row)}, {step.settings['steps']:,} {'more ' if row.unaware else ''}steps"
        + (" on labels alone" if row.role == "control" else "")
        + (", int8 simulated" if step.settings["int8_largest"] else "")
    ),
    "prune": lambda step, row, *_: (
        f"{_bare(row)}, {step.settings['steps']:,} steps "
        f"in {counted(step.settings['rounds'], 'round')}"
        + (" on labels alone" if row.role == "control" else "")
    ),
    "export": lambda step, row, *_: f"{_bare(row)}{_untrained(step, row)} to ONNX",
    "adopt": lambda step, row, facts: f"{facts.teacher.source.name} in the form of our graphs",
    "quantize": lambda step, row, *_: (
        f"{_bare(row)}{_untrained(step, row)} by {step.settings['scheme']}"
    ),
}
