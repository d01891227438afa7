"""report.json: every made report is of the schema, complete, and plain JSON."""

from __future__ import annotations

import copy
import json
from datetime import datetime

import jsonschema
import numpy as np
import pytest

from edgedistill.bundle.schema import problems
from edgedistill.records import Choice, Figures
from edgedistill.report import Build, Row, make, markdown, schema, table, write
from edgedistill.report import html as page

FIELDS = set(
    """name role shape parameters precision scheme steps score scores drop_points agreement
    worst_labels confidence latency_ms speedup throughput device encode_ms load_ms memory_mb
    size_mb graph checks state reason""".split()  # noqa: SIM905
)
TOP = set(
    """format edgedistill created job target data environment source_model verdict chosen safer
    rows steps seconds warnings""".split()  # noqa: SIM905
)


def bare() -> dict:
    """A report of a build that got nowhere."""
    build = Build({}, {"name": "phone", "limits": {}}, {}, {}, {}, {}, "0.1.0")
    rows = [Row("s", "candidate", None)]
    choice = Choice(None, None, "no candidate was measured", {"s": ("skipped", "no time")})
    return make(build, rows, choice=choice, verdict="misses")


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(schema())


def test_made_reports_are_of_the_schema(invented, nothing_fits, make_report):
    strict = make_report(strict=True)
    for report in (invented, nothing_fits, strict, bare()):
        jsonschema.validate(report, schema())
        assert set(report) >= TOP
        assert all(set(row) >= FIELDS for row in report["rows"])
        assert json.loads(json.dumps(report, allow_nan=False)) == report
        datetime.fromisoformat(report["created"])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("verdict",), "perhaps"),
        (("rows", 0, "role"), "winner"),
        (("rows", 0, "state"), "fine"),
        (("rows", 0, "checks", 0, "state"), "ok"),
        (("rows", 0, "size_mb"), "91 MB"),
        (("rows", 0, "score", "test", "value"), None),
        (("data", "splits", "test", "origin"), "found"),
        (("format",), 2),
    ],
)
def test_the_schema_refuses_what_the_contract_does_not_know(invented, path, value):
    spoiled = copy.deepcopy(invented)
    at = spoiled
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spoiled, schema())


def test_the_schema_wants_every_field_of_the_contract(invented):
    for name in FIELDS:
        spoiled = copy.deepcopy(invented)
        del spoiled["rows"][0][name]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(spoiled, schema())
    for name in TOP:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({k: v for k, v in invented.items() if k != name}, schema())


def test_a_device_can_hold_a_report_against_the_schema_without_jsonschema(invented):
    assert list(problems(invented, schema())) == []
    assert list(problems({**invented, "rows": [{}]}, schema()))


def test_absent_figures_are_null_never_zero():
    row = bare()["rows"][0]
    for name in ("agreement", "latency_ms", "device", "memory_mb", "size_mb", "confidence"):
        assert row[name] is None
    assert row["score"]["test"] is None and row["drop_points"]["test"] is None


def test_numbers_of_numpy_and_no_numbers_become_json():
    build = Build(
        {"seed": np.int64(3)},
        {"name": "p", "limits": {}},
        {},
        {},
        {},
        {"total": float("nan")},
        "0.1.0",
    )
    row = Row("s", "candidate", {"layers": np.int32(2)}, figures=Figures(size_mb=np.float32(1.5)))
    report = make(build, [row], choice=Choice(None, None, "", {}), verdict="misses")
    assert report["rows"][0]["size_mb"] == 1.5 and report["rows"][0]["shape"]["layers"] == 2
    assert report["seconds"]["total"] is None
    jsonschema.validate(report, schema())


def test_rows_come_in_one_order_those_that_never_ran_last(invented):
    roles = [row["role"] for row in invented["rows"]]
    assert roles == [
        "baseline",
        "teacher_int8",
        "control",
        "student_fp32",
        "candidate",
        "candidate",
    ]
    assert invented["rows"][-1]["state"] == "skipped"


def test_sizes_are_held_against_the_teacher_and_the_checkpoint_as_given(invented):
    chosen = next(row for row in invented["rows"] if row["state"] == "chosen")
    assert chosen["size_ratio"] == pytest.approx({"baseline": 91 / 6.1, "source_model": 45.4 / 6.1})


def test_a_step_names_the_rows_that_it_serves(invented):
    by_key = {step["key"]: step for step in invented["steps"]}
    assert "teacher fp32" in by_key["k0"]["rows"]
    assert "teacher fp32" not in by_key["k3"]["rows"]
    assert by_key["k3"]["about"].startswith("2 layers of 6")


def test_the_pages_are_made_from_report_json_alone(invented, tmp_path):
    write(tmp_path, invented)
    again = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert page(again) == (tmp_path / "report.html").read_text(encoding="utf-8")
    assert markdown(again) == (tmp_path / "report.md").read_text(encoding="utf-8")
    assert table(again) == table(invented)


def test_every_face_takes_a_report_with_next_to_nothing():
    report = bare()
    for face in (table, markdown, page):
        assert "Nothing fits phone" in face(report)
