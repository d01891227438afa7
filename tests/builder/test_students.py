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
    assert {"student static16 int8", "student static16 fp32"} <= {*rows}
    one = rows["student static16 int8"]
    assert one["size_mb"] < rows["teacher int8"]["size_mb"] and one["graph"]["nodes"] < 30
    assert record["teacher_worth"]["control"].startswith("control static16")
    said = "The teacher was worth", "Distillation did not"
    assert any(each in done.stdout for each in said)
    opened = bundle.load(tmp_path / "out")
    assert opened.predict(["w0 w20 w21"])


def test_the_layers_are_chosen_by_a_trial_and_both_twins_start_alike(tmp_path):
    told = {"distill.steps": 400, "distill.patience": 2, "choose.steps": 10}
    done, record = build(tmp_path, "1", **told)
    assert done.returncode == 0, done.stderr
    (step,) = (one for one in record["steps"] if one["stage"] == "choose")
    assert "0 (first)" in step["about"] and "after 10 steps" in step["about"]
    assert "starts from" in done.stderr
    again = small.run(small.command(small_names(tmp_path), "plan"))
    assert "choose" in again.stdout and "to do" not in again.stdout
    spare = [line for line in again.stdout.splitlines() if "if needed" in line]
    assert spare and all(line.startswith("distill") and "aware" in line for line in spare)


def small_names(folder):
    """The names of the job that `build` made, as the test above asks for it."""
    settings = {**small.SETTINGS, "finetune.steps": 120, "distill.steps": 400}
    settings |= {"distill.patience": 2, "choose.steps": 10, "quantize.schemes": "auto"}
    return {
        "model": str(folder / "model"),
        "data": str(folder / "rows"),
        "target": str(folder / "roomy.toml"),
        "student": "1",
        "out": str(folder / "out"),
        "store": str(folder / "store"),
        "settings": settings,
    }


def test_a_student_of_the_teachers_own_shape_is_distilled_from_itself(tmp_path):
    done, record = build(tmp_path, "same")
    assert done.returncode == 0, done.stderr
    rows = rows_of(record)
    assert {"student 4x32 int8", "student 4x32 fp32", "teacher int8"} <= {*rows}
    assert any(row["role"] == "control" for row in record["rows"])  # of the chosen one's scheme
    assert rows["student 4x32 fp32"]["parameters"] == rows["teacher fp32"]["parameters"]
    assert record["teacher_worth"]["row"].startswith("student 4x32")


def test_an_assistant_stands_between_the_teacher_and_a_static_student(tmp_path):
    told = {"student.assistant": "2", "distill.batch": 16, "distill.steps": 150}
    done, record = build(tmp_path, "static16", **told)
    assert done.returncode == 0, done.stderr
    jsonschema.validate(record, report.schema())
    helper = rows_of(record)["assistant 2x32 fp32"]
    assert helper["role"] == "assistant" and helper["score"]["test"]["value"] > 50
    assert "assistant 2x32 fp32" in done.stdout and "the assistant's logits" in done.stderr
    assert record["chosen"] != "assistant 2x32 fp32"
