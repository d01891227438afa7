"""A measuring run: all rows of a report and the yardstick in turn, one probe each.

In a round every model runs its block once, in an order shuffled by the seed; the first subject is
the baseline, and it and the yardstick are in every round. More rows than eight probes can hold go
in groups, one after another, each with the baseline and the yardstick beside it.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np

from edgedistill.errors import ModelError, SurroundingsError, UsageError
from edgedistill.measure import host, statistics, transport, yardstick
from edgedistill.measure.lane import Effort, Lane, Subject, Yard
from edgedistill.measure.transport import Local, ProbeFailed
from edgedistill.progress import silent
from edgedistill.records import DeviceLatency, Figures, Latency, Measured, Progress
from edgedistill.target import Target

__all__ = ["Effort", "Subject", "brief", "briefly", "measure"]

ALIVE = 8  # probes at a time, the yardstick's and the baseline's among them
LOADED = 0.5  # cores: load from elsewhere above this makes latencies unsteady
FULL = Effort()
BRIEF = Effort(seconds=0.5, rounds=4, runs=12, slow_seconds=1.0, loads=1, drop=2)


class _Run(NamedTuple):
    """What one measuring run is told."""

    target: Target
    seed: int
    on_device: bool
    progress: Progress
    effort: Effort


def measure(
    subjects: Sequence[Subject],
    target: Target,
    *,
    seed: int = 0,
    seconds: float | None = None,
    on_device: bool = False,
    progress: Progress = silent,
    effort: Effort = FULL,
) -> Measured:
    """Measure all subjects in one run; the first is the baseline.

    `seconds` is the budget that all rows share (default: the effort's, 20). `on_device`: this host
    is the target's device, so nothing is estimated. A probe that dies gives `Figures(failed=..)`;
    the baseline's raises `ModelError` where its file is at fault, else `SurroundingsError`.
    """
    names = [subject.name for subject in subjects]
    if not names or len(set(names)) < len(names):
        raise UsageError(f"rows to measure need names of their own, got {names}")
    if seconds is not None:
        effort = dataclasses.replace(effort, seconds=seconds)
    run = _Run(target, seed, on_device, progress, effort)
    with host.alone(progress):
        transport.sweep()
        return _measure(subjects, run)


def brief(
    subject: Subject,
    target: Target,
    *,
    seed: int = 0,
    on_device: bool = False,
    progress: Progress = silent,
) -> Figures:
    """Measure one graph by itself in about a second; a failure is in the figures, never raised.

    For graphs that are not trained yet: these figures steer the plan, and no report states them.
    """
    try:
        measured = measure(
            [subject], target, seed=seed, on_device=on_device, progress=progress, effort=BRIEF
        )
    except (ModelError, SurroundingsError) as error:
        return Figures(failed=str(error))
    return measured.figures[subject.name]


def briefly(
    subjects: Sequence[Subject],
    target: Target,
    *,
    seed: int = 0,
    on_device: bool = False,
    progress: Progress = silent,
) -> dict[str, Figures]:
    """Measure graphs in turn, in about a second each: their speed-ups are over the first.

    For decisions, as `brief`. Where the first fails each is measured by itself.
    """
    effort = dataclasses.replace(BRIEF, seconds=BRIEF.seconds * len(subjects))
    told: dict[str, Any] = {"seed": seed, "on_device": on_device, "progress": progress}
    try:
        measured = measure(subjects, target, effort=effort, **told)
    except (ModelError, SurroundingsError):
        return {each.name: brief(each, target, **told) for each in subjects}
    return dict(measured.figures)


def _measure(subjects: Sequence[Subject], run: _Run) -> Measured:
    """Measure in groups, then turn what came back into figures."""
    start, busy = time.monotonic(), _Busy()
    with ExitStack() as stack:
        yard, baseline = _start(stack, subjects[0])
        others: list[Lane] = []
        groups = _groups(subjects[1:])
        slots = len(subjects) - 1 + len(groups)  # the baseline takes part in every group
        for place, group in enumerate(groups):
            with _lanes(group) as lanes:
                others += lanes
                for lane in lanes:
                    lane.attempt(lane.load)
                for lane in [baseline, *lanes]:
                    lane.settle(run.effort.seconds / slots, run.effort)
                about = f"group {place + 1} of {len(groups)}" if len(groups) > 1 else ""
                share_s = run.effort.seconds * (len(group) + 1) / slots
                busy.watch([yard.probe, *(lane.probe for lane in [baseline, *lanes])])
                most = run.effort.enough / len(groups)  # of the baseline: it is in every group
                _keep_up(baseline, lanes, effort=run.effort, most=most, share_s=share_s)
                _rounds(yard, baseline, lanes, run=run, most=most, share_s=share_s, about=about)
                busy.rest()
                for lane in lanes:
                    lane.attempt(lane.finish)
            for lane in lanes:
                _load_again(lane, run.effort)
        baseline.attempt(baseline.finish)
        _load_again(baseline, run.effort)
        _must_live(baseline)
    elsewhere = busy.elsewhere()
    figures = {
        lane.subject.name: _figures(lane, baseline, yard, run=run, elsewhere=elsewhere)
        for lane in [baseline, *others]
    }
    return Measured(
        figures=figures,
        yardstick=yardstick.median(list(yard.rounds.values())),
        environment={**host.environment(), "load": elsewhere},
        seconds=time.monotonic() - start,
        warnings=_warnings(figures, elsewhere),
    )


def _start(stack: ExitStack, subject: Subject) -> tuple[Yard, Lane]:
    """Start and load the two that take part in every round; raises where one can't."""
    yard = Yard(Local())
    stack.callback(yard.probe.close)
    baseline = Lane(subject, Local())
    stack.callback(baseline.probe.close)
    try:
        yard.load()
    except ProbeFailed as error:
        raise SurroundingsError(f"the yardstick can't run on this host: {error}") from error
    baseline.attempt(baseline.load)
    _must_live(baseline)
    return yard, baseline


def _must_live(baseline: Lane) -> None:
    if baseline.failed is not None:
        kind = ModelError if baseline.refused else SurroundingsError
        name = baseline.subject.name
        raise kind(f"the baseline '{name}' can't be measured: {baseline.failed}")


def _groups(subjects: Sequence[Subject]) -> list[Sequence[Subject]]:
    """Cut the rows beside the baseline into groups that can be alive together, of like size."""
    count = max(1, math.ceil(len(subjects) / (ALIVE - 2)))
    size = math.ceil(len(subjects) / count) or 1
    return [subjects[place * size : (place + 1) * size] for place in range(count)]


@contextmanager
def _lanes(subjects: Sequence[Subject]) -> Iterator[list[Lane]]:
    """Start one probe a subject, all at once, and end them."""
    with ExitStack() as stack:
        lanes = []
        for subject in subjects:
            lanes.append(Lane(subject, Local()))
            stack.callback(lanes[-1].probe.close)
        yield lanes


def _load_again(lane: Lane, effort: Effort) -> None:
    """Load a row in fresh processes too: where its heap comes to lie moves the peak by a tenth."""
    if lane.failed is not None or lane.slow:
        return
    with ExitStack() as stack:
        probes = [Local() for _ in range(effort.loads - 1)]
        for probe in probes:
            stack.callback(probe.close)
        lane.attempt(lambda: lane.again(probes))


def _keep_up(
    baseline: Lane, lanes: Sequence[Lane], *, effort: Effort, most: float, share_s: float
) -> None:
    """Give the baseline larger blocks where it alone would need more rounds, and the time is there.

    It is the slowest of most runs, so that its share of the budget makes the smallest blocks; what
    the others leave of theirs is its own.
    """
    live = [lane for lane in lanes if lane.failed is None]
    if baseline.slow or not live or any(lane.slow for lane in live):
        return
    rounds = max(effort.rounds, *(math.ceil(effort.enough / lane.count) for lane in live))
    count = min(baseline.rows, math.ceil(most / rounds))
    blocks = [(baseline, count), *((lane, lane.count) for lane in live)]
    round_ms = sum(lane.usual_ms * (lane.drop + runs) for lane, runs in blocks)
    if rounds * round_ms <= 1000 * share_s:
        baseline.count = max(baseline.count, count)


def _rounds(
    yard: Yard,
    baseline: Lane,
    lanes: Sequence[Lane],
    *,
    run: _Run,
    most: float,
    share_s: float,
    about: str,
) -> None:
    """Run rounds until every row has enough runs or the budget is spent, but never too few.

    `most`: the runs of the baseline in this group that are enough.
    """
    effort, first = run.effort, len(yard.rounds)
    end = time.monotonic() + share_s
    before = baseline.runs
    while True:
        done = len(yard.rounds) - first
        live = [lane for lane in lanes if lane.failed is None]
        rounds = [effort.enough / lane.count for lane in live]
        total = math.ceil(max(effort.rounds, most / baseline.count, *rounds))
        least = done >= effort.rounds and all(lane.enough(effort) for lane in [baseline, *live])
        ran = baseline.runs - before >= most and all(lane.runs >= effort.enough for lane in live)
        if least and (ran or time.monotonic() >= end):
            break
        run.progress({"kind": "bar", "done": done, "total": total, "unit": "rounds", "note": about})
        _round(yard, [baseline, *live], first + done, run)
        _must_live(baseline)
    run.progress({"kind": "bar", "done": done, "total": done, "unit": "rounds", "note": about})


def _round(yard: Yard, lanes: Sequence[Lane], number: int, run: _Run) -> None:
    """Run one block of each row and of the yardstick, in this round's order."""
    random = np.random.Generator(np.random.PCG64([run.seed, number]))
    offset = random.random()
    for place in random.permutation(len(lanes) + 1):
        if place < len(lanes):
            lane = lanes[place]
            lane.attempt(lambda lane=lane: lane.run(number, offset))  # type: ignore[misc]
            continue
        try:
            yard.run(number, run.effort.drop)
        except ProbeFailed as error:
            raise SurroundingsError(f"the yardstick can't run on this host: {error}") from error


class _Busy:
    """Watch how many cores others use while rounds run, where the system tells."""

    def __init__(self) -> None:
        self._others = self._wall = 0.0
        self._known = True
        self._probes: Sequence[Any] = ()
        self._begun = (0.0, 0.0, 0.0)

    def watch(self, probes: Sequence[Any]) -> None:
        """Begin: these probes and this process are ours."""
        self._probes = probes
        self._begun = self._now()

    def rest(self) -> None:
        """End, until the next `watch`."""
        wall, all_s, ours = (
            now - begun for now, begun in zip(self._now(), self._begun, strict=True)
        )
        self._wall += wall
        self._others += all_s - ours

    def elsewhere(self) -> float | None:
        """Return the cores that others used, None where the system does not tell."""
        if not self._known or self._wall <= 0:
            return None
        return max(0.0, self._others / self._wall)

    def _now(self) -> tuple[float, float, float]:
        busy = host.busy_seconds()
        self._known = self._known and busy is not None
        times = os.times()
        ours = times.user + times.system + sum(probe.seconds() for probe in self._probes)
        return time.monotonic(), busy or 0.0, ours


def _figures(
    lane: Lane, baseline: Lane, yard: Yard, *, run: _Run, elsewhere: float | None
) -> Figures:
    """Turn one lane into figures."""
    if lane.failed is not None:
        return Figures(failed=lane.failed)
    loaded = elsewhere is not None and elsewhere > LOADED
    steady = not loaded and lane.spread(yard.slowness()) <= statistics.STEADY
    latency = statistics.latency(lane.blocks, lane.cold_ms, steady=steady, seed=run.seed)
    return Figures(
        latency=latency,
        speedup=statistics.speedup(baseline.blocks, lane.blocks, seed=run.seed),
        throughput=1000.0 / latency.p50,
        device=_on_device(lane, latency, yard, run),
        load_ms=lane.load_ms(),
        memory_mb=lane.memory_mb(),
        size_mb=lane.size_mb(),
    )


def _on_device(lane: Lane, latency: Latency, yard: Yard, run: _Run) -> DeviceLatency | None:
    """Return the p90 on the device: measured where this is it, else the yardstick's estimate."""
    if run.on_device:
        on = str(host.processor()["name"])
        return DeviceLatency(latency.p90, latency.p90_low, latency.p90_high, "measured", on)
    if run.target.device is None:
        return None
    rates = yardstick.median(list(yard.rounds.values()))
    return yardstick.estimate(
        latency, lane.subject.products, rates, device=run.target.device, on=run.target.name
    )


def _warnings(figures: Mapping[str, Figures], elsewhere: float | None) -> tuple[str, ...]:
    """Say what a reader must know of this run's conditions."""
    if elsewhere is not None and elsewhere > LOADED:
        return (
            f"other programs used {elsewhere:.1f} cores while measuring: latencies are unsteady",
        )
    unsteady = [name for name, each in figures.items() if each.latency and not each.latency.steady]
    if unsteady:
        return (f"unsteady latencies: {', '.join(unsteady)} (something disturbed the measuring)",)
    return ()
