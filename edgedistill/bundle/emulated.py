"""Score a bundle as another processor would answer, beside what it answers here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from edgedistill.bundle import scoring
from edgedistill.bundle.given import given
from edgedistill.bundle.opened import Bundle, load
from edgedistill.bundle.untrusted import printable
from edgedistill.measure import emulation
from edgedistill.progress import silent
from edgedistill.records import Progress
from edgedistill.sections import DataSpec

ROWS = 300  # at most, evenly spread: emulation is some hundred times slower


@dataclass(frozen=True)
class Emulated:
    """What a bundle answers as another processor."""

    bundle: str
    cpu: str  # as qemu spells it
    instructions: str  # the int8 instruction set found there: "arm64+dotprod"
    of: str  # "test rows of NAME", "rows of FILE", or "golden vectors"
    rows: int
    score: float | None  # there, in points; None for golden vectors, which have no truth
    score_here: float | None
    agreement: float  # share of the same answers as here, in points
    difference: float  # largest between an output there and here
    largest: float  # absolute output here, which that is held against
    listed: bool  # the manifest names the instruction set as one where the file is exact

    def lines(self) -> Iterator[str]:
        """Tell it to people."""
        yield f"{self.cpu} ({self.instructions})  {self.rows:,} {printable(self.of)}, by emulation"
        if self.score is not None:
            yield f"score     {self.score:.1f} there, {self.score_here:.1f} here"
        yield (
            f"agreement {self.agreement:.1f} % the same answers as here; outputs differ by at most "
            f"{self.difference:.3g} where the largest is {self.largest:.3g}"
        )
        if not self.listed:
            yield (
                f"note      the manifest does not name {self.instructions}: its int8 arithmetic is "
                "not proven exact there"
            )


def eval_as(
    folder: str | PathLike[str],
    cpu: str,
    *,
    data: DataSpec | None = None,
    progress: Progress = silent,
) -> Emulated:
    """Run a bundle as another processor: on up to 300 rows of `data`, else its golden inputs.

    Raises `UsageError` for an unknown processor, `SurroundingsError` without qemu.
    """
    found = emulation.find(cpu)
    bundle = load(folder)
    examples, truth, of = _rows(bundle, data)
    feeds = list(_feeds(bundle, examples))
    answers = emulation.outputs(
        found,
        bundle.model,
        bundle.manifest["session"],
        feeds,
        bundle.manifest["decide"]["outputs"],
        progress=progress,
    )
    there = np.stack([each[0] for each in answers])  # a graph of fixed shape is filled up
    here = np.stack([bundle.run(feed)[0] for feed in feeds])
    return Emulated(
        bundle=bundle.folder.resolve().name,
        cpu=found.name,
        instructions=found.instructions,
        of=of,
        rows=len(examples),
        score=_score(bundle, there, truth),
        score_here=_score(bundle, here, truth),
        agreement=100 * float((there.argmax(1) == here.argmax(1)).mean()),
        difference=float(np.abs(there - here).max()),
        largest=float(np.abs(here).max()),
        listed=found.instructions in bundle.manifest["model"]["processors"],
    )


def _rows(
    bundle: Bundle, data: DataSpec | None
) -> tuple[Sequence[Mapping[str, Any]], np.ndarray | None, str]:
    """Return examples, their truth and what they are."""
    if data is None:
        examples = bundle.task.golden(bundle.encoder, bundle.labels)
        return examples, None, "golden vectors"
    rows = given(data, bundle)
    chosen = np.unique(np.linspace(0, len(rows.examples) - 1, ROWS).round().astype(int))
    examples = [rows.examples[index] for index in chosen]
    return examples, rows.truth[chosen], rows.of


def _feeds(
    bundle: Bundle, examples: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the graph's inputs, one row at a time."""
    for row in bundle.encoder.encode_many(examples):
        yield bundle.feed([row])


def _score(bundle: Bundle, outputs: np.ndarray, truth: np.ndarray | None) -> float | None:
    if truth is None:
        return None
    metric = scoring.metric_of(bundle)
    sums = bundle.task.statistics(outputs, truth, metric).sums()
    return float(bundle.task.score(sums, metric))
