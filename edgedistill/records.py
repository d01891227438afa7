"""The frozen records that cross a module's border; units stand in the names.

MB is 10^6 bytes. Scores and drops are in points (96.0, not 0.96). An absent figure is None,
never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

Shape = Mapping[str, int]  # a model's dimensions, an open map named by its family
Progress = Callable[[Mapping[str, Any]], None]  # takes events, see `edgedistill.progress`


# ---------------------------------------------------------------- what is built, and from what


@dataclass(frozen=True)
class Source:
    """A thing the user brought, in its one form on disk, known by the hash of its content."""

    kind: str  # "rows" | "model" | "encoder" | "graph"
    hash: str
    path: Path = field(compare=False)  # <store>/v1/sources/<hash>; never part of a key
    name: str = field(compare=False, default="")  # base name for people: "clinc150/train.csv"
    facts: Mapping[str, Any] = field(compare=False, default_factory=dict)


@dataclass(frozen=True)
class Given:
    """What is known of an .onnx that the user brought in a model's place."""

    inputs: Mapping[str, str]  # the graph's own name of each input, by ours
    output: str  # its own name of the output that answers
    operators: Mapping[str, int]
    convolutional: bool
    precision: str  # "fp32" | "fp16" | "int8", as it came
    channels_last: bool = False
    batch: int = 0  # rows that it takes in a run; 0: any number


@dataclass(frozen=True, eq=False)
class Step:
    """A stage with complete settings and its inputs; what goes in decides its key."""

    stage: str
    settings: Mapping[str, Any]  # plain JSON values, complete, never "auto"
    inputs: Mapping[str, Step | Source]  # "teacher.0", "train.0", "train.1", ...

    def __repr__(self) -> str:
        return f"Step({self.stage}, {dict(self.settings)}, {sorted(self.inputs)})"


@dataclass(frozen=True)
class Artifact:
    """What a step left in the store: a folder, and facts."""

    stage: str
    key: str
    path: Path
    digest: str
    facts: Mapping[str, Any]
    seconds: float  # what it took when it was made
    cached: bool  # it was there already


@dataclass(frozen=True)
class Candidate:
    """One way to get a model, and so one row of the report.

    `role` is baseline, teacher_int8, student_fp32, control, candidate (previous and peer come
    later). `graph` is the file that is measured; `validation` and `test` are its evaluations.
    """

    name: str
    role: str
    shape: Shape
    scheme: str  # "none" for float
    model: Step | Source
    graph: Step | Source
    validation: Step
    test: Step
    train: Step | None = None  # on a sample of the training rows, for the gap
    parent: str | None = None  # int8: the name of its float row
    unpruned: str | None = None  # of a pruned one: the name of the row before, by the same scheme
    unaware: str | None = None  # of one distilled on with int8 simulated: the name of that before
    training: Step | None = None  # the step whose minutes count, absent where nothing is trained
    own: Mapping[str, Step] = field(default_factory=dict)  # evaluated own splits: own_test, ...
    fixed: Step | None = None  # the same graph for one shape, where the target asks for it
    untrained: Step | None = None  # the same graph before training: probed before the hour
    recipe: str | None = None


@dataclass(frozen=True)
class Teacher:
    """One of those whose logits are averaged, and what it is held against rows by.

    The first is the baseline: the model whose shape the students take.
    """

    name: str
    hash: str  # of its source
    weight: float
    labels: tuple[str, ...]  # in the order of its outputs
    train: Step  # on a sample of the training rows
    validation: Step
    role: str = "teacher"


@dataclass(frozen=True)
class Plan:
    """The candidates in the order in which they will be trained, and the rows beside them."""

    baseline: Candidate
    candidates: tuple[Candidate, ...]  # the teacher in int8 and the students in int8
    beside: tuple[Candidate, ...]  # student_fp32 and control of each shape; run for the chosen one
    notes: tuple[str, ...] = ()
    teachers: tuple[Teacher, ...] = ()  # all of them, the baseline's model first

    def rows(self) -> tuple[Candidate, ...]:
        """Return all rows, the baseline first."""
        return (self.baseline, *self.candidates, *self.beside)

    def everyone(self) -> tuple[Candidate | Teacher, ...]:
        """Return all whose steps may run: the rows, then the teachers beside the baseline."""
        return (*self.rows(), *self.teachers[1:])


# ---------------------------------------------------------------- what was measured


class Interval(NamedTuple):
    """A figure with its 95 % interval; low and high are None where nothing gave one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Score:
    """A score over the rows of one split."""

    value: float
    low: float | None
    high: float | None
    rows: int


@dataclass(frozen=True)
class Latency:
    """Times of one row of the report, in ms, over all runs of all rounds."""

    p50: float
    p90: float
    p90_low: float
    p90_high: float
    p99: float | None  # from 1,000 runs on
    cold: float
    runs: int
    rounds: int
    steady: bool


@dataclass(frozen=True)
class DeviceLatency:
    """The p90 on the device of the target: an estimate by the yardstick, or measured there."""

    latency_p90_ms: float
    low: float
    high: float
    source: str  # "estimate" | "measured"
    on: str


@dataclass(frozen=True)
class Yardstick:
    """Rates of this host, one thread, medians over the rounds (None where it could not run)."""

    fp32_gflops: float
    int8_gops: float
    node_us: float


@dataclass(frozen=True)
class Figures:
    """What was measured of one row. A row whose probe died has `failed` and nothing else."""

    latency: Latency | None = None
    speedup: Interval | None = None  # over the baseline, median over rounds
    throughput: float | None = None  # runs a second, 1000 / p50
    device: DeviceLatency | None = None
    encode_ms: Mapping[str, float] | None = None  # {"p50": , "p90": }
    load_ms: float | None = None
    memory_mb: float | None = None  # peak above a bare runtime
    size_mb: float | None = None
    failed: str | None = None


@dataclass(frozen=True)
class Measured:
    """One measuring run: the figures by row, and the conditions."""

    figures: Mapping[str, Figures]
    yardstick: Yardstick
    environment: Mapping[str, Any]  # processor, flags, cores, versions, load
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class OnProcessor:
    """The chosen file on one of the target's processors, beside this host's answers."""

    name: str  # the instruction set, as the target names it: "arm64+dotprod"
    cpu: str | None  # what was emulated for it; None: this host, or nothing
    rows: int  # of validation
    agreement: float | None  # share of the same answers as here, in points
    score: float | None  # there, in points, on these rows
    score_here: float | None
    state: str  # checked | differs | not_checked
    reason: str | None = None


# ---------------------------------------------------------------- what was judged


@dataclass(frozen=True)
class Check:
    """One limit held against one figure."""

    limit: str  # "latency_p90_ms"
    allowed: float
    value: float | None
    low: float | None
    high: float | None
    state: str  # holds | close | misses | unchecked
    reason: str | None = None


@dataclass(frozen=True)
class Choice:
    """Which row was chosen on validation, and why; `safer` is the best-scoring that fits."""

    chosen: str | None
    safer: str | None
    reason: str
    states: Mapping[str, tuple[str, str]]  # row -> (kept | measured | dropped | ..., reason)
    best_miss: str | None = None  # where nothing was chosen: the row that came nearest
