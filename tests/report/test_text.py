"""The terminal's table."""

from __future__ import annotations

import re

from edgedistill.report import html, markdown, table


def test_the_table_is_of_the_form_that_users_were_promised(invented):
    lines = table(invented).splitlines()
    assert lines[0].split() == ["test", "drop", "p90", "here", "p90", "phone*", "memory", "size"]
    first, last = lines[1], next(line for line in lines if "<- chosen" in line)
    assert re.search(r"teacher fp32 +96\.0 ±0\.6 +- +5\.2 ms +16 ms +118 MB +91 MB$", first)
    assert re.search(r"student 2x384 int8 .*0\.65 +2\.0 +19 +6\.1 +<- chosen, fits closely$", last)
    assert any(line.startswith(" * estimated from this host") for line in lines)
    assert any("skipped, the first one that fits" in line for line in lines)


def test_columns_stand_below_their_heads(invented):
    lines = table(invented).splitlines()
    at = lines[0].index("p90 here")
    assert all(line[at - 1] == " " and line[at] != " " for line in lines[1:6])


def test_a_narrow_terminal_loses_columns_not_lines(invented):
    wide, narrow = table(invented, width=200), table(invented, width=60)
    assert "memory" in wide.splitlines()[0]
    assert "memory" not in narrow.splitlines()[0]
    assert "test" in narrow.splitlines()[0] and "drop" in narrow.splitlines()[0]
    (said,) = [line for line in narrow.splitlines() if "left out" in line]
    assert said == " left out, for 60 columns are too few: memory, p90 here, size"
    assert len(narrow.splitlines()) == len(wide.splitlines()) + 1
    assert "left out" not in wide


def test_color_adds_nothing_but_color(invented):
    assert "\x1b" not in table(invented)
    colored = table(invented, color=True)
    assert re.sub(r"\x1b\[\d+m", "", colored) == table(invented)
    assert colored != table(invented)


def test_nothing_fits_reads_as_clearly(nothing_fits):
    text = table(nothing_fits)
    assert "Nothing fits phone; the best miss is student 2x384 int8" in text
    assert "<- the best miss" in text and "<- chosen" not in text
    assert "6.1 MB, allowed at most 5 MB: misses" in text
    assert text.count("the best miss is") == 1
    assert " on validation: drop 0.70 points, allowed 0.3" in text.splitlines()[-1]
    assert "size_mb" not in text  # a check above says it


def test_where_nothing_was_measured_that_is_said_once(nothing_fits):
    nothing_fits |= {"best_miss": None, "reason": "no candidate was measured"}
    nothing_fits["teacher_worth"] = None
    for face in (table, markdown, html):
        text = face(nothing_fits)
        (told,) = set(re.findall("no candidate was measured", text, re.I))
        assert text.lower().count(told) == (2 if face is html else 1)  # its title, and its heading
    stopped = [{**row, "state": "dropped", "latency_ms": None} for row in nothing_fits["rows"]]
    assert table(nothing_fits | {"rows": stopped}).startswith(" teacher fp32: dropped")
    bare = nothing_fits | {"rows": []}
    assert table(bare).strip() == "Nothing fits phone: no candidate was measured"
    assert "| row |" not in markdown(bare) and "Side by side" not in html(bare)


def test_strict_says_that_it_did_not_accept_a_close_limit(make_report):
    report = make_report(strict=True)
    assert report["verdict"] == "misses"
    assert "fits phone only closely, which --strict does not accept" in table(report)


def test_no_device_figure_means_no_star(make_report, invented):
    for row in invented["rows"]:
        row["device"] = None
    assert "*" not in table(invented)


def test_control_characters_never_reach_the_terminal(invented):
    invented["rows"][0]["name"] = "a\x1b[2Jb\nc\u202e"
    text = table(invented)
    assert "\x1b" not in text and "\u202e" not in text
    assert "a\\x1b[2Jb\\x0ac\\u202e" in text


def test_markdown_escapes_and_keeps_its_tables_whole(invented):
    label = invented["rows"][4]["worst_labels"][0]
    label["label"] = "a|b*c<script>\n# d"
    text = markdown(invented)
    line = next(line for line in text.splitlines() if "script" in line)
    assert "a\\|b\\*c\\<script\\>" in line
    assert len(re.findall(r"(?<!\\)\|", line)) == 5


def test_markdown_says_what_the_table_says(invented):
    text = markdown(invented)
    assert text.startswith("# student 2x384 int8 fits phone, closely")
    assert "| **student 2x384 int8** | 95.3 ±0.6 | 0.7 ±0.4 |" in text
    assert "estimated from this host" in text
    assert "edgedistill build --target phone" in text


def test_a_row_that_was_pruned_in_vain_stands_in_the_table_and_below_with_its_reason(invented):
    row = next(each for each in invented["rows"] if each["name"] == "student 2x384 fp32")
    row |= {"state": "dropped", "reason": "pruning not kept: at least 5 % faster is asked"}
    lines = table(invented).splitlines()
    assert any(line.startswith(" student 2x384 fp32   ") and "1.4" in line for line in lines)
    assert " student 2x384 fp32: dropped, pruning not kept: at least 5 % faster is asked" in lines
