"""Benchmark suites: folders of cases, one TOML a case, each a job with a line about it.

benchmarks/cases/<suite>/<case>.toml     about, needs (an environment variable), then a job file
"""

from __future__ import annotations

import os
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgedistill import job, plugins
from edgedistill import target as targets
from edgedistill.builder.driver import build_job
from edgedistill.errors import JobError, UsageError, nearest
from edgedistill.progress import silent
from edgedistill.records import Progress


def names() -> list[str]:
    """List the suites."""
    return sorted(path.name for path in plugins.folder("cases").iterdir() if path.is_dir())


def cases(suite: str) -> list[Path]:
    """Return the case files of a suite. Raises `UsageError` with the nearest right name."""
    if suite not in names():
        raise UsageError(f"unknown suite '{suite}': {nearest(suite, names())}")
    return sorted((plugins.folder("cases") / suite).glob("*.toml"))


def read(case: Path, settings: Mapping[str, Any], target: str | None = None) -> tuple[str, job.Job]:
    """Read a case; returns what it is about and its job, for another target where one is named.

    Raises `UsageError` where the environment lacks what it needs, `JobError` for a malformed one.
    """
    tables = plugins.read_toml(case, JobError)
    about, needs = str(tables.pop("about", "")), tables.pop("needs", None)
    if needs and needs not in os.environ:
        raise UsageError(
            f"case '{case.stem}' needs the environment variable {needs}: "
            f"the folder that its paths start from ({case.name} names them)"
        )
    filled = {
        name: {key: _filled(value) for key, value in table.items()}
        if isinstance(table, Mapping)
        else table
        for name, table in tables.items()
    }
    out = ("run.out", f"dist/{case.parent.name}-{case.stem}")
    asked = [out, *settings.items()]
    return about, job.make(filled, asked, target=target, place=f"{case.name} ")


def run(
    suite: str,
    settings: Mapping[str, Any] | None = None,
    progress: Progress = silent,
    *,
    target: str | None = None,
) -> list[dict[str, Any]]:
    """Build every case of a suite; returns a row a case, with its verdict and its figures.

    `settings` and `target` override those of each case.
    """
    todo = [(case, *read(case, settings or {}, target)) for case in cases(suite)]
    for _, _, asked in todo:
        targets.load(asked.target)  # a wrong one is said before the first case, not after
    rows = []
    for case, about, asked in todo:
        progress({"kind": "line", "about": "case", "text": f"{case.stem}: {about}"})
        record = build_job(asked, progress).record
        rows.append(_row(case.stem, record))
    return rows


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Tell the rows of a suite to people."""
    head = f"{'case':<14}{'verdict':<14}{'chosen':<26}{'score':>7}{'drop':>7}{'faster':>8}"
    lines = [head + f"{'smaller':>9}{'seconds':>9}"]
    for row in rows:
        lines.append(
            f"{row['case']:<14}{row['verdict']:<14}{row['chosen'] or '-':<26}"
            f"{_number(row['score_points']):>7}{_number(row['drop_points']):>7}"
            f"{_number(row['speedup'], 'x'):>8}{_number(row['size_ratio'], 'x'):>9}"
            f"{row['seconds']:>9.0f}"
        )
    return lines


def _row(case: str, record: Mapping[str, Any]) -> dict[str, Any]:
    name = record["chosen"] or record.get("best_miss")
    row = next((each for each in record["rows"] if each["name"] == name), None)
    control = next((each for each in record["rows"] if each["role"] == "control"), None)
    return {
        "case": case,
        "verdict": record["verdict"],
        "chosen": record["chosen"],
        "score_points": _value(row, "score", "test"),
        "drop_points": _value(row, "drop_points", "test"),
        "control_points": _value(control, "score", "test"),
        "speedup": (row or {}).get("speedup") and row["speedup"]["value"],  # type: ignore[index]
        "size_ratio": (row or {}).get("size_ratio", {}).get("baseline"),
        "latency_p90_ms": (row or {}).get("latency_ms") and row["latency_ms"]["p90"],  # type: ignore[index]
        "seconds": record["seconds"]["total"],
    }


def _value(row: Mapping[str, Any] | None, *path: str) -> float | None:
    found: Any = row
    for name in (*path, "value"):
        found = found.get(name) if found else None
    return found


def _number(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value:.1f}{unit}"


def _filled(value: Any) -> Any:
    return string.Template(value).safe_substitute(os.environ) if isinstance(value, str) else value
