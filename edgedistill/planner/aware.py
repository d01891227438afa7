"""A student distilled on with int8 simulated, so that its weights bear it."""

from __future__ import annotations

from collections.abc import Sequence

from edgedistill import plugins
from edgedistill.graph.weights import FULL
from edgedistill.planner.steps import Steps
from edgedistill.records import Candidate, Step
from edgedistill.settings import coerce

RATE = 0.1  # of the first training's: the weights are to move within a step of int8


def schemes(steps: Steps, tried: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return those of the schemes that a student is distilled on for; none where the job says so.

    Each with its word for people.
    """
    if steps.job.quantize.aware == "never":
        return []
    allow_code = steps.allow_code
    return [
        (name, word)
        for name, word in tried
        if plugins.find("schemes", name, allow_code=allow_code).PRECISION == "int8"
    ]


def distilled_on(steps: Steps, training: Step, rows: Sequence[Candidate]) -> Step:
    """Make the training that goes on from another: its rows, losses and optimisation, some steps.

    All int8 rows of the student share it, so the narrowest weights of theirs are simulated.
    """
    share = steps.job.quantize.aware_share
    settings = {
        **training.settings,
        "steps": max(1, round(share * training.settings["steps"])),
        "rate": training.settings["rate"] * RATE,
        "int8_largest": min(_largest(steps, row) for row in rows),
    }
    return Step("distill", settings, {**training.inputs, "student.0": training})


def _largest(steps: Steps, row: Candidate) -> int:
    assert isinstance(row.graph, Step)
    plugin = plugins.find("schemes", row.scheme, allow_code=steps.allow_code)
    settings = coerce(plugin.Settings, row.graph.settings["scheme_settings"], "quantize")
    return getattr(settings, "largest", FULL)
