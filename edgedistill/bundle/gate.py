"""Hold a finished bundle against limits: the gate for a CI.

Size, load, memory, latency and golden agreement are measured afresh. The score is, where rows are
given; else it is the one of the bundle's report, marked recorded.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedistill import target as targets
from edgedistill.bundle import cost, given, recorded, scoring
from edgedistill.bundle import manifest as manifests
from edgedistill.bundle.given import Given
from edgedistill.bundle.golden import Agreement
from edgedistill.bundle.opened import Bundle, load
from edgedistill.bundle.proof import compare
from edgedistill.bundle.recorded import Scored
from edgedistill.errors import TargetError, UsageError
from edgedistill.judge.limits import OWN, SCORED, figures_of
from edgedistill.judge.limits import checks as held
from edgedistill.progress import silent
from edgedistill.records import Check, Figures, Interval, Measured, Progress
from edgedistill.sections import DataSpec

EXIT = {"fits": 0, "fits_closely": 0, "misses": 1, "unchecked": 2}
RECORDED = "recorded when it was built"


@dataclass(frozen=True)
class Asked:
    """What a bundle is held against."""

    target: str | None = None  # None: the bundle's own
    limits: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # added or overriding
    data: DataSpec | None = None
    strict: bool = False
    on_device: bool = False
    baseline: Path | None = None  # report.json of an earlier build
    seconds: float | None = None  # budget of measuring


@dataclass(frozen=True)
class Beside:
    """One comparison with an earlier report, whether a limit is held against it or not."""

    figure: str  # regression_points | slowdown (of latency over yardstick)
    value: float | None
    reason: str | None = None  # why there is none


@dataclass(frozen=True)
class CheckResult:
    """What `check` found."""

    bundle: str
    target: str
    verdict: str  # fits | fits_closely | misses | unchecked (a limit that was named)
    strict: bool
    checks: tuple[Check, ...]
    score: Mapping[str, Any] | None  # {metric, value, low, high, rows, source: fresh | recorded}
    drop: Interval | None
    figures: Figures
    golden: Agreement
    environment: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    named: tuple[str, ...] = ()  # the limits that were asked for by name
    against: tuple[Beside, ...] = ()  # where an earlier report was given

    @property
    def exit_code(self) -> int:
        """0 where every limit holds (perhaps closely), 1 where one is missed.

        2 where one that was named can't be checked: the user can mend what is asked or given.
        """
        return EXIT[self.verdict]

    @property
    def unproven(self) -> tuple[Check, ...]:
        """The limits that were named and could not be checked."""
        return tuple(c for c in self.checks if c.state == "unchecked" and c.limit in self.named)


def check(folder: Path, asked: Asked, *, progress: Progress = silent) -> CheckResult:
    """Hold a bundle against its target's limits, or those asked for.

    Raises `BundleError` for a damaged bundle, `TargetError`, `DataError`, `UsageError`.
    """
    from edgedistill import judge

    bundle = load(folder)
    manifests.check_files(bundle.folder, bundle.manifest)
    target = _target(bundle, asked)
    _can(bundle, asked)
    earlier = None if asked.baseline is None else recorded.read(Path(asked.baseline))
    golden = compare(bundle)
    rows = None if asked.data is None else given.given(asked.data, bundle)
    scored = _fresh(bundle, rows, progress) if rows else recorded.recorded(bundle)
    measured = _measure(bundle, rows, target, asked, progress)
    figures = measured.figures["bundle"]
    found, reasons = figures_of(figures, None)
    found, reasons = {**found, **scored.figures}, {**reasons, **scored.reasons}
    against: tuple[Beside, ...] = ()
    if earlier is not None:
        beside, absent = recorded.against(
            earlier, scored, measured, alike=rows is not None or not _lengths(bundle)
        )
        found, reasons = {**found, **beside}, {**reasons, **absent}
        against = tuple(
            Beside(name.removeprefix("max_"), each and each.value, absent.get(name))
            for name, each in beside.items()
        )
    else:
        reasons |= dict.fromkeys(recorded.AGAINST, "no earlier report was given (--baseline)")
    made = held(
        target.limits,
        found,
        reasons,
        rows=scored.rows,
        at_best_close=recorded.doubts(bundle),
        vanished=scored.vanished,
    )
    made = (*(_marked(one, scored) for one in made), _golden_check(golden))
    return CheckResult(
        bundle=bundle.folder.resolve().name,
        target=target.name,
        verdict=judge.verdict(made, strict=asked.strict, named=asked.limits),
        strict=asked.strict,
        checks=made,
        score=scored.score,
        drop=scored.figures.get("max_drop_points"),
        figures=figures,
        golden=golden,
        environment=measured.environment,
        warnings=(*measured.warnings, *_warnings(bundle, rows)),
        named=tuple(asked.limits),
        against=against,
    )


def _can(bundle: Bundle, asked: Asked) -> None:
    """Refuse a limit that there is nothing to hold against, before anything is measured."""
    for name in asked.limits:
        if name in recorded.AGAINST and asked.baseline is None:
            raise UsageError(
                f"--limit {name} is held against an earlier build's report: name it with "
                "--baseline REPORT.json"
            )
        if name in OWN and recorded.own_drop(bundle) is None:
            raise UsageError(
                f"--limit {name}: the bundle's report holds no drop on own rows (a build has them "
                "by a second --data)"
            )


# ---------------------------------------------------------------- the target


def _target(bundle: Bundle, asked: Asked) -> targets.Target:
    """Return the target with the limits that count: the bundle's own, unless another is named."""
    said = bundle.manifest["target"]
    if asked.target is not None:
        target = targets.load(asked.target)
    else:
        limits = {name: targets.limit(name, value) for name, value in said["limits"].items()}
        target = dataclasses.replace(own_target(bundle), limits=limits, reasons={})
    return targets.with_limits(target, asked.limits)


def own_target(bundle: Bundle) -> targets.Target:
    """Return the target of the bundle's name; where it is not known here, as its report has it."""
    said = bundle.manifest
    try:
        if said["target"]["name"].endswith(".toml"):  # a bundle names no file of this machine
            raise TargetError("a path")
        return targets.load(said["target"]["name"])
    except TargetError:
        runtime = targets.Runtime(
            onnxruntime=said["model"]["onnxruntime"],
            integers=bundle.integers,
            threads=said["session"].get("threads", 1),
            batch=said["model"].get("batch", 1),
            spinning=said["session"].get("spinning", False),
            fixed=0,
        )
        processors = tuple(said["model"]["processors"])
        device, name = recorded.device(bundle), said["target"]["name"]
        return targets.Target(name, "", (), runtime, processors, device, {})


# ---------------------------------------------------------------- the score


def _fresh(bundle: Bundle, rows: Given, progress: Progress) -> Scored:
    evaluation, why = scoring.judged(
        bundle, rows, metric=scoring.metric_of(bundle), progress=progress
    )
    found, reasons = figures_of(Figures(), evaluation)
    reasons = {name: reasons[name] for name in SCORED}
    if why is not None:
        reasons |= {"max_drop_points": why, "worst_label_drop_points": why}
    score = {"metric": evaluation.metric, **dataclasses.asdict(evaluation.score)}
    return Scored(
        figures={**{name: found[name] for name in SCORED}, OWN[0]: recorded.own_drop(bundle)},
        reasons=reasons,
        score={**score, "source": "fresh", "of": rows.of},
        rows=evaluation.score.rows,
        vanished=evaluation.vanished,
    )


# ---------------------------------------------------------------- measuring


def _measure(
    bundle: Bundle, rows: Given | None, target: targets.Target, asked: Asked, progress: Progress
) -> Measured:
    """Measure the model on real encoded rows; on the golden vectors where no rows are given."""
    from edgedistill.measure import sample, session

    model, batch = bundle.manifest["model"], target.runtime.batch
    golden = _encoded(bundle, bundle.task.golden(bundle.encoder, bundle.labels), batch)
    timed = golden
    if rows:
        timed = _encoded(bundle, [rows.examples[place] for place in chosen(bundle, rows)], batch)
    products = None
    if "products" in model:
        products = sample.products(functools.partial(cost.of_run, model), timed)
    with tempfile.TemporaryDirectory(prefix="edgedistill-") as scratch:
        folder = Path(scratch) / "sample"
        sample.write(folder, [*timed, golden[-1]])  # one of max_length, for memory
        subject = session.Subject(
            name="bundle",
            model=bundle.model,
            session=bundle.manifest["session"],
            sample=folder,
            longest=len(timed),
            timed=len(timed),
            products=products,
        )
        return session.measure(
            [subject], target, seconds=asked.seconds, on_device=asked.on_device, progress=progress
        )


def chosen(bundle: Bundle, rows: Given) -> list[int]:
    """Choose the rows to time by the lengths of their texts; images are of one size, unopened."""
    from edgedistill.measure import sample

    if bundle.task.EXAMPLES == "image":
        return sample.choose([0] * len(rows.examples))
    return sample.choose([len(str(example.get("text", ""))) for example in rows.examples])


def _encoded(bundle: Bundle, examples: Any, batch: int) -> list[dict[str, Any]]:
    """Return the runs of examples, each with mates of its own length, the shortest first."""
    feeds = [bundle.feed([row] * batch) for row in bundle.encoder.encode_many(examples)]
    return sorted(feeds, key=lambda feed: sum(value.size for value in feed.values()))


def _lengths(bundle: Bundle) -> bool:
    """Say whether inputs differ in length, so that some take longer than others."""
    return len(bundle.manifest["model"].get("products", ())) != 1


# ---------------------------------------------------------------- what is told


def _marked(one: Check, scored: Scored) -> Check:
    again = not scored.recorded and one.limit not in OWN
    if again or one.limit not in SCORED or one.value is None:
        return one
    return dataclasses.replace(one, reason="; ".join(filter(None, (RECORDED, one.reason))))


def _golden_check(golden: Agreement) -> Check:
    value = golden.max_difference if math.isfinite(golden.max_difference) else None
    state = "holds" if golden.holds else "misses"
    return Check("golden_difference", golden.tolerance, value, None, None, state, golden.reason)


def _warnings(bundle: Bundle, rows: Given | None) -> list[str]:
    said = [bundle.inexact(), rows.remark if rows else None]
    if rows is None:
        said.append("no rows were given: timed on the golden vectors, scored when it was built")
    return [text for text in said if text is not None]
