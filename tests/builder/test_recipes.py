"""Builds with losses that read inside of a live teacher, through the real command."""

import importlib.util
import json
from pathlib import Path

import pytest

from edgedistill import bundle

spec = importlib.util.spec_from_file_location("small", Path(__file__).parent / "small.py")
small = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small)


@pytest.mark.parametrize(
    ("recipe", "student"),
    [("hybrid", "2x16"), pytest.param("relations", "1", marks=pytest.mark.slow)],
)
def test_a_recipe_with_a_live_teacher_builds_a_bundle(tmp_path, recipe, student):
    """The narrower student has learned projections; a time limit makes the estimate run."""
    names = {**small.job(tmp_path), "recipe": recipe, "student": student, "time-limit": "30m"}
    done = small.run(small.command(names))
    assert done.returncode == 0, done.stderr
    record = json.loads((Path(names["out"]) / "report.json").read_text())
    rows = {row["role"]: row for row in record["rows"]}
    assert {"baseline", "candidate", "control", "student_fp32"} <= set(rows)
    assert rows["student_fp32"]["score"]["test"]["value"] > 50, "it learned nothing"
    assert bundle.verify(Path(names["out"])).golden.rows > 0
