"""Read figures out of reports: the bundle's own, and one of an earlier build to hold against.

A report is untrusted like the rest of a bundle: what is not where it should be is absent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedistill.bundle import manifest as manifests
from edgedistill.bundle import untrusted
from edgedistill.bundle.opened import Bundle
from edgedistill.bundle.untrusted import is_number, printable
from edgedistill.errors import UsageError, UserError
from edgedistill.judge.limits import GENERAL, OWN, SCORED, SEEN
from edgedistill.records import Interval, Measured
from edgedistill.settings import coerce
from edgedistill.target import Device

REPORT = "report.json"
AGAINST = ("max_regression_points", "max_slowdown")


@dataclass(frozen=True)
class Scored:
    """What is known of the score: figures by limit, why some are absent, what is recorded."""

    figures: Mapping[str, Interval | None]
    reasons: Mapping[str, str]
    score: Mapping[str, Any] | None
    rows: int | None = None
    vanished: Sequence[str] = ()
    recorded: bool = False


def recorded(bundle: Bundle) -> Scored:
    """Take score and drop from the bundle's own report."""
    if REPORT not in bundle.manifest["files"]:
        return Scored({}, dict.fromkeys(SCORED, "the bundle has no report, and no rows"), None)
    row = _chosen(_report(bundle))
    score, drop = _under(row, "score", "test"), _under(row, "drop_points", "test")
    checks = row.get("checks")
    worst = [
        one
        for one in (checks if isinstance(checks, list) else [])
        if isinstance(one, dict) and one.get("limit") == "worst_label_drop_points"
    ]
    figures = {
        "min_score_points": _interval(score),
        "max_drop_points": _interval(drop),
        "max_own_drop_points": own_drop(bundle),
        "worst_label_drop_points": _interval(worst[0]) if worst else None,
    }
    rows = score.get("rows")
    said = None
    if figures["min_score_points"] is not None:
        metric = _under(row, "score").get("metric")
        interval = figures["min_score_points"]._asdict()
        said = {"metric": str(metric), **interval, "rows": rows, "source": "recorded"}
    reasons = dict.fromkeys(SCORED, "neither rows nor a recorded figure")
    count = rows if isinstance(rows, int) and rows > 0 else None
    return Scored(figures, reasons, said, rows=count, recorded=True)


def own_drop(bundle: Bundle) -> Interval | None:
    """Return the drop on the own rows, which are never given again: they stay where they were."""
    return _interval(_under(_chosen(_report(bundle)), "scores", "own", "drop_points", "test"))


def data(bundle: Bundle) -> dict[str, str]:
    """Return what the build was told of its rows, or found: columns by role, encoding, bad_rows."""
    report = _report(bundle)
    told = {**_under(report, "job", "data"), **_under(report, "data", "columns")}
    return {name: value for name, value in told.items() if isinstance(value, str) and value}


def name(bundle: Bundle) -> str | None:
    """Return the name of the rows that the bundle was built from."""
    found = _under(_report(bundle), "data").get("name")
    return found if isinstance(found, str) else None


def digests(bundle: Bundle) -> Mapping[str, Any]:
    """Return the digest of each split of the rows that the bundle was built from, by its name."""
    return _under(_report(bundle), "data", "hash")


def cut(bundle: Bundle) -> bool:
    """Say whether the build cut its test rows out of others."""
    return _under(_report(bundle), "data", "splits", "test").get("origin") == "cut"


def device(bundle: Bundle) -> Device | None:
    """Return the rates of the device for which the bundle was built, None where it tells none."""
    told = _under(_report(bundle), "target", "device")
    names = [field.name for field in dataclasses.fields(Device)]
    rates = {name: told[name] for name in names if is_number(told.get(name))}
    if not {"int8_gops", "fp32_gflops"} <= rates.keys():
        return None
    try:
        return coerce(Device, rates, "device")
    except UserError:
        return None


def _report(bundle: Bundle) -> Any:
    """Read the bundle's own report.json as it was written; {} where it has none."""
    if REPORT not in bundle.manifest["files"]:
        return {}
    manifests.check_files(bundle.folder, bundle.manifest, [REPORT])
    return untrusted.read_json(bundle.folder, REPORT)


def _chosen(report: Any) -> Mapping[str, Any]:
    """Return the row of a report that was bundled; {} where it can't be read."""
    report = report if isinstance(report, dict) else {}
    name = report.get("chosen") or report.get("best_miss")
    rows = report.get("rows")
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and name is not None and row.get("name") == name:
            return row
    return {}


def _under(value: Any, *names: str) -> Mapping[str, Any]:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _interval(value: Mapping[str, Any]) -> Interval | None:
    figures = [value.get(name) for name in ("value", "low", "high")]
    sound = [_number(one) for one in figures]
    return None if sound[0] is None else Interval(sound[0], sound[1], sound[2])


def _number(value: Any) -> float | None:
    return float(value) if is_number(value) else None


def doubts(bundle: Bundle) -> dict[str, str]:
    """Say what holds closely at best, as it did when the bundle was built."""
    said = {one["limit"] for one in bundle.manifest["checks"] if SEEN in (one.get("reason") or "")}
    return {name: SEEN for kind in (GENERAL, OWN) if said & {*kind} for name in kind}


def read(path: Path) -> Mapping[str, Any]:
    """Read the report of an earlier build. Raises `UsageError` for what is none."""
    place, shown = path.expanduser(), printable(path)
    if not place.is_file():
        why = "is a folder: name the report.json in it" if place.is_dir() else "does not exist"
        raise UsageError(f"the earlier report '{shown}' {why}")
    try:
        found = untrusted.parse_json(place.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"'{shown}' is no report: {printable(error)}") from None
    if isinstance(found, dict) and isinstance(found.get("rows"), list) and "chosen" in found:
        return found
    raise UsageError(f"'{shown}' is no report: expected the report.json of an earlier bundle")


def against(
    report: Any, scored: Scored, measured: Measured, *, alike: bool
) -> tuple[dict[str, Interval | None], dict[str, str]]:
    """Return regression in points and slowdown (latency over yardstick) against a report.

    With reasons for what is absent. `alike` says whether what was timed here is as long as the
    rows of the report were.
    """
    row = _chosen(report)
    found: dict[str, Interval | None] = dict.fromkeys(AGAINST)
    reasons: dict[str, str] = {}
    before, now = _interval(_under(row, "score", "test")), scored.figures.get("min_score_points")
    metric = _under(row, "score").get("metric")
    if before is None:
        reasons["max_regression_points"] = "the earlier report holds no test score of what it chose"
    elif now is None or not scored.score:
        reasons["max_regression_points"] = "no score of this bundle: give rows (--data)"
    elif metric != scored.score["metric"]:
        reasons["max_regression_points"] = f"the earlier report scores by {printable(metric)}"
    else:
        found["max_regression_points"] = Interval(before.value - now.value)
    latency = measured.figures["bundle"].latency
    then_ms = _number(_under(row, "latency_ms").get("p50"))
    then = yard(_under(report, "environment", "yardstick"))
    here = yard(dataclasses.asdict(measured.yardstick))
    if not alike:
        reasons["max_slowdown"] = "timed on other texts than the earlier report: give rows (--data)"
    elif not then_ms:
        reasons["max_slowdown"] = "the earlier report holds no latency of what it chose"
    elif not then:
        reasons["max_slowdown"] = "the earlier report holds no yardstick"
    elif latency is None or not here:
        reasons["max_slowdown"] = measured.figures["bundle"].failed or "not measured"
    else:
        found["max_slowdown"] = Interval((latency.p50 / here) / (then_ms / then))
    return found, reasons


def yard(rates: Mapping[str, Any]) -> float | None:
    """Return one time of the yardstick: the geometric mean of what its three graphs take."""
    fp32, int8, node = (
        _number(rates.get(name)) for name in ("fp32_gflops", "int8_gops", "node_us")
    )
    if not fp32 or not int8 or not node or min(fp32, int8, node) <= 0:
        return None
    return (node / (fp32 * int8)) ** (1 / 3)
