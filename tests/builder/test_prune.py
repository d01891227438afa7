"""A build that prunes, by the real command on a tiny model: kept, or dropped with its reason."""

import importlib.util
import json
from pathlib import Path

import jsonschema

from edgedistill import bundle, report

spec = importlib.util.spec_from_file_location("small", Path(__file__).parent / "small.py")
small = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small)

PRUNE = {"prune.steps": 24, "prune.rounds": 2, "prune.rows": 64, "distill.steps": 60}
AFTER = "pruned 2x32 to 2x32x32"


def test_a_pruned_student_is_a_row_beside_the_one_it_came_from(tmp_path):
    names = small.job(tmp_path, head=False)
    names |= {"student": "2", "prune": "feed_forward=0.5"}
    names["settings"] |= PRUNE
    done = small.run(small.command(names, "build", "--json"))
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    jsonschema.validate(record, report.schema())
    rows = {row["name"]: row for row in record["rows"]}
    one, before = rows[f"{AFTER} int8"], rows["student 2x32 int8"]
    assert one["size_mb"] < before["size_mb"] and one["parameters"] < before["parameters"]
    assert one["shape"]["feed_forward"] == 32 and before["shape"]["feed_forward"] == 64
    assert one["latency_ms"]["p90"] > 0 and before["latency_ms"]["p90"] > 0
    kin = [row for name, row in rows.items() if name.startswith("student 2x32 ")]
    fastest = min(kin, key=lambda row: row["device"]["latency_p90_ms"])  # by whatever scheme
    if one["latency_ms"]["p90"] <= 0.95 * fastest["latency_ms"]["p90"]:
        assert one["state"] in ("chosen", "kept") or "not kept: slower than" in one["reason"]
    else:
        assert one["state"] == "dropped"
        assert one["reason"].startswith("pruning not kept: its p90 here")
    assert "prune" in [step["stage"] for step in record["steps"]]
    assert "--prune feed_forward=0.5" in record["command"]
    assert "prunes 2x32 to 2x32x32" in done.stderr and "round 2 of 2" in done.stderr
    chosen = rows[record["chosen"]]
    control = next(row for row in record["rows"] if row["role"] == "control")
    if chosen["name"].startswith("pruned"):
        other = any("the control is that of" in warning for warning in record["warnings"])
        assert other or control["name"].startswith(f"control {AFTER}")
    assert bundle.verify(tmp_path / "out").golden.rows > 0
    again = small.run(small.command(names, "plan"))
    assert "prune" in again.stdout
    there = [line for line in again.stdout.splitlines() if line.startswith("prune")]
    assert any("in the store" in line for line in there)
