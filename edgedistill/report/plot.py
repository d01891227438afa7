"""The latency-accuracy plot, as inline SVG.

Nothing is said by colour alone: every role has its own mark, every mark its name beside it. The
whiskers are 95 % intervals; the limits are lines, and what lies inside both is shaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from edgedistill.report import words
from edgedistill.report.labels import LETTER, Box, Mark, labels, overlap

MARKS = {
    "baseline": "diamond",
    "teacher_int8": "square",
    "assistant": "square",
    "control": "triangle",
    "student_fp32": "ring",
    "candidate": "disc",
    "previous": "cross",
    "peer": "cross",
}
_MOST = 24  # marks; more would hide each other


@dataclass(frozen=True)
class _Point:
    name: str
    role: str
    note: str  # "chosen", "best miss", ""
    x: float
    y: float
    across: tuple[float, float] | None
    along: tuple[float, float] | None


@dataclass(frozen=True)
class _Frame:
    """Where figures lie on the paper: x by logarithm, y straight."""

    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]
    left: float = 46.0
    right: float = 14.0
    top: float = 24.0
    bottom: float = 44.0

    def at_x(self, value: float) -> float:
        low, high = map(math.log, self.x)
        share = (math.log(max(value, 1e-9)) - low) / (high - low)
        return self.left + min(max(share, 0.0), 1.0) * (self.width - self.left - self.right)

    def at_y(self, value: float) -> float:
        share = (value - self.y[0]) / (self.y[1] - self.y[0])
        return (
            self.height
            - self.bottom
            - min(max(share, 0.0), 1.0) * (self.height - self.top - self.bottom)
        )


def plot(report: Mapping[str, Any], *, width: int = 720, height: int = 400) -> str:
    """Return the plot, or an empty text where fewer than two rows have both figures."""
    device = all(row["device"] for row in report["rows"] if row["latency_ms"])
    points = _points(report, device)
    if len(points) < 2:
        return ""
    limits = _limits(report, device)
    frame = _frame(points, limits, width, height)
    boxes = _boxes(frame, limits)
    where = "here"
    if device:
        name = words.plain(report["target"].get("name") or "device", 24)
        where = f"on {name}, estimated" if words.estimated(report) else f"on {name}"
    first = "; ".join(f"{p.name} {words.number(p.x)} ms, {p.y:.1f} points" for p in points)
    about = f"Test score against latency (p90 in ms {where}): {first}"
    parts = [
        f'<svg class="plot" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(about)}">',
        _region(frame, limits),
        _axes(frame, f"p90 {where}, ms (log)"),
        *(
            _limit(frame, axis, value, box, text)
            for (axis, value, text), box in zip(limits, boxes, strict=True)
        ),
        *(_whiskers(frame, point) for point in points),
        *(_mark(frame, point) for point in points),
        *_names(frame, points, [*boxes, *_lines(frame, limits)]),
        "</svg>",
    ]
    return "".join(parts)


def legend(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the marks in use, as small SVGs, with what each stands for."""
    given = words.source(report) != "teacher"
    meanings = {
        "baseline": "the model as given" if given else "teacher, fp32",
        "teacher_int8": "teacher, int8",
        "assistant": "assistant: taught the student",
        "control": "control: no teacher",
        "student_fp32": "student, fp32",
        "candidate": "quantized" if given else "student, int8",
        "previous": "earlier build",
        "peer": "another tool",
    }
    used = {point.role for point in _points(report, False) + _points(report, True)}
    head = '<svg class="plot key" viewBox="0 0 16 16" aria-hidden="true">'
    return [
        (f"{head}{_shape(role, 8, 8)}</svg>", meaning)
        for role, meaning in meanings.items()
        if role in used
    ]


def _points(report: Mapping[str, Any], device: bool) -> list[_Point]:
    points = []
    for row in report["rows"]:
        score = row["score"]["test"]
        x = words.device_p90(row) if device else words.p90(row)
        if not score or not x:
            continue
        note = "chosen" if row["name"] == report["chosen"] else ""
        note = "best miss" if row["name"] == report.get("best_miss") else note
        time = row["device"] if device else row["latency_ms"]
        names = ("low", "high") if device else ("p90_low", "p90_high")
        across = _both(time[names[0]], time[names[1]])
        along = _both(score["low"], score["high"])
        name = words.plain(row["name"], 28)
        points.append(_Point(name, row["role"], note, x, score["value"], across, along))
    kept = [p for p in points if p.note or p.role == "baseline"]
    return (kept + [p for p in points if p not in kept])[:_MOST]


def _both(low: float | None, high: float | None) -> tuple[float, float] | None:
    return None if low is None or high is None else (low, high)


def _limits(report: Mapping[str, Any], device: bool) -> list[tuple[str, float, str]]:
    """Return the limits that can be drawn: (axis, where, text)."""
    limits, base = report["target"].get("limits", {}), words.baseline(report)
    made = []
    if device and limits.get("latency_p90_ms"):
        value = limits["latency_p90_ms"]
        made.append(("x", value, f"limit {value:,.10g} ms"))
    floors = []
    score = base["score"]["test"] if base else None
    if score and limits.get("max_drop_points") is not None:
        drop = limits["max_drop_points"]
        floors.append((score["value"] - drop, f"limit: drop {drop:.10g}"))
    if limits.get("min_score_points") is not None:
        floors.append((limits["min_score_points"], "limit: score"))
    if floors:
        made.append(("y", *max(floors)))
    return made


def _frame(
    points: Sequence[_Point], limits: Sequence[tuple[str, float, str]], width: int, height: int
) -> _Frame:
    xs = [p.x for p in points] + [v for axis, v, _ in limits if axis == "x"]
    ys = [edge for p in points for edge in (p.along or (p.y, p.y))]
    ys += [v for axis, v, _ in limits if axis == "y"]
    slack = max(0.15 * (max(ys) - min(ys)), 0.5)
    return _Frame(
        width, height, (min(xs) / 1.6, max(xs) * 1.7), (min(ys) - slack, max(ys) + 0.6 * slack)
    )


def _region(frame: _Frame, limits: Sequence[tuple[str, float, str]]) -> str:
    """Shade what lies inside the limits: fast and right enough."""
    if not limits:
        return ""
    by_axis = {axis: value for axis, value, _ in limits}
    right = frame.at_x(by_axis.get("x", frame.x[1]))
    low = frame.at_y(by_axis.get("y", frame.y[0]))
    return (
        f'<rect class="inside" x="{frame.left:.1f}" y="{frame.top:.1f}" '
        f'width="{right - frame.left:.1f}" height="{low - frame.top:.1f}"/>'
    )


def _axes(frame: _Frame, title: str) -> str:
    parts = []
    bottom, right = frame.height - frame.bottom, frame.width - frame.right
    for value in _log_ticks(*frame.x):
        x = frame.at_x(value)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{frame.top}" y2="{bottom}"/>'
        )
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">'
            f"{value:g}</text>"
        )
    for value in _ticks(*frame.y):
        y = frame.at_y(value)
        parts.append(
            f'<line class="grid" x1="{frame.left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(
            f'<text class="tick" x="{frame.left - 7}" y="{y + 4:.1f}" text-anchor="end">'
            f"{value:g}</text>"
        )
    parts.append(
        f'<text class="title" x="{right}" y="{frame.height - 6}" text-anchor="end">'
        f"{escape(title)}</text>"
    )
    parts.append('<text class="title" x="4" y="12">test score, points</text>')
    return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    step = 10 ** math.floor(math.log10((high - low) / 2))
    for factor in (1, 2, 5, 10):
        if (high - low) / (step * factor) <= 6:
            step *= factor
            break
    first = math.ceil(low / step)
    return [round(i * step, 6) for i in range(first, math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = (1, 2, 5) if high / low < 300 else (1,)
    every = [digit * 10.0**power for power in powers for digit in fine]
    return [float(f"{value:.6g}") for value in every if low <= value <= high]


def _limit(frame: _Frame, axis: str, value: float, box: Sequence[float], text: str) -> str:
    """Draw a limit as a line, with its text in a box."""
    bottom, right = frame.height - frame.bottom, frame.width - frame.right
    if axis == "x":
        x = f"{frame.at_x(value):.1f}"
        ends = f'x1="{x}" x2="{x}" y1="{frame.top}" y2="{bottom}"'
    else:
        y = f"{frame.at_y(value):.1f}"
        ends = f'x1="{frame.left}" x2="{right}" y1="{y}" y2="{y}"'
    return (
        f'<line class="limit" {ends}/><text class="limit" x="{box[0] + box[2]:.1f}" '
        f'y="{box[1] + 11:.1f}" text-anchor="end">{escape(text)}</text>'
    )


def _boxes(frame: _Frame, limits: Sequence[tuple[str, float, str]]) -> list[Box]:
    """Place the text of each limit beside its line, across no other line or text."""
    boxes: list[Box] = []
    bottom, right = frame.height - frame.bottom, frame.width - frame.right
    upright = None
    for axis, value, text in limits:
        wide = LETTER * len(text)
        if axis == "x":
            upright = frame.at_x(value)
            left = upright - 5 - wide if upright > frame.width * 0.75 else upright + 5
            boxes.append((left, bottom - 18, wide, 14.0))
            continue
        y = frame.at_y(value)
        if upright is not None and right - wide - 5 < upright:  # it would cross that line
            right = upright - 5
        below: Box = (right - wide, y + 3, wide, 14.0)
        hidden = below[1] + 14 > bottom or any(overlap(below, box) for box in boxes)
        boxes.append((right - wide, y - 17, wide, 14.0) if hidden else below)
    return boxes


def _lines(frame: _Frame, limits: Sequence[tuple[str, float, str]]) -> list[Box]:
    """Return the limits' lines as boxes: no name lies across one that can stand beside it."""
    bottom, right = frame.height - frame.bottom, frame.width - frame.right
    return [
        (frame.at_x(value) - 1.5, frame.top, 3.0, bottom - frame.top)
        if axis == "x"
        else (frame.left, frame.at_y(value) - 1.5, right - frame.left, 3.0)
        for axis, value, _ in limits
    ]


def _whiskers(frame: _Frame, point: _Point) -> str:
    x, y, made = frame.at_x(point.x), frame.at_y(point.y), ""
    if point.across:
        a, b = map(frame.at_x, point.across)
        made += f'<line class="whisker" x1="{a:.1f}" x2="{b:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
    if point.along:
        a, b = map(frame.at_y, point.along)
        made += f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{a:.1f}" y2="{b:.1f}"/>'
    return made


def _mark(frame: _Frame, point: _Point) -> str:
    x, y = frame.at_x(point.x), frame.at_y(point.y)
    halo = f'<circle class="halo" cx="{x:.1f}" cy="{y:.1f}" r="11"/>' if point.note else ""
    tip = f"{point.name}: {words.number(point.x)} ms, {point.y:.1f} points"
    return f"<g><title>{escape(tip)}</title>{halo}{_shape(point.role, x, y)}</g>"


def _shape(role: str, x: float, y: float) -> str:
    kind = MARKS.get(role, "cross")
    if kind in ("disc", "ring"):
        return f'<circle class="mark {kind}" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>'
    paths = {
        "diamond": "m0 -7 7 7 -7 7 -7 -7z",
        "square": "m-5 -5h10v10h-10z",
        "triangle": "m0 -6.5 6.5 11.5h-13z",
        "cross": "m-5 -5 10 10m0 -10 -10 10",
    }
    return f'<path class="mark {kind}" d="M{x:.1f} {y:.1f}{paths[kind]}"/>'


def _names(frame: _Frame, points: Sequence[_Point], taken: Sequence[Box]) -> list[str]:
    """Write each name beside its mark; `taken` are the texts and lines of the limits."""
    marks = [
        Mark(
            frame.at_x(point.x),
            frame.at_y(point.y),
            point.name + (f" · {point.note}" if point.note else ""),
            bool(point.note),
        )
        for point in points
    ]
    left, high = frame.left + 2, frame.height - frame.bottom - frame.top
    return labels(marks, taken, (left, frame.top, frame.width - 4 - left, high))
