"""Score a bundle on rows, by the runtime that ships, as it is deployed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from edgedistill.bundle import evidence as evidences
from edgedistill.bundle.given import Given, given
from edgedistill.bundle.golden import Agreement
from edgedistill.bundle.opened import Bundle, load
from edgedistill.bundle.proof import compare
from edgedistill.bundle.untrusted import printable
from edgedistill.judge.evidence import Evaluation
from edgedistill.progress import bar, silent
from edgedistill.records import Progress
from edgedistill.sections import DataSpec


@dataclass(frozen=True)
class Evaluated:
    """What `eval` says of a bundle."""

    task: str
    rows: str | None  # the data's name; None: no rows were given
    evaluation: Evaluation | None
    unpaired: str | None  # why there is no drop against the evidence's baseline
    golden: Agreement
    warnings: tuple[str, ...] = ()
    of: str | None = None  # what was scored: "test rows of NAME", "rows of FILE"


def evaluate(bundle: Bundle, rows: Any, *, progress: Progress = silent) -> np.ndarray:
    """Return the outputs (examples, labels) float32 of a bundle, as it is deployed.

    `rows` is an iterable of examples, or what has `examples()` (a rows folder).
    """
    examples: Iterable[Mapping[str, Any]] = (
        rows.examples() if callable(getattr(rows, "examples", None)) else rows
    )
    total = len(rows) if hasattr(rows, "__len__") else 0
    return bundle.outputs(bar(examples, progress, total=total))


def eval_(
    folder: str | PathLike[str], *, data: DataSpec | None = None, progress: Progress = silent
) -> Evaluated:
    """Score a bundle on `data`: its test rows, or a lone file's rows; without, on golden vectors.

    The drop is paired with the baseline where the evidence beside the bundle has every row.
    """
    bundle = load(folder)
    golden = compare(bundle)
    task = bundle.manifest["task"]
    rows = None if data is None else given(data, bundle)
    warnings = tuple(filter(None, [rows.remark if rows else None, bundle.inexact()]))
    if rows is None:
        return Evaluated(task, None, None, None, golden, warnings)
    evaluation, why = judged(bundle, rows, metric=metric_of(bundle), progress=progress)
    return Evaluated(task, rows.name, evaluation, why, golden, warnings, rows.of)


def judged(
    bundle: Bundle, rows: Given, *, metric: str, progress: Progress = silent
) -> tuple[Evaluation, str | None]:
    """Judge a bundle on rows; returns it with why it is not paired with the baseline, or None."""
    from edgedistill import judge

    outputs = evaluate(bundle, rows.examples, progress=progress)
    theirs, why = baseline_outputs(bundle, rows)
    evaluation = judge.evaluate(
        outputs,
        rows.truth,
        theirs,
        task=bundle.task,
        metric=metric,
        labels=bundle.labels,
        temperature=bundle.manifest["decide"]["temperature"],
    )
    return evaluation, why


def baseline_outputs(bundle: Bundle, rows: Given) -> tuple[np.ndarray | None, str | None]:
    """Return the baseline's outputs of these rows, or why they are not known."""
    place = evidences.beside(bundle.folder.absolute())
    kept = evidences.read(place, bundle.labels)
    if kept is None:
        return None, f"no '{printable(place.name)}' beside the bundle: the baseline is not known"
    if kept.payload != bundle.manifest["payload"]:
        return None, f"'{printable(place.name)}' is of another bundle that lay here"
    digests = rows.digests()
    theirs = kept.of(digests)
    if theirs is None:
        lacking = sum(one not in kept.index for one in digests)
        return None, f"the evidence lacks {lacking:,} of {len(digests):,} rows"
    return theirs, None


def metric_of(bundle: Bundle) -> str:
    """Return the metric by which the bundle was judged, else the task's first."""
    score = bundle.manifest["figures"].get("score")
    named = score.get("metric") if isinstance(score, dict) else None
    return str(named) if named in bundle.task.METRICS else str(bundle.task.METRICS[0])
