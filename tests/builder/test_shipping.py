"""What lay where a bundle is written: told where it was of something else."""

import json

import pytest

from edgedistill.builder import shipping

OURS = {"source_model": {"name": "mine"}, "data": {"name": "rows"}}


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
