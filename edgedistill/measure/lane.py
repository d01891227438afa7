"""A lane: one row of the report while it is measured, its probe and what came back so far."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill.data.arrays import Arrays
from edgedistill.measure import statistics, yardstick
from edgedistill.measure.transport import ProbeFailed, Transport
from edgedistill.records import Yardstick

LOAD_DEADLINE_S = 120.0
LEAST_DEADLINE_S = 120.0
PATIENCE = 30  # a block may take this many times what its first runs told


@dataclass(frozen=True)
class Subject:
    """What is measured: a model file with its session, and the rows that it runs.

    `sample` is an arrays folder of graph inputs, one row a run (already batched), sorted by length,
    the same rows for every subject. `longest` is the row to run before memory is read; where it
    was added for that alone, `timed` says how many rows before it are timed (None: all).
    `products` are mean operations of a run by arithmetic, {"fp32": .., "int8": ..}; `files` lie
    beside the model (external data).
    """

    name: str
    model: Path
    session: Mapping[str, Any]
    sample: Path
    longest: int
    products: Mapping[str, float] | None = None
    timed: int | None = None
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Effort:
    """How much is measured. The defaults are the contract's."""

    seconds: float = 20.0  # the budget that all rows share, once the least is done
    rounds: int = 20  # at least
    runs: int = 200  # at least, of each model that is not slow
    enough: int = 1000  # runs of each model: no more rounds
    slow_seconds: float = 60.0  # what one slow model may take
    loads: int = 3  # processes that load each model: time and memory differ from one to the next
    drop: int = 3  # runs to warm up in each block


@dataclass
class Lane:
    """One subject with its live probe; blocks and orders by round."""

    subject: Subject
    probe: Transport
    rows: int = 0
    count: int = 0  # runs of a block that are kept
    drop: int = 0
    slow: bool = False
    loads_ms: list[float] = field(default_factory=list)  # of this process, then of those after it
    bare_mb: float | None = None
    peaks_mb: list[float] = field(default_factory=list)  # above a bare runtime, the same
    cold_ms: float = 0.0
    usual_ms: float = 0.0
    blocks: dict[int, list[float]] = field(default_factory=dict)
    orders: dict[int, list[int]] = field(default_factory=dict)
    failed: str | None = None
    refused: bool = False  # it failed, but its probe lived and said no: the file is at fault

    @property
    def runs(self) -> int:
        """How many runs were kept so far."""
        return sum(map(len, self.blocks.values()))

    def load(self) -> None:
        """Load the model, run it once cold, then its longest row, then a few to learn its pace."""
        subject = self.subject
        self.rows = subject.timed or Arrays(subject.sample).rows
        for path in (subject.model, *subject.files):
            self.probe.put(path, path.name)
        self.probe.put(subject.sample, "rows")
        size_mb = subject.model.stat().st_size / 1e6
        answer = self.probe.ask(
            "load",
            deadline=LOAD_DEADLINE_S + size_mb,
            model=subject.model.name,
            session=dict(subject.session),
            rows="rows",
        )
        self.loads_ms, self.bare_mb = [answer["load_ms"]], answer["bare_mb"]
        middle = self.rows // 2
        self.cold_ms = self._timed([middle])[0]
        self._timed([subject.longest])
        pace = [self.rows // 4, middle, self.rows * 3 // 4]
        self.usual_ms = float(np.median(self._timed(pace)))

    def settle(self, share_s: float, effort: Effort) -> None:
        """Decide how many runs a block holds, from the pace and this row's share of the budget.

        The whole sample where the share allows, at least what makes the least runs in the least
        rounds. Where even that is more than a slow model may take: what fits, down to one.
        """
        second = max(self.usual_ms, 1e-4) / 1e3 * effort.rounds  # what one run a block costs
        least = min(self.rows, math.ceil(effort.runs / effort.rounds))
        self.slow = (least + effort.drop) * second > effort.slow_seconds
        self.drop = min(1, effort.drop) if self.slow else effort.drop
        if self.slow:
            self.count = max(1, min(least, int(effort.slow_seconds / second) - self.drop))
        else:
            self.count = max(least, min(self.rows, int(share_s / second) - self.drop))

    def enough(self, effort: Effort) -> bool:
        """Say whether the least has been done."""
        rounds = len(self.blocks) >= effort.rounds
        return rounds and (self.slow or self.runs >= effort.runs)

    def run(self, number: int, offset: float) -> None:
        """Run this round's block: the sample, or its first part, in this round's order."""
        order = spread_order(self.rows, offset)[: self.count]
        self.blocks[number] = self._timed(order[:1] * self.drop + order, self.drop)
        self.orders[number] = order

    def finish(self) -> None:
        """Read the peak of memory: every row, the longest too, has run by now."""
        peak = self.probe.ask("memory", deadline=LEAST_DEADLINE_S)["peak_mb"]
        if peak is not None and self.bare_mb is not None:
            self.peaks_mb = [max(0.0, peak - self.bare_mb)]

    def again(self, probes: Sequence[Transport]) -> None:
        """Load the model in fresh processes too, one after another, and run a block in each."""
        for probe in probes:  # they start at the same time
            probe.ask("hello", deadline=LEAST_DEADLINE_S)
        for probe in probes:
            other = Lane(self.subject, probe, count=self.count)
            other.load()
            other.run(0, 0.0)
            other.finish()
            self.loads_ms += other.loads_ms
            self.peaks_mb += other.peaks_mb

    def attempt(self, act: Callable[[], None]) -> bool:
        """Do one thing; where the probe fails, keep its last words and say so."""
        if self.failed is None:
            try:
                act()
            except ProbeFailed as error:
                self.failed, self.refused = str(error), error.refused
        return self.failed is None

    def spread(self, slowness: Mapping[int, float]) -> float:
        """Return how unsteady this row was, over the yardstick of each round."""
        medians = statistics.block_medians(self.blocks, self.orders, self.rows)
        return statistics.spread(medians, slowness)

    def load_ms(self) -> float:
        """Return how long a load takes, the median of its processes."""
        return float(np.median(self.loads_ms))

    def memory_mb(self) -> float | None:
        """Return the peak above a bare runtime, the median, None where the system does not tell."""
        return float(np.median(self.peaks_mb)) if self.peaks_mb else None

    def size_mb(self) -> float:
        """Return the size of the model's files."""
        files = (self.subject.model, *self.subject.files)
        return sum(path.stat().st_size for path in files) / 1e6

    def _timed(self, order: list[int], drop: int = 0) -> list[float]:
        deadline = max(LEAST_DEADLINE_S, PATIENCE * len(order) * self.usual_ms / 1e3)
        return list(self.probe.ask("block", deadline=deadline, order=order, drop=drop)["ms"])


@dataclass
class Yard:
    """The yardstick's probe, and the rates of each round."""

    probe: Transport
    rounds: dict[int, Yardstick] = field(default_factory=dict)

    def load(self) -> None:
        """Load the three graphs into the one probe."""
        with tempfile.TemporaryDirectory(prefix="edgedistill-yardstick-") as folder:
            yardstick.put(Path(folder))
            for made in sorted(Path(folder).iterdir()):
                self.probe.put(made, made.name)
        for graph in yardstick.GRAPHS:
            self.probe.ask(
                "load",
                deadline=LOAD_DEADLINE_S,
                name=graph,
                model=f"{graph}.onnx",
                session=dict(yardstick.SESSION),
                rows=f"{graph}.rows",
            )

    def run(self, number: int, drop: int) -> None:
        """Run this round's block of each graph."""
        blocks = {}
        for graph in yardstick.GRAPHS:
            order = yardstick.order(graph, drop)
            answer = self.probe.ask(
                "block", deadline=LEAST_DEADLINE_S, name=graph, order=order, drop=drop
            )
            blocks[graph] = answer["ms"]
        self.rounds[number] = yardstick.rates(blocks)

    def slowness(self) -> dict[int, float]:
        """Return each round's slowness."""
        return {number: yardstick.slowness(rates) for number, rates in self.rounds.items()}


def spread_order(rows: int, offset: float) -> list[int]:
    """Return an order of the rows whose every beginning is spread over all lengths.

    Multiples of the golden ratio, ranked: `offset` in [0, 1) turns them, so rounds differ.
    """
    places = (offset + np.arange(rows) * 0.6180339887498949) % 1.0
    return [int(each) for each in np.argsort(np.argsort(places))]
