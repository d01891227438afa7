"""The shortlist: what can be known of students before the hour of training.

Every shape is measured untrained; one that cannot meet size, memory or latency is dropped with its
figure, and so is a graph that the target's runtime lacks operators for, and where latency decides
a scheme that is clearly slower than another of the same student. The rest are put in the order in
which they train.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgedistill import judge
from edgedistill.builder import figures
from edgedistill.builder.course import Course, begun
from edgedistill.measure import host, session
from edgedistill.records import Candidate, Figures, Step
from edgedistill.store import keys

Stopped = Mapping[str, tuple[str, str]]  # row -> (dropped | skipped, reason)
SLOWER = 1.25  # times the latency of a sibling, beyond the noise of both
BEFORE_TRAINING = ("latency_p90_ms", "memory_mb", "size_mb", "load_ms")


@dataclass(frozen=True)
class Entry:
    """One student: its rows share one training, which those of what is pruned of it go on from."""

    training: Step  # the last one
    rows: tuple[Candidate, ...]  # float first, then one a scheme
    controls: tuple[Candidate, ...]  # the same, on labels alone; those of the pruned one last
    again: Entry | None = None  # the student distilled on with int8 simulated

    @property
    def name(self) -> str:
        """The name of its first quantized row; of its float row where there is no other."""
        whole = [row for row in self.rows if row.unpruned is None]
        return next((row for row in whole if row.scheme != "none"), whole[0]).name


@dataclass(frozen=True)
class Shortlist:
    """Who trains, in which order, and who does not."""

    order: tuple[Entry, ...]
    dropped: Stopped  # rows that cannot fit; shown in full where their entry trains all the same
    unfit: Stopped  # rows that the target's runtime can't run: never measured again
    p90: Mapping[str, float] = dataclasses.field(default_factory=dict)  # of untrained graphs, ms


def entries(course: Course) -> list[Entry]:
    """Group the plan's students by their training, in the plan's order."""
    plan = course.plan
    students = [row for row in (*plan.beside, *plan.candidates) if row.untrained is not None]
    made: dict[int, list[Candidate]] = {}
    for row in students:
        made.setdefault(id(begun(row)), []).append(row)
    controls = [row for row in plan.beside if row.role == "control"]
    found = []
    for rows in made.values():
        training = _training([row for row in rows if row.unpruned] or rows)
        twins = [row for row in controls if begun(row) is begun(rows[0]) and not row.unaware]
        again = _again(plan.candidates, rows), _again(controls, twins)
        more = Entry(_training(again[0]), *again) if again[0] else None
        found.append(Entry(training, tuple(rows), tuple(twins), more))
    return found


def _training(rows: Sequence[Candidate]) -> Step:
    training = rows[0].training
    assert training is not None
    return training


def _again(all_rows: Iterable[Candidate], rows: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Return the rows that were distilled on from some rows."""
    names = {row.name for row in rows}
    return tuple(row for row in all_rows if row.unaware in names)


def plan_key(course: Course) -> str:
    """Return the key of the plan: its rows, and all that decides between them on this host."""
    run, target = course.job.run, course.target
    what = {
        "rows": {row.name: keys.key(row.test) for row in course.plan.rows()},
        "target": dataclasses.asdict(target),
        "on_device": run.on_device,
        "objective": run.objective,
        "time_limit": run.seconds(),
        "processor": host.processor()["name"],
        "named": list(course.job.student.named()),
        "max_drop": course.job.quantize.max_drop,
        "aware": course.job.quantize.aware,
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def make(course: Course, everyone: Iterable[Entry]) -> Shortlist:
    """Measure every shape untrained; drop what cannot fit, and order the rest."""
    dropped: dict[str, tuple[str, str]] = {}
    unfit: dict[str, tuple[str, str]] = {}
    brief: dict[str, Figures] = {}
    left: list[Entry] = []
    for entry in everyone:
        able = []
        for row in entry.rows:
            assert row.untrained is not None
            course.run(row.untrained, row.test.inputs["rows.0"])
            lacks = figures.lacks(course, row, row.untrained)
            if lacks:
                unfit[row.name] = ("dropped", lacks)
            else:
                able.append(row)
        brief |= _in_turn(course, able)
        for row in able:
            why = _cannot(course, brief[row.name])
            if why:
                dropped[row.name] = ("dropped", f"before training: {why}")
        if course.job.run.objective == "latency":
            for parent in dict.fromkeys(row.parent for row in able if row.parent):
                rows = [row for row in able if row.parent == parent and row.name not in dropped]
                unfit |= outrun({row.name: brief[row.name] for row in rows})
        if any(row.name not in dropped and row.name not in unfit for row in entry.rows):
            left.append(entry)
            continue
        course.note(f"{entry.name} dropped: {(dropped | unfit)[entry.name][1]}")
    gone = {*dropped, *unfit}
    left.sort(key=lambda entry: _rank(course, entry, brief, gone))
    known = {name: p90(each) for name, each in brief.items()}
    known = {name: each for name, each in known.items() if math.isfinite(each)}
    return Shortlist(tuple(left), dropped, unfit, known)


def _in_turn(course: Course, rows: list[Candidate]) -> dict[str, Figures]:
    """Measure the untrained graphs of one student in turn, so that they can be compared."""
    if not rows:
        return {}
    return session.briefly(
        [figures.subject(course, row, row.untrained) for row in rows],
        course.target,
        on_device=course.job.run.on_device,
        progress=course.progress,
    )


def outrun(found: Mapping[str, Figures]) -> dict[str, tuple[str, str]]:
    """Return which of the schemes of one student are clearly slower than another of them.

    A fourth slower at least, by intervals that are apart, and in a file that is no smaller.
    """
    known = {name: each for name, each in found.items() if each.latency and each.speedup}
    if not known:
        return {}
    first = min(known, key=lambda name: (p90(known[name]), name))
    fast = known[first].speedup
    gone = {}
    for name, each in known.items():
        slow = each.speedup
        assert fast is not None and slow is not None and each.latency is not None
        apart = slow.high is not None and fast.low is not None and slow.high < fast.low
        small, large = each.size_mb or 0.0, known[first].size_mb or 0.0
        if apart and SLOWER * slow.value < fast.value and small > 0.95 * large:
            mine, theirs = p90(each), p90(known[first])
            why = f"slower than {first} (p90 {mine:.3g} against {theirs:.3g} ms)"
            gone[name] = ("dropped", f"before training: {why}")
    return gone


def measure(course: Course, row: Candidate, graph: Step | None = None) -> Figures:
    """Measure one row by itself in about a second: for decisions, never for a report."""
    course.run(graph or row.graph, row.test.inputs["rows.0"])
    return session.brief(
        figures.subject(course, row, graph),
        course.target,
        on_device=course.job.run.on_device,
        progress=course.progress,
    )


def _cannot(course: Course, found: Figures) -> str | None:
    """Return which limit an untrained graph is sure to miss."""
    if found.failed:
        return found.failed
    values, reasons = judge.figures_of(found, None)
    limits = {n: each for n, each in course.target.limits.items() if n in BEFORE_TRAINING}
    for check in judge.checks(limits, values, reasons):
        surely = check.low is None or check.low > check.allowed
        if check.state == "misses" and surely:
            return f"{check.limit} {check.value:.3g}, allowed {check.allowed:.3g}"
    return None


def _rank(
    course: Course, entry: Entry, brief: Mapping[str, Figures], gone: set[str]
) -> tuple[Any, ...]:
    """Order by the objective: the fastest on the device, the largest, or the smallest first."""
    found = [brief[row.name] for row in entry.rows if row.name not in gone]
    fastest = min((p90(each) for each in found), default=math.inf)
    size = min((each.size_mb for each in found if each.size_mb is not None), default=math.inf)
    if course.job.run.objective == "score":
        return (-size, entry.name)
    if course.job.run.objective == "size":
        return (size, fastest, entry.name)
    return (fastest, size, entry.name)


def p90(found: Figures) -> float:
    """Return the p90 on the device, else here; infinite where there is none."""
    if found.device is not None:
        return found.device.latency_p90_ms
    return found.latency.p90 if found.latency else math.inf
