"""Names beside their marks: apart from each other, joined where they stand far off."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree

import pytest

from edgedistill.report.labels import LETTER, Mark, labels, overlap
from edgedistill.report.plot import plot

INSIDE = (48.0, 24.0, 308.0, 272.0)  # of a phone's plot
NAMES = ("teacher fp32", "teacher int8", "student 2x384 fp32", "student 2x384 int8",
         "control 2x384 int8", "student 2x384 int8 static")  # fmt: skip


def read(drawn: list[str]) -> tuple[list[tuple[str, tuple[float, ...]]], int]:
    """Return every text with its box, and the number of lines to marks."""
    root = ElementTree.fromstring(f"<svg>{''.join(drawn)}</svg>")
    made = []
    for text in root.iter("text"):
        wide = LETTER * len(text.text)
        left = float(text.get("x")) - (wide if text.get("text-anchor") == "end" else 0)
        made.append((text.text, (left, float(text.get("y")) - 11, wide, 14.0)))
    return made, len(list(root.iter("line")))


def hidden(found) -> float:
    return sum(overlap(a, b) for (_, a), (_, b) in itertools.combinations(found, 2))


@pytest.mark.parametrize("step", [(13, 0), (0, 15), (10, 9), (60, 30)])
def test_names_of_near_marks_hide_neither_each_other_nor_the_marks(step):
    marks = [Mark(90 + i * step[0], 80 + i * step[1], name, i == 3) for i, name in enumerate(NAMES)]
    found, _ = read(labels(marks, [], INSIDE))
    assert [text for text, _ in found] == list(NAMES)
    assert hidden(found) == 0
    spots = [(mark.x - 5, mark.y - 5, 10, 10) for mark in marks]
    assert sum(overlap(box, spot) for _, box in found for spot in spots) < 20
    for _, (left, top, wide, high) in found:
        assert left >= 48 and top >= 24 and top + high <= 296 and left + wide <= 357


def test_marks_that_lie_on_each_other_share_one_block_of_names():
    marks = [Mark(100 + i, 90, name, i == 1) for i, name in enumerate(NAMES)]
    found, lines = read(labels(marks, [], INSIDE))
    assert [text for text, _ in found] == [*NAMES[:3], "and 3 more here"]
    assert hidden(found) == 0 and lines == 0
    assert len({box[0] for _, box in found}) == 1


def test_a_name_that_stands_apart_is_joined_to_its_mark():
    around = [(60.0, 40.0, 240.0, 80.0)]
    near, lines = read(labels([Mark(180, 80, "control", False)], [], INSIDE))
    assert lines == 0
    far, lines = read(labels([Mark(180, 80, "control", False)], around, INSIDE))
    assert lines == 1 and overlap(far[0][1], around[0]) == 0 and far != near


@pytest.mark.parametrize("width", [720, 360])
def test_a_plot_of_equal_rows_names_a_few_and_counts_the_others(invented, width):
    for row in invented["rows"]:
        if row["device"]:
            row["device"]["latency_p90_ms"] = 2.0
            row["score"]["test"]["value"] = 96.0
    texts = [text.text for text in ElementTree.fromstring(plot(invented, width=width)).iter("text")]
    assert "student 2x384 int8 · chosen" in texts and "and 2 more here" in texts
