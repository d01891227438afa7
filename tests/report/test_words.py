"""Numbers and sentences that all faces share."""

from __future__ import annotations

import copy
import tomllib

import pytest

from edgedistill.report import figures, html, jobfile, markdown, table, words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.652, "0.65"),
        (1.7, "1.7"),
        (9.96, "10"),
        (16.2, "16"),
        (118.4, "118"),
        (91.0, "91"),
        (12345.6, "12,346"),
        (0.0031, "0.0031"),
        (0.0, "0"),
        (-3.2, "-3.2"),
        (None, "–"),
        (99.6, "100"),
        (0.996, "1.0"),
        (999.7, "1,000"),
    ],
)
def test_a_figure_has_about_two_digits(value, text):
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("value", "allowed", "unit", "text"),
    [
        (1.04, 1.0, "points", "1.04"),  # not "1.0, allowed 1.0: misses"
        (0.7, 1.0, "points", "0.7"),
        (1.0, 1.0, "points", "1.0"),
        (16.2, 16.0, "ms", "16.2"),
        (24.96, 25.0, "MB", "24.96"),
        (6.1, 25.0, "MB", "6.1"),
        (0.7 - 0.4, 0.3, "points", "0.3"),  # 0.29999999999999993
        (-0.01, 1.0, "points", "0.0"),
        (None, 25.0, "MB", "–"),
    ],
)
def test_a_figure_beside_a_limit_shows_on_which_side_it_lies(value, allowed, unit, text):
    assert words.against(value, allowed, unit) == text


def test_points_never_say_minus_zero():
    assert words.points(-0.01) == "0.0" and words.points(-10.04) == "-10.0"
    assert words.points(96.04) == "96.0"


def test_times():
    assert [words.span(s) for s in (1.44, 42, 59.7, 212, 3600, 5000)] == [
        "1.4 s",
        "42 s",
        "1 min 00 s",
        "3 min 32 s",
        "1 h 00 min",
        "1 h 23 min",
    ]


def test_the_job_is_toml_that_gives_the_job_again():
    job = {
        "target": "phone",
        "recipe": None,
        "limits": {"size_mb": 25.0},
        "model": {"path": 'a "b" \\ c', "teachers": []},
        "student": {"layers": [2, 3], "init": None},
        "stages": {"distill": {"alpha": 0.9, "losses": {"soft labels": {"weight": 1.0}}}},
    }
    again = tomllib.loads("\n".join(jobfile.job_file(job)))
    assert again == {
        "target": "phone",
        "limits": {"size_mb": 25.0},
        "model": {"path": 'a "b" \\ c'},
        "student": {"layers": [2, 3]},
        "stages": {"distill": {"alpha": 0.9, "losses": {"soft labels": {"weight": 1.0}}}},
    }


def test_a_gain_is_called_one(invented):
    row = next(row for row in invented["rows"] if row["state"] == "chosen")
    row["drop_points"]["test"] = {"value": -0.4, "low": -0.8, "high": 0.0}
    assert any("it gains 0.4 points" in line for line in words.summary(invented))


def _of(report, score, drop):
    """Give the shown row and the teacher other test scores."""
    row, base = words.shown(report), words.baseline(report)
    row["score"]["test"] |= {"value": score}
    base["score"]["test"] |= {"value": score + drop}
    row["drop_points"]["test"] |= {"value": drop}
    return next(line for line in words.summary(report) if line.startswith("It scores"))


@pytest.mark.parametrize(
    ("score", "drop", "says"),
    [
        (95.3, 0.7, "It scores 95.3 where the teacher scores 96.0: it loses 0.7 points."),
        (95.7778, 0.1556, "scores 95.78 where the teacher scores 95.93: it loses 0.15 points"),
        (95.04, -0.08, "scores 95.04 where the teacher scores 94.96: it gains 0.08 points"),
        (100.0, 0.0, "It scores 100.0, the same as the teacher."),
    ],
)
def test_the_figures_of_one_sentence_agree(invented, score, drop, says):
    assert says in _of(invented, score, drop)


def test_a_drop_that_is_no_difference_of_scores_stays_what_it_is():
    assert words.compared(95.3, 96.0, 0.3) == ("95.3", "96.0", "0.3")


def test_what_the_teacher_was_worth_agrees_with_both_scores(invented):
    worth = invented["teacher_worth"]
    worth["test"]["value"] = 0.9333
    words.row_named(invented, worth["row"])["score"]["test"]["value"] = 95.7778
    words.row_named(invented, worth["control"])["score"]["test"]["value"] = 94.8444
    said = words.worth(invented)
    assert "was worth 0.94 points" in said and said.endswith("scores 94.84, not 95.78.")


def test_the_reason_is_what_the_headline_leaves_out(invented, nothing_fits):
    assert words.why(invented) == invented["reason"]
    assert words.why(nothing_fits).startswith("drop 0.70 points, allowed 0.3")
    assert "best miss" not in words.why(nothing_fits)


def test_one_of_a_thing_is_no_plural(invented):
    assert words.counted(1, "round") == "1 round" and words.counted(1200, "run") == "1,200 runs"
    row = {**words.shown(invented)}
    row["latency_ms"] = {**row["latency_ms"], "rounds": 1}
    assert "1,000 runs in 1 round)" in dict(figures.beyond(row))["latency here, ms"]


def test_a_split_of_ours_is_named(invented):
    invented["data"]["splits"]["test"]["origin"] = "cut"
    assert "4,500 test (ours)" in words.splits(invented)


def test_a_command_wraps_between_its_arguments_and_stays_one_line():
    command = (
        "edgedistill build --target phone -q --limit size_mb=5 --set 'data.text=my text' --json"
    )
    parts = jobfile.arguments(command)
    assert " ".join(parts) == command
    assert "--target phone" in parts and "--set 'data.text=my text'" in parts
    assert jobfile.arguments("a --b='c d' --e") == ["a", "--b='c d'", "--e"]


def test_both_yardsticks_are_told(invented):
    invented["environment"]["yardstick"] = {
        "fp32_gflops": 221.4, "int8_gops": 793.0, "node_us": 0.29,
    }  # fmt: skip
    device = {"int8_gops": 100, "fp32_gflops": 34, "node_us": None, "uncertainty": 1.5}
    invented["target"]["device"] = device
    here, there = words.yardstick(invented)
    assert here == ("yardstick here", "fp32 221 GFLOP/s, int8 793 GOP/s, a small node 0.29 µs")
    assert there[0] == "yardstick of phone" and there[1].endswith("uncertain by a factor of 1.5")
    for odd in (None, "fast", {"fp32_gflops": "fast"}, {}):
        invented["environment"]["yardstick"] = invented["target"]["device"] = odd
        assert words.yardstick(invented) == []


def test_of_the_flags_only_those_of_arithmetic_are_told():
    where = {"instructions": "x86-64+vnni", "flags": ["adx", "avx2", "fma", "lm"]}
    assert words.instructions(where) == "x86-64+vnni · avx2 fma"
    assert words.instructions({"flags": None}) == ""


def test_calibration_names_the_temperature(invented):
    said = words.calibration(invented)
    assert "Calibration error" in said and "fitted on validation" in said
    for row in invented["rows"]:
        row["confidence"] = None
    assert words.calibration(invented) == ""


# ---------------------------------------------------------------- a smaller vocabulary


def _with_vocabulary(invented, pieces):
    unseen = {"rows": 922, "accuracy": 90.5, "baseline_accuracy": 92.0}
    unseen["drop_points"] = {"value": 1.5, "low": 0.5, "high": 2.5}
    for row in invented["rows"]:
        row["shape"] = {**(row["shape"] or {}), "vocabulary": 30522}
    row = words.shown(invented)
    row["shape"]["vocabulary"], row["unseen_words"] = pieces, unseen
    return invented


def test_a_smaller_vocabulary_is_told_with_what_unseen_words_show(invented):

    said = "vocabulary is 6,000 of 30,522 pieces"
    faces = (table, markdown, html)
    assert not any(said in face(invented) for face in faces)
    told = _with_vocabulary(copy.deepcopy(invented), 6000)
    for face in faces:
        assert said in face(told) and "922 test rows with words that no training row" in face(told)
    row = words.shown(told)
    assert words.unseen_words(row).endswith("90.5 % rightly, the teacher 92.0 % (drop 1.5 ±1.0)")


def test_a_whole_vocabulary_is_no_news(invented):
    told = _with_vocabulary(copy.deepcopy(invented), 30522)
    row = words.shown(told)
    assert words.folded(row, words.baseline(told)) == []
    assert "unseen words" in dict(figures.beyond(row))


def test_batches_and_recovered_operators_of_an_int8_row_are_told(invented):
    row = {**words.shown(invented)}
    row["graph"] = {
        **row["graph"],
        "batched": {"batch": 8, "rows": 256, "changed_points": 0.78125},
        "recovered": {"floats": ["/head/Gemm"], "of": 38, "rows": 2000, "before_points": 1.2,
                      "after_points": 0.31},
    }  # fmt: skip
    told = dict(figures.beyond({**row, "scheme": "dynamic_int8"}))
    assert told["batches"].startswith("0.78 % of 256 training rows are answered otherwise")
    assert told["accuracy recovered"] == (
        "int8 cost 1.2 points on 2,000 validation rows; "
        "with 1 of 38 operators in float again 0.3 (/head/Gemm)"
    )
    milder = {"milder": {"embeddings": "int8"}, "milder_points": 0.72}
    row["graph"]["recovered"] |= milder
    both = dict(figures.beyond({**row, "scheme": "dynamic_int8"}))["accuracy recovered"]
    assert "; with embeddings=int8 0.7; with 1 of 38 operators in float again 0.3" in both
    row["graph"]["recovered"] = {"rows": 90, "before_points": 3.0, "after_points": 0.72} | milder
    alone = dict(figures.beyond({**row, "scheme": "dynamic_int8"}))["accuracy recovered"]
    assert alone == "int8 cost 3.0 points on 90 validation rows; with embeddings=int8 0.7"
    assert "batches" not in dict(figures.beyond({**row, "scheme": None}))


def test_what_the_table_has_no_room_for_is_on_both_pages(invented):
    told = copy.deepcopy(invented)
    row = next(row for row in told["rows"] if row["name"] == words.shown(told)["name"])
    row["scheme"] = "dynamic_int8"
    row["graph"] = {**row["graph"], "batched": {"batch": 8, "rows": 256, "changed_points": 0.78125}}
    for face in (markdown, html):
        assert "0.78 % of 256 training rows are answered otherwise in padded batches" in face(told)


def test_the_gap_between_training_and_validation_rows_is_on_the_page(invented):
    row = {**words.shown(invented)}
    train = {"value": 99.6, "low": 99.0, "high": 99.9, "rows": 256}
    row["score"] = {**row["score"], "train": train, "validation": {**train, "value": 96.25}}
    said = "99.6 on 256 of them, 96.2 on validation: a gap of 3.3 points"
    assert dict(figures.beyond(row))["training rows"] == said
    rows = [row if each["name"] == row["name"] else each for each in invented["rows"]]
    assert said in html({**invented, "rows": rows})
    assert "training rows" not in dict(
        figures.beyond({**row, "score": {**row["score"], "train": None}})
    )
