"""Students that are not just fewer layers, through the real command on tiny models."""

import importlib.util
import json
from pathlib import Path

import jsonschema

from edgedistill import bundle, report

spec = importlib.util.spec_from_file_location("small", Path(__file__).parent / "small.py")
small = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small)


def build(folder, student, *more, **settings):
    """Build a student of a tiny teacher; return the process, and report.json."""
    names = small.job(folder)
    names["student"] = student
    names["settings"] |= {"finetune.steps": 120, **settings}
    done = small.run(small.command(names, "build", "--quantize", "auto", *more))
    found = Path(names["out"]) / "report.json"
    return done, json.loads(found.read_text()) if found.is_file() else None


def rows_of(record):
    return {row["name"]: row for row in record["rows"]}


def test_a_static_student_is_built_measured_and_shipped(tmp_path):
    told = {"distill.batch": 16, "distill.steps": 200, "distill.rate": 8e-3}
    done, record = build(tmp_path, "static16", **told)
    assert done.returncode == 0, done.stderr
    jsonschema.validate(record, report.schema())
    rows = rows_of(record)
    assert {"student static16 int8", "student static16 fp32", "control static16 int8"} <= {*rows}
    one = rows["student static16 int8"]
    assert one["size_mb"] < rows["teacher int8"]["size_mb"] and one["graph"]["nodes"] < 30
    assert record["chosen"].startswith("student static16")
    assert record["teacher_worth"]["control"].startswith("control static16")
    said = "The teacher was worth", "Distillation did not"
    assert any(each in done.stdout for each in said)
    opened = bundle.load(tmp_path / "out")
    assert opened.predict(["w0 w20 w21"])
