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
from edgedistill.job import DataSpec

ROWS = [
    ("the rain is cold", "a remark on it", "weather", "ann"),
    ("pay the bank", "what a thing to say", "money", "bob"),
    ("what a song", "play it again then", "music & film", "cy"),
    ("the sun is cold", "well, that depends", "weather", "ann"),
]


@pytest.fixture
def built(tmp_path: Path, text_contents: Contents) -> Callable[..., Path]:
    """Write a bundle whose build was told columns and more."""

    def write(columns: dict[str, str], pair: bool = False, **job: Any) -> Path:
        report = {
            **text_contents.proof.report,
            "job": {"data": {**job, "path": "rows"}},
            "data": {"splits": {}, "warnings": [], "columns": columns},
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


def test_the_group_decides_the_same_cut_again(built, tmp_path: Path):
    from edgedistill.data import sources

    words = ["rain", "sun", "wind", "bank", "euro", "pay"]
    rows = [
        (f"{words[n % 6]} {words[n % 5]} {n}", ("weather", "money")[n % 2], f"who {n // 4}")
        for n in range(120)
    ]
    folder = table(tmp_path / "rows" / "all.csv", "text,label,who", rows)
    columns = {"text": "text", "label": "label", "group": "who"}
    told = DataSpec(path=str(folder), group="who")
    cut = sources.read(told, task="text-classification").splits["test"]
    whole = sources.read(DataSpec(path=str(folder)), task="text-classification").splits["test"]
    assert list(cut.examples) != list(whole.examples)
    found = given.given(DataSpec(path=str(folder)), bundle.load(built(columns)))
    assert list(found.examples) == list(cut.examples)


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
