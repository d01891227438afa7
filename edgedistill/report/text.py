"""The report on a terminal: the table of rows, and what stands below it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unicodedata import combining, east_asian_width

from edgedistill.report import words
from edgedistill.report.words import number, plain, spread

_BOLD, _DIM, _GREEN, _YELLOW, _RED, _OFF = (f"\x1b[{n}m" for n in (1, 2, 32, 33, 31, 0))
_COLORS = {"fits": _GREEN, "fits_closely": _YELLOW, "misses": _RED}
_STOPPED = ("dropped", "skipped", "failed")


def table(report: Mapping[str, Any], width: int = 100, color: bool = False) -> str:
    """Return the rows as a terminal shows them, then the verdict and the footnotes.

    `width` is that of the terminal in columns: a narrow one loses columns, the least needed first.
    `color` adds ANSI colours; nothing is said by colour alone.
    """
    lines = _rows(report, width, color)
    stopped = [row for row in report["rows"] if row["state"] in _STOPPED]
    lines += [
        _paint(f" {plain(row['name'])}: {row['state']}, {plain(row['reason'] or '')}", _DIM, color)
        for row in stopped
    ]
    if words.estimated(report):
        lines.append(" * estimated from this host by the yardstick; a device measures it")
    if any(row["latency_ms"] and not row["latency_ms"]["steady"] for row in report["rows"]):
        lines.append(" ~ unsteady: something else ran on this host")
    tone = _BOLD + _COLORS[report["verdict"]]
    lines += ["", _paint(words.headline(report), tone, color)]
    if words.teachers(report):
        lines.append(f" teachers: {words.teachers(report)}")
    row = words.shown(report)
    lines += [f" {said}" for said in (words.folded(row, words.baseline(report)) if row else ())]
    for check in row["checks"] if row else ():
        if check["state"] != "holds":
            lines.append(" " + words.check_line(check))
    said = words.worth(report)
    lines += [f" {said}"] if said else []
    lines += [f" {told}" for told in words.on_processors(report)]
    if report["chosen"] is None and row:
        lines += [f" on validation: {rest}" for rest in filter(None, [_beyond(report, row)])]
    return "\n".join(lines)


def _beyond(report: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Return what validation shows against the best miss beyond the limits that test shows."""
    told = {check["limit"] for check in row["checks"] if check["state"] == "misses"}
    parts = words.why(report).split("; ")
    return "; ".join(part for part in parts if part.partition(" ")[0] not in told)


def _rows(report: Mapping[str, Any], width: int, color: bool) -> list[str]:
    target = plain(report["target"].get("name") or "device", 20)
    star = "*" if words.estimated(report) else ""
    columns = [
        ("test", lambda row: spread(row["score"]["test"]), ""),
        ("drop", lambda row: spread(row["drop_points"]["test"]).replace("–", "-"), ""),
        ("p90 here", _here, " ms"),
        (f"p90 {target}{star}", lambda row: number(words.device_p90(row)), " ms"),
        ("memory", lambda row: number(row["memory_mb"]), " MB"),
        ("size", lambda row: number(row["size_mb"]), " MB"),
    ]
    rows = [
        row for row in report["rows"] if row["state"] not in _STOPPED or row["latency_ms"]
    ]  # what was pruned in vain was measured too
    if any(map(words.own, rows)):
        columns[2:2] = [
            ("own test", lambda row: words.own_cells(row)[0], ""),
            ("own drop", lambda row: words.own_cells(row)[1].replace("–", "-"), ""),
        ]
    names = [plain(row["name"], 40) for row in rows]
    cells = []
    for head, write, unit in columns:
        texts = [write(row) for row in rows]
        if texts and texts[0] not in ("–", "-"):
            texts[0] += unit
        cells.append([head, *texts])
    if not rows:
        return []
    wide = max(map(_columns, ["", *names]))
    keep, lost = list(range(len(columns))), []
    marks = ["", *(_mark(report, row) for row in rows)]
    for least in (len(columns) - 2, len(columns) - 4, len(columns) - 1):
        if 1 + wide + sum(_width(cells[i]) + 3 for i in keep) <= width:
            break
        keep.remove(least)
        lost.append(columns[least][0])
    lines = []
    for index, name in enumerate(["", *names]):
        line = " " + name + " " * (wide - _columns(name))
        for column in keep:
            text = cells[column][index]
            line += "   " + text + " " * (_width(cells[column]) - _columns(text))
        chosen = index and rows[index - 1]["state"] == "chosen"
        line = line.rstrip() if not marks[index] else f"{line}   {marks[index]}"
        lines.append(_paint(line, _BOLD if chosen else "", color))
    if lost:
        said = f" left out, for {width} columns are too few: {', '.join(lost)}"
        lines.append(_paint(said, _DIM, color))
    return lines


def _here(row: Mapping[str, Any]) -> str:
    steady = row["latency_ms"] is None or row["latency_ms"]["steady"]
    return ("" if steady else "~") + number(words.p90(row))


def _mark(report: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    if row["name"] == report["chosen"]:
        return f"<- {words.chosen_mark(report)}"
    if row["name"] == report.get("best_miss"):
        return "<- the best miss"
    if row["name"] == report["safer"]:
        return "<- safer"
    return ""


def _columns(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum((2 if east_asian_width(c) in "WF" else 1) for c in text if not combining(c))


def _width(cells: list[str]) -> int:
    return max(map(_columns, cells))


def _paint(text: str, code: str, color: bool) -> str:
    return f"{code}{text}{_OFF}" if color and code and text else text
