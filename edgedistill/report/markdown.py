"""The report as markdown, made from report.json alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgedistill.report import figures, words
from edgedistill.report.words import number, points, span, spread


def markdown(report: Mapping[str, Any]) -> str:
    """Return the whole report as markdown (GitHub's tables)."""
    parts = [
        f"# {_safe(words.headline(report))}",
        "\n".join(_safe(line) + "  " for line in words.summary(report)),
        f"Why: {_safe(words.why(report))}." if words.why(report) else "",
        _rows(report) if report["rows"] else "",
    ]
    if words.estimated(report):
        parts.append("\\* estimated from this host by the yardstick; a device measures it.")
    parts += [_checks(report), _labels(report), _confidence(report), _more(report)]
    parts += [_steps(report), _place(report)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _safe(text: Any) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#~&])", r"\\\1", words.plain(text))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def _rows(report: Mapping[str, Any]) -> str:
    star = "\\*" if words.estimated(report) else ""
    target = _safe(report["target"].get("name") or "device")
    head = [
        "row",
        "test",
        "drop",
        "p90 here, ms",
        f"p90 {target}{star}, ms",
        "memory, MB",
        "size, MB",
        "state",
    ]
    own = any(map(words.own, report["rows"]))
    head[3:3] = ["own test", "own drop"] if own else []
    rows = []
    for row in report["rows"]:
        state = row["state"] + (f": {_safe(row['reason'])}" if row["reason"] else "")
        name = _safe(row["name"])
        rows.append(
            [
                f"**{name}**" if row["state"] == "chosen" else name,
                spread(row["score"]["test"]),
                spread(row["drop_points"]["test"]),
                *(words.own_cells(row) if own else ()),
                number(words.p90(row)),
                number(words.device_p90(row)),
                number(row["memory_mb"]),
                number(row["size_mb"]),
                state,
            ]
        )
    return _table(head, rows)


def _checks(report: Mapping[str, Any]) -> str:
    row = words.shown(report)
    if row is None or not row["checks"]:
        return ""
    lines = [f"- {_safe(words.check_line(check))}" for check in row["checks"]]
    return f"## Limits of {_safe(report['target'].get('name'))}\n\n" + "\n".join(lines)


def _labels(report: Mapping[str, Any]) -> str:
    row = words.shown(report)
    if row is None or not row["worst_labels"]:
        return ""
    rows = [
        [
            _safe(one["label"]),
            f"{one['rows']:,}",
            points(one["recall"]),
            points(one["baseline_recall"]),
        ]
        for one in row["worst_labels"]
    ]
    head = ["label", "test rows", "found", f"found by the {words.source(report)}"]
    return "## Labels that lost most\n\n" + _table(head, rows)


def _confidence(report: Mapping[str, Any]) -> str:
    said = words.calibration(report)
    row = words.shown(report)
    if row is None or not said:
        return ""
    rows = [
        [
            f"at least {number(one['threshold'], 1)}",
            points(one["coverage"]),
            points(one["accuracy"]),
        ]
        for one in row["confidence"]["at"]
    ]
    head = ["probability", "answers kept, %", "of these right, %"]
    return f"## What a probability is worth\n\n{_safe(said)}\n\n" + _table(head, rows)


def _more(report: Mapping[str, Any]) -> str:
    row = words.shown(report)
    if row is None:
        return ""
    pairs = [(name, text) for name, text in figures.beyond(row, words.source(report)) if text]
    lines = [f"- {_safe(name)}: {_safe(text)}" for name, text in pairs]
    return f"## More of {_safe(row['name'])}\n\n" + "\n".join(lines) if lines else ""


def _steps(report: Mapping[str, Any]) -> str:
    if not report["steps"]:
        return ""
    rows = [
        [
            step["stage"],
            _safe(step.get("about") or ""),
            _safe(words.used_by(step["rows"])),
            span(step["seconds"]) + (" (from the store)" if step["cached"] else ""),
        ]
        for step in report["steps"]
    ]
    return "## What was done\n\n" + _table(["step", "what", "for", "time"], rows)


def _place(report: Mapping[str, Any]) -> str:
    where = report["environment"]
    lines = [
        f"- {_safe(where['processor'] or 'unknown processor')}, "
        f"{_safe(where['cores'] or '?')} cores",
        f"- {_safe(words.versions(report))}",
        f"- made {_safe(report['created'])} in {span(report['seconds'].get('total'))}",
    ]
    lines += [f"- {_safe(place)}: {_safe(rates)}" for place, rates in words.yardstick(report)]
    lines += [f"- teachers: {_safe(words.teachers(report))}"] if words.teachers(report) else []
    lines += [f"- rows: {_safe(words.splits(report))}", f"- metric: {_safe(words.metric(report))}"]
    lines += [f"- warning: {_safe(text)}" for text in words.warnings(report)]
    if report["command"]:
        lines += ["", "Again:", "", f"    {words.plain(report['command'], 8000)}"]
    return "## Where and how\n\n" + "\n".join(lines)
