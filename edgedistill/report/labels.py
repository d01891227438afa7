"""Where the names of a plot's marks stand: beside their marks, on nothing else.

Marks that lie on each other share one block of names. Each block takes the place that hides the
least of the others and is the nearest; one that stands apart is joined to its mark by a line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Box = tuple[float, float, float, float]  # left, top, width, height
LETTER = 6.4  # mean width of a letter at 12 px
LINE = 14.0
SAME = 9.0  # px: marks this near lie on each other
LINES = 4  # of the names of such marks
TURNS = 3
FAR = 20.0  # px: a name this far from its mark is joined to it


@dataclass(frozen=True)
class Mark:
    """A mark on the paper, with its name; what is `noted` stands out."""

    x: float
    y: float
    name: str
    noted: bool


@dataclass(frozen=True)
class _Block:
    """The names of one mark, or of several that lie on each other."""

    lines: tuple[tuple[str, bool], ...]  # text, and whether it stands out
    x: float
    y: float

    @property
    def wide(self) -> float:
        return max(LETTER * len(text) * (1.08 if strong else 1.0) for text, strong in self.lines)

    @property
    def high(self) -> float:
        return LINE * len(self.lines)

    @property
    def gap(self) -> float:
        return 15.0 if any(strong for _, strong in self.lines) else 11.0


def labels(marks: Sequence[Mark], taken: Sequence[Box], inside: Box) -> list[str]:
    """Return the names of marks as SVG; `taken` are boxes that no name should hide.

    Names stay `inside` a box: across, and up and down as far as there is room.
    """
    around = [*taken, *((mark.x - 9, mark.y - 9, 18.0, 18.0) for mark in marks)]
    blocks = _blocks(marks)
    placed: list[Box] = []
    for turn in range(TURNS):  # later turns know where all others are
        for index, block in enumerate(blocks):
            others = [*around, *placed[:index], *placed[index + 1 :]]
            costs = {box: _cost(block, box, others, inside) for box in _places(block, inside)}
            placed[index : index + 1 if turn else index] = [min(costs, key=costs.__getitem__)]
    return [_written(block, box) for block, box in zip(blocks, placed, strict=True)]


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the area that two boxes share."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    along = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return across * along if across > 0 and along > 0 else 0.0


def _blocks(marks: Sequence[Mark]) -> list[_Block]:
    groups: list[list[Mark]] = []
    for mark in marks:
        near = (g for g in groups if math.dist((mark.x, mark.y), (g[0].x, g[0].y)) <= SAME)
        group = next(near, None)
        if group is None:
            groups.append([mark])
        else:
            group.append(mark)
    made = []
    for group in groups:
        lines = [(mark.name, mark.noted) for mark in group]
        if len(lines) > LINES:
            lines = [*lines[: LINES - 1], (f"and {len(lines) - LINES + 1} more here", False)]
        made.append(_Block(tuple(lines), group[0].x, group[0].y))
    return made


def _places(block: _Block, inside: Box) -> list[Box]:
    """Return where a block could stand, from beside its mark outwards."""
    wide, high, x, y = block.wide, block.high, block.x, block.y
    lefts = (x + block.gap, x - block.gap - wide, x - wide / 2, x - 4, x + 4 - wide)
    tops = [y - high / 2]
    for rise in range(10, 80, 7):
        tops += [y - rise - high, y + rise]
    first, last = inside[0], inside[0] + inside[2] - wide
    return [(max(min(left, last), first), top, wide, high) for top in tops for left in lefts]


def _cost(block: _Block, box: Box, others: Sequence[Box], inside: Box) -> float:
    """Weigh what a box hides, how far it stands from its mark, and what of it lies outside."""
    above, below = inside[1] - box[1], box[1] + box[3] - inside[1] - inside[3]
    return (
        8.0 * sum(overlap(box, other) for other in others)
        + 3.0 * math.dist(_nearest(block, box), (block.x, block.y))
        + 1000.0 * (max(above, 0.0) + max(below, 0.0))
    )


def _nearest(block: _Block, box: Box) -> tuple[float, float]:
    """Return the point of a box that is the nearest to its block's mark."""
    left, top, wide, high = box
    return min(max(block.x, left), left + wide), min(max(block.y, top), top + high)


def _written(block: _Block, box: Box) -> str:
    x, y = _nearest(block, box)
    made = ""
    if math.dist((x, y), (block.x, block.y)) > FAR:
        ends = f'x1="{block.x:.1f}" y1="{block.y:.1f}" x2="{x:.1f}" y2="{y:.1f}"'
        made = f'<line class="leader" {ends}/>'
    right = box[0] + box[2]
    side = right < block.x  # left of its mark it ends there
    at, anchor = (right, ' text-anchor="end"') if side else (box[0], "")
    for index, (text, strong) in enumerate(block.lines):
        made += (
            f'<text class="name{" strong" if strong else ""}" x="{at:.1f}" '
            f'y="{box[1] + 11 + LINE * index:.1f}"{anchor}>{escape(text)}</text>'
        )
    return made
