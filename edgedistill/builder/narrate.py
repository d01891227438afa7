"""Say in one line what each step of a plan is for; people read it on screen and in the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgedistill.builder.course import steps_of
from edgedistill.records import Candidate, Plan, Source, Step
from edgedistill.store import keys


def about(plan: Plan, rows: Mapping[str, int]) -> dict[str, str]:
    """Return a line a step, by its key; `rows` counts those of each split."""
    told: dict[str, str] = {}
    splits = {id(thing): name for name, thing in _sources(plan).items()}
    for row in plan.rows():
        for step in steps_of([row]):
            told.setdefault(keys.key(step), _line(step, row, splits, rows))
    return told


def _line(step: Step, row: Candidate, splits: Mapping[int, str], rows: Mapping[str, int]) -> str:
    words = SAID.get(step.stage)
    return words(step, row, splits, rows) if words else step.stage


def _bare(row: Candidate) -> str:
    """Return a row's name without its precision: "student 2x384"."""
    return row.name.partition(" fp32")[0].partition(" int8")[0]


def _encode(step: Step, row: Candidate, splits: Mapping[int, str], rows: Mapping[str, int]) -> str:
    made = step.settings["made"]
    name = splits.get(id(step.inputs["rows.0"]), "rows")
    if made:
        return f"make {len(made)} rows of each of {rows.get(name, 0):,} ({', '.join(made)})"
    return f"{rows.get(name, 0):,} {name} rows"


def _label(step: Step, row: Candidate, splits: Mapping[int, str], rows: Mapping[str, int]) -> str:
    source = step.inputs["rows.0"]
    made = isinstance(source, Step) and source.settings["made"]
    return f"the teacher's logits on {'made' if made else 'training'} rows"


def _evaluate(
    step: Step, row: Candidate, splits: Mapping[int, str], rows: Mapping[str, int]
) -> str:
    source = step.inputs["rows.0"]
    assert isinstance(source, Step)
    name = splits.get(id(source.inputs["rows.0"]), "rows")
    count = min(step.settings["rows"] or rows.get(name, 0), rows.get(name, 0))
    return f"{row.name} on {count:,} {name} rows"


def _origin(step: Step) -> str:
    source = step.inputs["teacher.0"]
    return f"{source.name}'s" if isinstance(source, Source) else "the teacher's"


def _untrained(step: Step, row: Candidate) -> str:
    return " (untrained)" if _is_untrained(step) else ""


def _is_untrained(step: Step) -> bool:
    for thing in step.inputs.values():
        if isinstance(thing, Step) and thing.stage in ("distill", "finetune"):
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
    "initialize": lambda step, row, *_: (
        f"{_bare(row)} from {_origin(step)} layers "
        f"{', '.join(map(str, step.settings['layers'])) or 'as the family says'}"
        if step.settings["init"] == "teacher"
        else f"{_bare(row)} from random weights"
    ),
    "distill": lambda step, row, *_: (
        f"{_bare(row)}, {step.settings['steps']:,} steps"
        + (" on labels alone" if row.role == "control" else "")
    ),
    "export": lambda step, row, *_: f"{_bare(row)}{_untrained(step, row)} to ONNX",
    "quantize": lambda step, row, *_: (
        f"{_bare(row)}{_untrained(step, row)} by {step.settings['scheme']}"
    ),
}


def _sources(plan: Plan) -> dict[str, Source]:
    """Return the split that each source of rows is, as the baseline reads them."""
    found: dict[str, Source] = {}
    evaluated = {"train": plan.baseline.train, "validation": plan.baseline.validation}
    evaluated["test"] = plan.baseline.test
    for name, step in evaluated.items():
        encoded = step.inputs["rows.0"] if step else None
        if isinstance(encoded, Step) and isinstance(encoded.inputs["rows.0"], Source):
            found[name] = encoded.inputs["rows.0"]
    return found
