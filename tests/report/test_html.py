"""The page: complete by itself, escaped, bounded, and said in words."""

from __future__ import annotations

import copy
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

from edgedistill.report import html, markdown
from edgedistill.report.plot import plot

HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=1>&amp;\x00\x1b[31m\u202e\u2066" + "w" * 5000
)


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, and the text."""

    void = ("meta", "br", "img", "link", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def spoil(value):
    """Put hostile text wherever a text stands."""
    if isinstance(value, dict):
        return {key: spoil(each) for key, each in value.items()}
    if isinstance(value, list):
        return [spoil(each) for each in value]
    return value + HOSTILE if isinstance(value, str) else value


def hostile(report: dict) -> dict:
    """Spoil all texts that a user or the host could bring."""
    report = copy.deepcopy(report)
    for key in (
        "job",
        "environment",
        "source_model",
        "warnings",
        "data",
        "command",
        "reason",
        "can_show",
    ):
        report[key] = spoil(report[key])
    for split in report["data"]["splits"].values():
        split["origin"] = "given"
    report["target"]["name"] += HOSTILE
    report["chosen"] += HOSTILE
    for row in report["rows"]:
        row["name"] += HOSTILE
        row["worst_labels"] = spoil(row["worst_labels"])
        row["reason"] = HOSTILE
        for check in row["checks"]:
            check["reason"] = HOSTILE
            check["limit"] += HOSTILE
    for step in report["steps"]:
        step["about"] = HOSTILE
        step["rows"] = spoil(step["rows"])
    return report


def test_the_page_is_whole_without_script_or_network(invented):
    page = Page(html(invented))
    assert page.open == []
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "form", "base"}
    for _, attributes in page.tags:
        assert not {"src", "href", "onclick", "onload"} & set(attributes)
    text = html(invented)
    assert "url(" not in text and "@import" not in text and "//" not in text.split("</style>")[1]


def test_the_verdict_comes_first_in_plain_words(invented, nothing_fits):
    text = html(invented)
    page = Page(text)
    assert "student 2x384 int8 fits phone, closely" in page.text
    assert text.index("fits phone, closely", text.index("<h1>")) < text.index("<table")
    order = [
        "Side by side",
        "Score against latency",
        "The limits of phone",
        "What was done",
        "Labels that lost most",
        "Where it was measured",
        "How to repeat it",
    ]
    places = [text.index(f"<h2>{head}") for head in order]
    assert places == sorted(places)
    assert (
        "Nothing fits phone; the best miss is student 2x384 int8" in Page(html(nothing_fits)).text
    )


def test_whatever_a_user_brings_is_escaped_and_bounded(invented):
    text = html(hostile(invented))
    page = Page(text)
    assert page.open == []
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    for char in ("\x00", "\x1b", "\u202e", "\u2066"):
        assert char not in text
    assert len(text.encode()) < 300_000


def test_a_huge_report_stays_below_its_size(invented):
    report = copy.deepcopy(invented)
    row = report["rows"][2]
    for index in range(400):
        report["rows"].append(
            {**copy.deepcopy(row), "name": f"row {index} " + "x" * 200, "reason": "é" * 3000}
        )
    report["steps"] *= 200
    report["warnings"] = ["ü" * 5000] * 2000
    report["job"] = {f"s{i}": {f"k{j}": "v" * 500 for j in range(50)} for i in range(50)}
    text = html(report)
    assert len(text.encode()) < 300_000
    assert "more in report.json" in text


def test_an_estimate_is_called_one_everywhere(invented):
    text = Page(html(invented)).text
    assert "p90 phone*" in text and "* estimated from this host" in text
    assert "estimated" in plot(invented)
    for row in invented["rows"]:
        if row["device"]:
            row["device"]["source"] = "measured"
    assert "estimated from" not in Page(html(invented)).text
    assert "estimated" not in plot(invented)


def test_it_has_a_dark_a_narrow_and_a_printed_form(invented):
    text = html(invented)
    for query in ("prefers-color-scheme: dark", "max-width: 46rem", "@media print"):
        assert query in text
    assert 'name="viewport"' in text and "<html lang" in text


@pytest.mark.parametrize("width", [720, 360])
def test_the_plot_is_an_svg_with_every_row_its_limits_and_its_names(invented, width):
    svg = plot(invented, width=width, height=340)
    root = ElementTree.fromstring(svg)
    texts = [node.text or "" for node in root.iter("text")]
    for name in ("teacher fp32", "teacher int8", "control 2x384 int8", "student 2x384 fp32"):
        assert name in texts
    assert "student 2x384 int8 · chosen" in texts
    assert "limit 20 ms" in texts and "limit: drop 1" in texts
    marks = [node.get("class") for node in root.iter() if "mark" in (node.get("class") or "")]
    assert len(marks) == 5 and len(set(marks)) == 5  # one form for each role
    for node in root.iter("text"):
        assert 0 <= float(node.get("x")) <= width and 0 <= float(node.get("y")) <= 340


def test_faster_is_left_and_better_is_up(invented):
    root = ElementTree.fromstring(plot(invented))
    at = {}
    for group in root.iter("g"):
        title, mark = group.find("title").text, group.findall("*")[-1]
        d = mark.get("d")
        x, y = (
            (float(n) for n in d[1:].split("m")[0].split())
            if d
            else (float(mark.get("cx")), float(mark.get("cy")))
        )
        at[title.split(":")[0]] = (x, y)
    assert at["student 2x384 int8"][0] < at["teacher int8"][0] < at["teacher fp32"][0]
    assert at["teacher fp32"][1] < at["student 2x384 int8"][1] < at["control 2x384 int8"][1]


def test_without_device_figures_the_plot_is_of_this_host_and_draws_no_device_limit(invented):
    for row in invented["rows"]:
        row["device"] = None
    svg = plot(invented)
    assert "p90 here" in svg and "limit 20 ms" not in svg


def test_fewer_than_two_points_are_no_plot(invented):
    for row in invented["rows"][1:]:
        row["latency_ms"] = row["device"] = None
    assert plot(invented) == ""
    assert "Score against latency" not in html(invented)


def test_equal_scores_and_latencies_still_make_a_plot(invented):
    for row in invented["rows"]:
        if row["latency_ms"]:
            row["device"]["latency_p90_ms"] = 20.0
            row["score"]["test"] = {"value": 100.0, "low": None, "high": None, "rows": 9}
    invented["target"]["limits"]["max_drop_points"] = 0.0
    ElementTree.fromstring(plot(invented))


def test_warnings_and_versions_are_told_once(invented):
    invented["warnings"] = [*invented["data"]["warnings"], "another"]
    invented["environment"]["versions"]["edgedistill"] = "0.1.0"
    for text in (html(invented), markdown(invented)):
        assert text.count("3 test rows are also in train") == 1 and text.count("another") == 1
        assert text.count("edgedistill 0.1.0") == 1


def test_no_line_breaks_inside_a_flag(invented):
    invented["rows"][1]["reason"] = "it is eligible already; --student names more"
    assert '; <span class="kept">--student</span> names more' in html(invented)
    invented["rows"][1]["reason"] = "a--b -- --<i>"
    assert 'class="kept">--&lt;' not in html(invented) and "a--b -- --&lt;i&gt;" in html(invented)


def test_a_step_is_told_as_long_as_in_markdown(invented):
    about = "which layers start student 2x384: " + "0, 1 (first) 90.0, " * 11 + "after 120 steps"
    invented["steps"][2]["about"] = about
    assert about in html(invented)


def test_the_pages_tell_yardsticks_and_calibration(invented):
    rates = {"fp32_gflops": 221.4, "int8_gops": 793.0, "node_us": 0.29}
    invented["environment"]["yardstick"] = rates
    for text in (html(invented), markdown(invented)):
        assert "yardstick here" in text and "793 GOP/s" in text
        assert "Calibration error" in text and "temperature" in text


def test_the_command_is_whole_on_one_line(invented):
    invented["command"] = "edgedistill build " + " ".join(
        f"--set section.setting{index}=value" for index in range(60)
    )
    page = Page(html(invented))
    assert invented["command"] in page.text and invented["command"] in markdown(invented)
    line = next(each for each in html(invented).splitlines() if 'class="command"' in each)
    assert line.count("</pre>") == 1  # no line of it is broken in the source


@pytest.mark.parametrize("allowed", [0.1, 1.0, 40.0])
@pytest.mark.parametrize("ms", [0.1, 20.0, 1000.0])
def test_the_texts_of_the_limits_hide_neither_line_nor_text(make_report, allowed, ms):
    limits = {"max_drop_points": allowed, "latency_p90_ms": ms}
    for width, height in ((720, 400), (340, 360)):
        drawn = ElementTree.fromstring(plot(make_report(limits), width=width, height=height))
        lines = [each for each in drawn if each.get("class") == "limit" and "line" in each.tag]
        texts = [each for each in drawn if each.get("class") == "limit" and "text" in each.tag]
        (upright,) = [float(each.get("x1")) for each in lines if each.get("x1") == each.get("x2")]
        spans = [
            (
                float(each.get("x")) - 6.4 * len(each.text),
                float(each.get("x")),
                float(each.get("y")),
            )
            for each in texts
        ]
        assert len(spans) == 2
        assert all(not left < upright < right for left, right, _ in spans)
        (a_left, a_right, a_low), (b_left, b_right, b_low) = spans
        apart = a_right <= b_left or b_right <= a_left or abs(a_low - b_low) >= 13
        assert apart and all(left > 0 and right < width for left, right, _ in spans)
