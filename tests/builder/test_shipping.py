"""What a build leaves: a bundle, and what it replaced; or its report and the pages of that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgedistill.builder import shipping
from edgedistill.builder.driver import Report
from edgedistill.errors import SurroundingsError
from edgedistill.records import Choice
from edgedistill.report import Build, Row, make

OURS = {"source_model": {"name": "mine"}, "data": {"name": "rows"}}


def missed(best: str | None = "s int8", chosen: str | None = None) -> dict:
    """Make the report of a build that misses."""
    build = Build({}, {"name": "phone", "limits": {}}, {}, {}, {}, {}, "0.1.0")
    choice = Choice(chosen, None, "no candidate was measured", {}, best_miss=best)
    return make(build, [Row("s int8", "candidate", None)], choice=choice, verdict="misses")


def test_the_pages_lie_beside_the_report_and_are_of_it(tmp_path: Path):
    out = tmp_path / "new" / "phone"
    path = shipping.leave_report(out, missed())
    names = ["phone.report.html", "phone.report.json", "phone.report.md"]
    assert sorted(each.name for each in out.parent.iterdir()) == names
    assert json.loads(path.read_text())["best_miss"] == "s int8"
    assert "the best miss is s int8" in (out.parent / names[2]).read_text()
    shipping.leave_report(out, missed(None))
    assert "no candidate was measured" in (out.parent / names[0]).read_text()
    assert sorted(each.name for each in out.parent.iterdir()) == names


def test_where_a_page_cannot_be_written_no_earlier_one_is_taken_for_it(tmp_path: Path, monkeypatch):
    shipping.leave_report(tmp_path / "phone", missed())
    whole = Path.replace

    def refuse(self, to):
        if to.suffix == ".html":
            raise OSError(28, "No space left on device", str(to))
        return whole(self, to)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(SurroundingsError, match="writing the report"):
        shipping.leave_report(tmp_path / "phone", missed(None))
    assert not (tmp_path / "phone.report.html").exists()


@pytest.mark.parametrize(
    ("record", "last"),
    [
        (missed(), "no bundle  --best-effort bundles s int8, the best miss"),
        (missed(None, "s int8"), "no bundle  --best-effort bundles s int8"),
        (
            missed(None),
            "no bundle  no candidate was measured: --best-effort would have none to bundle",
        ),
    ],
)
def test_the_last_line_says_what_best_effort_would_do(tmp_path: Path, record, last):
    assert Report(record, None, tmp_path / "phone.report.json").closing()[-1] == last


@pytest.mark.parametrize(
    ("model", "rows", "said"),
    [
        ("mine", "rows", None),
        ("theirs", "rows", "'theirs' and the rows 'rows'"),
        ("mine", "older", "'mine' and the rows 'older'"),
    ],
)
def test_a_bundle_of_another_model_or_other_rows_is_told(tmp_path, model, rows, said):
    told = {"provenance": {"teacher": {"name": model}, "data": {"name": rows}}}
    (tmp_path / "manifest.json").write_text(json.dumps(told))
    assert shipping._other(tmp_path, OURS) == said


@pytest.mark.parametrize("content", [None, "", "[]", '{"provenance": {"teacher": []}}'])
def test_what_says_nothing_of_itself_is_not_told(tmp_path, content):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    assert shipping._other(tmp_path, OURS) is None
