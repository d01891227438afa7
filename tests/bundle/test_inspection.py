"""inspect: a bundle in words, its pages made again, and what happens where they can't be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgedistill import inspection
from edgedistill.bundle import manifest as manifests
from edgedistill.errors import BundleError, UsageError


def reported(folder: Path, text: str) -> Path:
    """Give a bundle another report, and a manifest that agrees."""
    (folder / "report.json").write_text(text)
    said = json.loads((folder / "manifest.json").read_text())
    said["files"] = manifests.list_files(folder)
    (folder / "manifest.json").write_text(json.dumps(said))
    return folder


def test_the_pages_are_made_beside_the_bundle(copied: Path):
    found = inspection.inspect(copied)
    assert found.pages == copied.with_name("bundle.inspect") and not found.warnings
    assert sorted(path.name for path in found.pages.iterdir()) == ["report.html", "report.md"]
    assert any("text-classification" in line for line in found.lines())


def test_where_nobody_may_write_the_description_still_comes(copied: Path, monkeypatch):
    def refuse(self, *arguments, **named):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)  # root may write anywhere, so a mode won't do
    found = inspection.inspect(copied)
    assert found.pages is None and list(found.lines())
    (warning,) = found.warnings
    assert "no pages" in warning and "Permission denied" in warning


def test_a_file_in_the_place_of_the_pages_is_a_warning_too(copied: Path):
    copied.with_name("bundle.inspect").write_text("mine")
    found = inspection.inspect(copied)
    assert found.pages is None and found.warnings
    assert copied.with_name("bundle.inspect").read_text() == "mine"


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "5", "{}", '{"format": 1}', "[" * 100_000, '{"a": NaN}', '{"a": 1, "a": 2}'],
)
def test_what_is_no_report_is_one_clear_line(copied: Path, text: str):
    with pytest.raises(BundleError, match=r"report\.json") as caught:
        inspection.inspect(reported(copied, text))
    assert "\n" not in str(caught.value)
    assert not copied.with_name("bundle.inspect").exists()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("rows", "many"), ("rows", [5]), ("verdict", "splendid"), ("created", 5),
        ("environment", []), ("seconds", {"total": "long"}), ("job", None), ("steps", [{}]),
        ("data", {"splits": [], "warnings": []}), ("warnings", {"a": 1}), ("target", {}),
        ("reason", {"a": 1}), ("environment", {"versions": {}, "yardstick": "fast"}),
    ],
)  # fmt: skip
def test_a_report_of_another_form_is_refused_or_drawn_never_a_crash(copied: Path, path, value):
    report = json.loads((copied / "report.json").read_text())
    report[path] = value
    try:
        inspection.inspect(reported(copied, json.dumps(report)))
    except BundleError as error:
        assert "no report of ours" in str(error) and "\n" not in str(error)


def test_an_altered_report_is_noticed(copied: Path):
    text = (copied / "report.json").read_text().replace("it fits", "it fitz")
    (copied / "report.json").write_text(text)
    with pytest.raises(BundleError, match="SHA-256"):
        inspection.inspect(copied)


def test_neither_a_bundle_nor_a_graph(tmp_path: Path):
    with pytest.raises(UsageError, match="does not exist"):
        inspection.inspect(tmp_path / "none\x1b[31m")
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(UsageError, match=r"none of: a bundle's folder, an \.onnx or"):
        inspection.inspect(tmp_path / "x.txt")


def test_the_report_of_a_build_without_a_bundle_is_described_and_drawn(copied: Path, tmp_path):
    place = tmp_path / "phone.report.json"
    place.write_text((copied / "report.json").read_text())
    found = inspection.inspect(place)
    assert found.pages == tmp_path / "phone.report.inspect" and not found.warnings
    for name in ("report.md", "report.html"):
        wanted = (copied / name).read_text()
        assert (found.pages / name).read_text() == wanted
    lines = list(found.lines())
    assert any("verdict" in line for line in lines) and json.dumps(found.record)


@pytest.mark.parametrize("text", ["{", "{}", '{"format": 1}'])
def test_a_file_that_is_no_report_is_one_clear_line_too(tmp_path: Path, text: str):
    (tmp_path / "x.report.json").write_text(text)
    with pytest.raises(BundleError, match=r"x\.report\.json") as caught:
        inspection.inspect(tmp_path / "x.report.json")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["x.report.json"]


def test_the_report_inside_a_bundle_is_its_bundle(copied: Path):
    found = inspection.inspect(copied / "report.json")
    assert found.record["bundle"] == "bundle" and found.pages == copied.with_name("bundle.inspect")


def test_a_long_name_is_set_off_from_what_is_said_of_it():
    said = {"operators": {"com.microsoft.MatMulIntegerToFloat12": 12, "Add": 3}}
    lines = list(inspection.Inspected(said).lines())
    assert lines[1:] == [
        "  com.microsoft.MatMulIntegerToFloat12 12",
        "  Add                         3",
    ]
