"""Rows for a finished bundle are read as its build was told to read its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgedistill import bundle
from edgedistill.bundle import Contents, commands, given
from edgedistill.errors import BundleError, DataError
from edgedistill.sections import DataSpec

ROWS = [
    ("the rain is cold", "a remark on it", "weather", "ann"),
    ("pay the bank", "what a thing to say", "money", "bob"),
    ("what a song", "play it again then", "music & film", "cy"),
    ("the sun is cold", "well, that depends", "weather", "ann"),
]


@pytest.fixture
def built(tmp_path: Path, text_contents: Contents) -> Callable[..., Path]:
    """Write a bundle whose build was told columns and more."""

    def write(columns: Any, pair: bool = False, data: Any = None, **job: Any) -> Path:
        report = {
            **text_contents.proof.report,
            "job": {"data": {**job, "path": "rows"}},
            "data": {"splits": {}, "warnings": [], "columns": columns, **(data or {})},
        }
        proof = replace(text_contents.proof, report=report)
        encoder = {**text_contents.encoder, "pair": pair}
        contents = replace(text_contents, proof=proof, encoder=encoder)
        out = tmp_path / "phone"
        bundle.write(out, contents, prove=lambda opened: None)
        return out

    return write


def table(path: Path, heads: str, rows: list[tuple[str, ...]], encoding: str = "utf-8") -> Path:
    lines = [heads, *(",".join(f'"{cell}"' for cell in row) for row in rows)]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path.parent


def test_columns_that_the_build_was_told_need_not_be_told_again(built, tmp_path: Path):
    folder = table(tmp_path / "rows" / "test.csv", "utterance,remark,kind,who", ROWS)
    columns = {"text": "utterance", "label": "kind"}
    found = commands.eval_(built(columns), str(folder))
    assert found.score["rows"] == 4 and found.score["value"] == 100.0
    with pytest.raises(DataError, match="several columns could be the text"):
        commands.eval_(built({}), str(folder))


def test_what_the_user_says_now_goes_first(built, tmp_path: Path):
    folder = table(tmp_path / "rows" / "test.csv", "utterance,remark,kind,who", ROWS)
    opened = bundle.load(built({"text": "utterance", "label": "kind"}))
    spec, _ = given.filled(DataSpec(path=str(folder), text="remark"), opened)
    assert (spec.text, spec.label) == ("remark", "kind")
    spec, _ = given.filled(DataSpec(path=str(folder), label="utterance"), opened)
    assert (spec.text, spec.label) == (None, "utterance")


def test_a_table_with_other_columns_is_looked_at_afresh(built, tmp_path: Path):
    folder = table(tmp_path / "rows" / "test.csv", "text,label", [(r[0], r[2]) for r in ROWS])
    found = commands.eval_(built({"text": "utterance", "label": "kind", "group": "who"}), folder)
    assert found.score["rows"] == 4


def test_a_pair_keeps_its_two_columns(built, tmp_path: Path):
    folder = table(tmp_path / "rows" / "test.csv", "one,two,kind,who", ROWS)
    columns = {"text": "one", "text_pair": "two", "label": "kind"}
    rows = given.given(DataSpec(path=str(folder)), bundle.load(built(columns, pair=True)))
    assert rows.examples[0] == {"text": "the rain is cold", "text_pair": "a remark on it"}


def many(count: int = 120) -> list[tuple[str, ...]]:
    words = ["rain", "sun", "wind", "bank", "euro", "pay"]
    return [
        (
            f"{words[n % 6]} {words[n % 5]} {n}",
            ("weather", "money")[n % 2],
            f"who {n // 4}" * (n > 19),
        )
        for n in range(count)
    ]


def test_all_rows_of_a_lone_file_are_scored(built, tmp_path: Path):
    folder = table(tmp_path / "rows" / "test.csv", "text,label,who", many())
    out = built({})
    found = commands.eval_(out, str(folder / "test.csv"))
    assert found.score["rows"] == 120
    assert "on 120 rows of test.csv" in next(found.lines())
    assert "on 120 test rows of rows" in next(commands.eval_(out, str(folder)).lines())


@pytest.mark.parametrize(("name", "of"), [("all", "rows/all.csv"), ("train", "rows/train.csv")])
def test_all_rows_of_the_only_split_are_scored(built, tmp_path: Path, name: str, of: str):
    folder = table(tmp_path / "rows" / f"{name}.csv", "text,label,who", many())
    found = commands.eval_(built({}), str(folder))
    assert found.score["rows"] == 120 and f"on 120 rows of {of}" in next(found.lines())


def test_a_label_that_other_rows_lack_is_scored_like_any(built, tmp_path: Path):
    file = table(tmp_path / "rows" / "few.csv", "text,label", [(r[0], r[2]) for r in ROWS])
    assert commands.eval_(built({}), str(file / "few.csv")).score["rows"] == 4


def test_several_splits_without_a_test_split_are_not_chosen_from(built, tmp_path: Path):
    table(tmp_path / "rows" / "train.csv", "text,label,who", many())
    folder = table(tmp_path / "rows" / "validation.csv", "text,label,who", many(40))
    with pytest.raises(DataError, match=r"no test split, but train\.csv and validation\.csv: name"):
        commands.eval_(built({}), str(folder))


@pytest.mark.parametrize("group", [None, "who"])
def test_of_the_builds_own_rows_those_are_scored_that_it_cut(built, tmp_path: Path, group):
    """All of them would be the rows that it trained on, too."""
    from edgedistill.data import sources

    folder = table(tmp_path / "rows" / "all.csv", "text,label,who", many())
    told = DataSpec(path=str(folder), group=group)
    cut = sources.read(told, task="text-classification").splits["test"]
    columns = {"text": "text", "label": "label"} | ({"group": group} if group else {})
    out = built(
        columns,
        data={"hash": {"test": cut.digest}, "splits": {"test": {"rows": 24, "origin": "cut"}}},
    )
    rows = given.given(DataSpec(path=str(folder)), bundle.load(out))
    assert list(rows.examples) == list(cut.examples) and 0 < len(rows.truth) < 120
    assert "test rows of rows, as its build cut them" in rows.of and rows.remark is None


def test_rows_that_the_build_trained_on_are_warned_of(built, tmp_path: Path):
    from edgedistill.data import sources

    folder = table(tmp_path / "rows" / "train.csv", "text,label,who", many())
    table(tmp_path / "rows" / "validation.csv", "text,label,who", many(40))
    table(tmp_path / "rows" / "test.csv", "text,label,who", many(20))
    data = sources.read(DataSpec(path=str(folder)), task="text-classification")
    out = built({}, data={"hash": {name: part.digest for name, part in data.splits.items()}})
    found = commands.eval_(out, str(folder / "train.csv"))
    assert found.score["rows"] == 120 and "trained on" in found.warnings[0]
    assert "chose by" in commands.eval_(out, str(folder / "validation.csv")).warnings[0]
    assert not commands.eval_(out, str(folder)).warnings


@pytest.mark.parametrize(
    ("heads", "rows", "says"),
    [
        ("text,label", [("", "weather"), ("the sun", "weather")], "an empty text.*: mend them$"),
        ("text,label", [("the sun", "wether")], "'wether': did you mean 'weather'"),
        ("one,two,label", [(f"a {n}", f"b {n}", "money") for n in range(9)], "'utterance'"),
        ("id,label", [(str(n), "money") for n in range(9)], "text in 'utterance', label in 'kind'"),
        ("text,other", [(f"the sun {n}", f"word {n}") for n in range(9)], "label in 'kind'"),
    ],
    ids=["empty", "unknown label", "several columns", "no column", "no label"],
)
def test_no_error_names_a_setting_that_there_is_none_for(built, tmp_path, heads, rows, says):
    table(tmp_path / "rows" / "mine.csv", heads, rows)
    with pytest.raises(DataError, match=says) as told:
        commands.eval_(built({"text": "utterance", "label": "kind"}), str(tmp_path / "rows"))
    assert "--set" not in str(told.value) and "training row" not in str(told.value)


def test_an_encoding_and_two_files_are_mended_without_a_setting(built, tmp_path: Path):
    out, file = built({}), tmp_path / "rows" / "mine.csv"
    table(file, "text,label", [("le café", "weather")], encoding="cp1252")
    with pytest.raises(DataError, match=r"not UTF-8 text: save the file as UTF-8$"):
        commands.eval_(out, str(file))
    table(tmp_path / "rows" / "other.csv", "text,label", [("sun", "weather")])
    with pytest.raises(DataError, match=r"mine\.csv, other\.csv: name one of them$"):
        commands.eval_(out, str(tmp_path / "rows"))


def test_the_encoding_and_what_becomes_of_bad_rows_are_kept(built, tmp_path: Path):
    bad = [*ROWS, ("", "an empty text", "money", "bob"), ("le café", "là-bas", "money", "cy")]
    file = tmp_path / "rows" / "test.csv"
    folder = table(file, "utterance,remark,kind,who", bad, encoding="cp1252")
    columns = {"text": "utterance", "label": "kind"}
    opened = bundle.load(built(columns, encoding="cp1252", bad_rows="drop"))
    rows = given.given(DataSpec(path=str(folder)), opened)
    assert len(rows.truth) == 5 and rows.examples[-1]["text"] == "le café"
    table(file, "utterance,remark,kind,who", bad)  # in UTF-8 it needs no other encoding
    assert given.given(DataSpec(path=str(folder)), opened).examples[-1]["text"] == "le café"
    plain = bundle.load(built(columns))
    with pytest.raises(DataError, match="an empty text"):
        given.given(DataSpec(path=str(folder)), plain)


@pytest.mark.parametrize("columns", [5, {"text": 5}, {"text": ["a"]}, None, {"nonsense": "text"}])
def test_a_report_that_tells_nonsense_is_as_one_that_tells_nothing(built, tmp_path, columns):
    folder = table(tmp_path / "rows" / "test.csv", "text,label", [(r[0], r[2]) for r in ROWS])
    assert commands.eval_(built(columns, encoding=[1], bad_rows=2), folder).score["rows"] == 4


def test_an_altered_report_is_noticed(built, tmp_path: Path):
    folder = table(tmp_path / "rows" / "test.csv", "utterance,remark,kind,who", ROWS)
    out = built({"text": "utterance", "label": "kind"})
    text = (out / "report.json").read_text()
    (out / "report.json").write_text(text.replace("utterance", "utterancf"))
    with pytest.raises(BundleError, match="SHA-256"):
        commands.eval_(out, str(folder))


def test_labels_that_are_numbers_are_those_of_the_outputs(built, tmp_path: Path):
    opened = bundle.load(built({}))
    numbers = [(text, str(opened.labels.index(label))) for text, _, label, _ in ROWS]
    folder = table(tmp_path / "rows" / "test.csv", "text,label", numbers)
    assert commands.eval_(opened.folder, folder).score["value"] == 100.0
    folder = table(tmp_path / "rows" / "test.csv", "text,label", [*numbers, ("what", "3")])
    with pytest.raises(DataError, match=r"labels that the bundle lacks, such as '0'"):
        commands.eval_(opened.folder, folder)


def test_an_image_bundle_is_scored_on_images(image_contents: Contents, tmp_path: Path):
    import numpy as np
    from PIL import Image

    report = {
        **image_contents.proof.report,
        "job": {"data": {"path": "rows"}},
        "data": {
            "splits": {}, "warnings": [], "columns": {"image": "image", "label": "label"},
        },
    }  # fmt: skip
    contents = replace(image_contents, proof=replace(image_contents.proof, report=report))
    out = bundle.write(tmp_path / "phone", contents, prove=lambda opened: None).folder
    draw = np.random.default_rng(0)
    for label in image_contents.labels:
        folder = tmp_path / "rows" / "test" / label
        folder.mkdir(parents=True)
        for name in "ab":
            pixels = draw.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}.png")
    assert commands.eval_(out, tmp_path / "rows").score["rows"] == 2 * len(image_contents.labels)
    checked = commands.check(out, data=str(tmp_path / "rows"), limits={"min_score_points": 1})
    assert checked is not None
