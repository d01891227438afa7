"""The commands over bundles, by name: what a command line hands over is text and paths."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedistill.bundle import emulated, gate, scoring
from edgedistill.bundle.gate import Asked, CheckResult
from edgedistill.bundle.untrusted import printable
from edgedistill.errors import UsageError, nearest
from edgedistill.progress import silent
from edgedistill.records import Check, Progress
from edgedistill.sections import DataSpec

__all__ = ["Answered", "CheckResult", "check", "eval_", "eval_as", "known", "plain", "told"]

WORDS = {"holds": "holds", "close": "holds closely", "misses": "misses", "unchecked": "unchecked"}
VERDICTS = {
    "fits": "fits",
    "fits_closely": "fits closely",
    "misses": "misses a limit",
    "unchecked": "leaves a named limit unchecked",
}
BESIDE = {
    "regression_points": "regression {:.1f} points",
    "slowdown": "slowdown {:.2f} times (latency over the yardstick)",
}


@dataclass(frozen=True)
class Answered:
    """What `eval` says of a bundle, as plain values."""

    bundle: str
    task: str
    rows: str | None  # the data's name
    score: Mapping[str, Any] | None  # {metric, unit, value, low, high, rows}
    scores: Mapping[str, float] | None
    drop_points: Mapping[str, Any] | None  # against the baseline of the evidence
    drop_reason: str | None  # why there is no drop
    agreement: float | None  # of answers with the baseline's, in points
    worst_labels: list[Mapping[str, Any]]
    confidence: Mapping[str, Any] | None
    golden: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    of: str | None = None  # what was scored: "test rows of NAME", "rows of FILE"

    def lines(self) -> Iterator[str]:
        """Tell it to people."""
        if self.score is not None:
            spread = f"{self.score['low']:.1f} to {self.score['high']:.1f}"
            yield (
                f"{printable(self.score['metric'])}  {self.score['value']:.1f} ({spread}) "
                f"on {_counted(self.score['rows'], self.of)}"
            )
        if self.drop_points is not None:
            drop = self.drop_points
            yield (
                f"drop      {drop['value']:.1f} ({drop['low']:.1f} to {drop['high']:.1f}) points "
                f"against the baseline; {self.agreement:.1f} % the same answers"
            )
        elif self.drop_reason is not None:
            yield f"drop      unknown: {printable(self.drop_reason)}"
        for label in self.worst_labels[:3]:
            yield (
                f"          '{printable(label['label'], 60)}' found in {label['recall']:.0f} % "
                f"(baseline {label['baseline_recall']:.0f} %) of {_counted(label['rows'])}"
            )
        state = "within tolerance" if self.golden["holds"] else printable(self.golden["reason"])
        yield f"golden    {self.golden['rows']} vectors {state}"


def check(
    folder: str | Path, *, data: Any = None, progress: Progress = silent, **asked: Any
) -> CheckResult:
    """Hold a bundle against limits; `asked` as the fields of `gate.Asked`, `data` a path.

    Raises `BundleError`, `TargetError`, `DataError`, `UsageError`.
    """
    names = [field.name for field in dataclasses.fields(Asked)]
    for name in asked:
        if name not in names:
            raise UsageError(f"check: unknown argument '{name}': {nearest(name, names)}")
    return gate.check(Path(folder), Asked(data=_spec(data), **asked), progress=progress)


def eval_(folder: str | Path, data: Any = None, *, progress: Progress = silent) -> Answered:
    """Score a bundle on `data` (see `given`); its golden vectors are run in any case."""
    found = scoring.eval_(folder, data=_spec(data), progress=progress)
    one = found.evaluation
    score = scores = None
    if one is not None:
        score = {"metric": one.metric, "unit": one.unit, **plain(one.score)}
        scores = {name: each.value for name, each in one.scores.items()}
    return Answered(
        bundle=Path(folder).resolve().name,
        task=found.task,
        rows=found.rows,
        score=score,
        scores=scores,
        drop_points=plain(one.drop) if one and one.drop else None,
        drop_reason=found.unpaired,
        agreement=one.agreement if one else None,
        worst_labels=plain(one.worst_labels) if one else [],
        confidence=plain(one.confidence) if one else None,
        golden=plain(found.golden),
        warnings=found.warnings,
        of=found.of,
    )


def eval_as(
    folder: str | Path, cpu: str, data: Any = None, *, progress: Progress = silent
) -> emulated.Emulated:
    """Score a bundle as another processor would; see `emulated.eval_as`."""
    return emulated.eval_as(folder, cpu, data=_spec(data), progress=progress)


def _spec(data: Any) -> DataSpec | None:
    return data if data is None or isinstance(data, DataSpec) else DataSpec(path=data)


def _counted(rows: int, of: str | None = "rows") -> str:
    """Say how many rows of what: "1 test row of NAME", "4,500 rows of FILE"."""
    what = printable(of)
    return f"{rows:,} {what.replace('rows', 'row', 1) if rows == 1 else what}"


def plain(value: Any) -> Any:
    """Return records as JSON values: named tuples as objects, what is no number as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: plain(getattr(value, field.name)) for field in fields}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


# ---------------------------------------------------------------- check, told


def told(result: CheckResult, shape: str = "text") -> list[str]:
    """Tell a check as text, md, json or github (workflow commands). Raises `UsageError`."""
    return list(SHAPES[known(shape)](result))


def known(shape: str) -> str:
    """Return the name of a shape that `told` knows. Raises `UsageError` for any other."""
    if shape not in SHAPES:
        raise UsageError(f"check --format '{shape}': {nearest(shape, SHAPES)}")
    return shape


def _json(result: CheckResult) -> Iterator[str]:
    yield json.dumps({**plain(result), "exit_code": result.exit_code})


def _headline(result: CheckResult) -> str:
    strict = " (strictly)" if result.strict else ""
    verdict = f"{VERDICTS[result.verdict]} for {printable(result.target)}"
    return f"{printable(result.bundle)}: {verdict}{strict}"


def _score(result: CheckResult) -> str:
    if result.score is None:
        return "score unknown"
    score = result.score
    spread = "" if score["low"] is None else f" ({score['low']:.1f} to {score['high']:.1f})"
    on = f" on {_counted(score['rows'], score['of'])}" if "of" in score else ""
    return f"{printable(score['metric'])} {score['value']:.1f}{spread}, {score['source']}{on}"


def _beside(result: CheckResult) -> Iterator[str]:
    """Tell what an earlier report is held beside, in one line where there is one."""
    told = [
        f"{one.figure.partition('_')[0]} unknown ({printable(one.reason)})"
        if one.value is None
        else BESIDE[one.figure].format(one.value)
        for one in result.against
    ]
    if told:
        yield f"beside the earlier report: {'; '.join(told)}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _spread(one: Check) -> str:
    if one.low is None and one.high is None:
        return ""
    return f"{_figure(one.low)} to {_figure(one.high)}"


def _text(result: CheckResult) -> Iterator[str]:
    yield _headline(result)
    yield f"  {_score(result)}"
    yield from (f"  {line}" for line in _beside(result))
    for one in result.checks:
        reason = f"  {printable(one.reason)}" if one.reason else ""
        yield (
            f"  {printable(one.limit):<26}{_figure(one.value):>9}  of {_figure(one.allowed):<8}"
            f"{_spread(one):<20}{WORDS[one.state]}{reason}"
        )


def _markdown(result: CheckResult) -> Iterator[str]:
    yield f"**{_cell(_headline(result))}**: {_cell(_score(result))}"
    yield from (f"\n{_cell(line)}" for line in _beside(result))
    yield ""
    yield "| limit | allowed | value | interval | state | reason |"
    yield "|---|---|---|---|---|---|"
    for one in result.checks:
        cells = (one.limit, _figure(one.allowed), _figure(one.value), _spread(one))
        yield "| " + " | ".join(map(_cell, (*cells, WORDS[one.state], one.reason or ""))) + " |"
    for warning in result.warnings:
        yield f"\n{_cell(warning)}"


def _cell(text: str) -> str:
    """Return a text that markdown shows as it is, in one cell."""
    shown = printable(text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{char}" if char in "\\`*_[]|" else char for char in shown)


def _github(result: CheckResult) -> Iterator[str]:
    """Write GitHub's workflow commands, one a check that is not simply held."""
    levels = {"misses": "error", "close": "warning", "unchecked": "warning"}
    for one in result.checks:
        level = levels.get(one.state)
        if level == "warning" and (result.strict or one in result.unproven):
            level = "error"
        if level is not None:
            text = f"{one.limit} {_figure(one.value)} of {_figure(one.allowed)}: {WORDS[one.state]}"
            yield f"::{level} title=edgedistill check::{_escaped(text, one.reason)}"
    level = "error" if result.exit_code else "notice"
    more = "; ".join([_score(result), *_beside(result)])
    yield f"::{level} title=edgedistill check::{_escaped(_headline(result), more)}"


def _escaped(text: str, more: str | None) -> str:
    whole = printable(text if more is None else f"{text}; {more}", 500)
    return whole.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


SHAPES: Mapping[str, Callable[[CheckResult], Iterator[str]]] = {
    "text": _text, "md": _markdown, "json": _json, "github": _github,
}  # fmt: skip
