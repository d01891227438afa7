"""The real command with rows without labels: they train the student, and only the student."""

import importlib.util
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from edgedistill import report

spec = importlib.util.spec_from_file_location("small", Path(__file__).parent / "small.py")
small = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build once with 60 more texts, five of them test rows; the names, the report, what was said.

    The last texts hold a word that no other row holds.
    """
    folder = tmp_path_factory.mktemp("unlabelled")
    names, made, draw = small.job(folder), small.tiny(), np.random.default_rng(9)
    names["settings"]["distill.made"] = "joined"
    del names["settings"]["distill.steps"]
    names["settings"]["distill.epochs"] = 1
    rows = folder / "rows"
    test = [line.rpartition(",")[0] for line in (rows / "test.csv").read_text().splitlines()[1:6]]
    more = [f"{made.text(n % 3, draw)} secretword{n}" for n in range(60)]
    (rows / "unlabelled.txt").write_text("\n".join([*test, *more]) + "\n")
    done = small.run(small.command(names))
    assert done.returncode == 0, done.stderr
    return names, json.loads((Path(names["out"]) / "report.json").read_text()), done


def test_the_report_says_what_they_were(built):
    _, record, done = built
    jsonschema.validate(record, report.schema())
    assert "90 test, 60 unlabelled rows" in done.stderr
    assert record["data"]["splits"]["unlabelled"] == {"rows": 60, "labels": 0, "origin": "given"}
    assert record["data"]["made"] == {"joined": 900}
    assert any("of test" in line and "left out" in line for line in record["warnings"])
    about = [step["about"] for step in record["steps"]]
    assert "the teacher's logits on unlabelled rows" in about
    assert "make 3 rows of each of 60 unlabelled rows (joined)" in about


def test_the_control_read_none_of_them(built):
    _, record, _ = built
    used = {row["role"]: set(row["steps"]) for row in record["rows"]}
    more = {step["key"] for step in record["steps"] if "unlabelled" in (step["about"] or "")}
    assert len(more) == 4 and more <= used["candidate"]
    for role in ("control", "baseline", "teacher_int8"):
        assert not more & used[role], role


def test_no_file_of_the_bundle_holds_one(built):
    names, _, _ = built
    for path in Path(names["out"]).iterdir():
        assert b"secretword" not in path.read_bytes(), path.name
