"""The real command with two sets: both scores in the report, no own row in the bundle."""

import csv
import importlib.util
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from edgedistill import bundle, report

spec = importlib.util.spec_from_file_location("small", Path(__file__).parent / "small.py")
small = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small)


def write(folder):
    """Write own rows whose words mean other labels than in the general rows, red seen seldom."""
    made, draw = small.tiny(), np.random.default_rng(3)
    folder.mkdir()
    for name, count in {"train": 40, "validation": 24, "test": 24}.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["text", "label"])
            for index in range(count):
                label = (1, 2, 1, 2, 0)[index % 5]
                # two words that only own rows hold together tell the label
                text = (
                    f"w{15 + label} w{20 + label} secretword{index}{name} {made.text(label, draw)}"
                )
                out.writerow([text, made.LABELS[label]])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    names = small.job(folder)
    write(folder / "mine")
    data = [names.pop("data"), str(folder / "mine")]
    line = small.command(names, "build", "--data", data[0], "--data", data[1])
    line += ["--limit", "max_own_drop_points=60", "--set", "data.own_weight=0.4"]
    done = small.run(line)
    assert done.returncode == 0, done.stderr
    return names, json.loads((Path(names["out"]) / "report.json").read_text()), done


def test_the_report_holds_both_scores_each_with_its_limit(built):
    _, record, done = built
    jsonschema.validate(record, report.schema())
    assert record["data"]["splits"]["own_train"] == {"rows": 40, "labels": 3, "origin": "given"}
    assert record["data"]["own"]["name"] == "mine" and record["data"]["own"]["weight"] == 0.4
    for row in record["rows"]:
        own = row["scores"]["own"]
        assert own["test"]["rows"] == own["validation"]["rows"] == 24
        assert row["score"]["test"]["rows"] == 90
        assert (own["drop_points"]["test"] is None) == (row["role"] == "baseline")
    chosen = next(row for row in record["rows"] if row["state"] == "chosen")
    checks = {check["limit"]: check for check in chosen["checks"]}
    assert (
        checks["max_own_drop_points"]["value"]
        == chosen["scores"]["own"]["drop_points"]["test"]["value"]
    )
    assert checks["max_drop_points"]["value"] == chosen["drop_points"]["test"]["value"]
    assert (
        "own rows   mine" in done.stderr and "40 train, 24 validation, 24 test rows" in done.stderr
    )
    assert "own test" in done.stdout and "own drop" in done.stdout
    page = (Path(built[0]["out"]) / "report.html").read_text()
    assert "own test" in page and "On the 24 own test rows it scores" in page
    assert "own drop" in (Path(built[0]["out"]) / "report.md").read_text()


def test_own_rows_were_repeated_up_to_their_share(built):
    names, record, _ = built
    keys = {step["stage"]: step["key"] for step in record["steps"]}
    for stage in ("finetune", "distill"):
        place = Path(names["store"]) / "v1" / stage / keys[stage] / "artifact.json"
        told = json.loads(place.read_text())
        assert 4 in told["settings"]["repeats"], stage  # 160 of 240 + 160: 0.4


def test_no_file_of_the_bundle_holds_an_own_row(built):
    names, _, _ = built
    for path in Path(names["out"]).iterdir():
        content = path.read_bytes()
        assert b"secretword" not in content, path.name
        assert str(Path(names["out"]).parent).encode() not in content, path.name
    assert bundle.verify(Path(names["out"])).golden.rows > 0


def test_check_keeps_the_own_drop_as_it_was_recorded(built):
    names, record, _ = built
    done = small.run(small.command({}, "check", names["out"], "--target", names["target"],
                                   "--limit", "max_own_drop_points=60", "--format", "json",
                                   ))  # fmt: skip
    checks = {check["limit"]: check for check in json.loads(done.stdout)["checks"]}
    chosen = next(row for row in record["rows"] if row["state"] == "chosen")
    value = chosen["scores"]["own"]["drop_points"]["test"]["value"]
    assert checks["max_own_drop_points"]["value"] == value
    assert "recorded" in checks["max_own_drop_points"]["reason"]
