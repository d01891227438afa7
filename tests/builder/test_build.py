"""The real command on a tiny model: through to a bundle, again, killed and resumed."""

import importlib.util
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import jsonschema
import pytest

import edgedistill.store
from edgedistill import bundle, report

spec = importlib.util.spec_from_file_location("small", Path(__file__).parent / "small.py")
small = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build once; returns the names of the job, its report and what was printed."""
    names = small.job(tmp_path_factory.mktemp("built"))
    done = small.run(small.command(names))
    assert done.returncode == 0, done.stderr
    return names, json.loads((Path(names["out"]) / "report.json").read_text()), done


def test_a_build_leaves_a_bundle_that_holds_and_a_report_that_fits_its_schema(built):
    names, record, done = built
    jsonschema.validate(record, report.schema())
    assert record["verdict"] in ("fits", "fits_closely")
    rows = {row["role"]: row for row in record["rows"]}
    assert {"baseline", "teacher_int8", "student_fp32", "candidate", "control"} <= set(rows)
    assert rows["baseline"]["score"]["test"]["value"] > 60, "the teacher learned nothing"
    chosen = next(row for row in record["rows"] if row["state"] == "chosen")
    assert chosen["name"] == record["chosen"]
    for row in record["rows"]:
        assert row["state"] in ("chosen", "kept", "measured")
        assert row["latency_ms"]["runs"] >= 20 and row["size_mb"] > 0
        assert row["score"]["train"]["rows"] == 240
    assert bundle.verify(Path(names["out"])).golden.rows > 0
    assert record["chosen"] in done.stdout and "Traceback" not in done.stderr


def test_what_was_inferred_is_told_first(built):
    _, _, done = built
    assert "text-classification · 3 labels" in done.stderr
    assert "240 train, 90 validation, 90 test rows" in done.stderr
    assert "90 test rows can show a drop of" in done.stderr
    assert "as transformers' own on up to 16 training rows" in done.stderr


def test_an_encoder_that_differs_from_transformers_is_a_warning_in_every_report(built):
    names, _record, _ = built
    told = edgedistill.store.Store(names["store"])
    (place,) = (told.root / "v1" / "decisions").glob("encoder-*.json")
    assert json.loads(place.read_text())["decision"] == {"difference": None}
    before = place.read_bytes()
    told.decide(place.stem, {"difference": "input_ids"})
    done = small.run(small.command(names, "build", "--json"))
    place.write_bytes(before)
    warnings = json.loads(done.stdout)["warnings"]
    assert "the encoder differs from transformers' own in input_ids" in warnings


def test_the_second_build_runs_no_stage_and_gives_the_same_bytes(built):
    names, _, _ = built
    before = small.payload(Path(names["out"]))
    done = small.run(small.command(names, "build", "--json"))
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["steps"] and all(step["cached"] for step in record["steps"])
    assert small.payload(Path(names["out"])) == before


def test_what_is_needed_only_where_int8_costs_too_much_is_not_trained(built):
    _, record, done = built
    assert done.stderr.count("distill ") == 2, "the student, and its control"
    assert "simulated" not in done.stderr
    assert not [row["name"] for row in record["rows"] if "aware" in row["name"]]


def test_verbosely_each_step_that_is_there_is_told_once(built):
    names, record, _ = built
    told = small.run(small.command(names, "build", "-v")).stderr.splitlines()
    there = [line.split()[-1] for line in told if "in the store" in line]
    known = {step["key"][:12] for step in record["steps"]}
    assert there and len(there) == len(set(there)) and set(there) <= known


def test_plan_runs_nothing_and_knows_what_is_there(built):
    names, record, _ = built
    lean = small.command(names, "plan", "--json", "--set", "quantize.aware=never")
    done = small.run(lean)
    planned = json.loads(done.stdout)
    missing = {step["stage"] for step in planned["steps"] if not step["cached"]}
    assert missing <= {"evaluate"}, "of the control in float, which int8 was chosen over"
    keys = {step["key"] for step in record["steps"]}
    assert keys <= {step["key"] for step in planned["steps"]}
    job = Path(names["out"]).parent / "job.json"
    job.write_text(done.stdout)
    again = small.run([*small.command({}, "plan", "--json"), str(job)])
    assert json.loads(again.stdout)["steps"] == planned["steps"], again.stderr


def test_the_bundle_answers_by_command_and_by_python(built):
    names, _, _ = built
    said = small.run(small.command({}, "predict", names["out"], "w0 w20", "--json"))
    answer = json.loads(said.stdout)[0]["top"][0]["label"]
    assert edgedistill.load(names["out"]).predict("w0 w20")[0][0][0] == answer
    for verb, code in {"verify": 0, "inspect": 0, "eval": 0, "bench": 0}.items():
        line = small.command({}, verb, names["out"])
        more = ["--data", names["data"]] if verb == "eval" else []
        more = ["--seconds", "0.5"] if verb == "bench" else more
        done = small.run([*line, *more])
        assert done.returncode == code, (verb, done.stderr)
        assert done.stdout.strip()
    checked = small.run(
        small.command({}, "check", names["out"], "--target", names["target"], "--data",
                      names["data"], "--format", "json")
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["verdict"] in ("fits", "fits_closely")


def test_no_file_of_the_bundle_names_a_place_or_holds_a_row(built):
    names, _, _ = built
    out = Path(names["out"])
    row = (Path(names["data"]) / "test.csv").read_text().splitlines()[1].split(",")[0]
    for path in out.iterdir():
        content = path.read_bytes()
        for place in (str(out.parent), str(Path.home()), names["store"]):
            assert place == "/" or place.encode() not in content, (path.name, place)
        assert row.encode() not in content, path.name


def test_a_limit_that_nothing_meets_is_exit_1_with_a_report_and_no_bundle(built):
    names, _, _ = built
    place = Path(names["out"]).with_name("missed")
    missed = {**names, "out": str(place), "limit": "min_score_points=100"}
    missed["settings"] = {**names["settings"], "run.redecide": "true"}
    done = small.run(small.command(missed))
    assert done.returncode == 1, done.stderr
    assert not place.exists()
    record = json.loads((place.parent / "missed.report.json").read_text())
    assert record["verdict"] == "misses" and record["best_miss"]
    told = done.stdout.splitlines()
    assert told[-1] == f"no bundle  --best-effort bundles {record['best_miss']}, the best miss"
    left = sorted(path.name for path in place.parent.glob("missed*"))
    assert left == ["missed.report.html", "missed.report.json", "missed.report.md"]
    assert "Nothing fits" in (place.parent / "missed.report.md").read_text()
    seen = small.run(small.command({}, "inspect", f"{place}.report.json"))
    assert seen.returncode == 0 and "Nothing fits" in seen.stdout, seen.stderr


def test_a_live_model_builds_as_its_folder_does(built, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    names, _, _ = built
    live = {
        "model": AutoModel.from_pretrained(names["model"]),
        "tokenizer": AutoTokenizer.from_pretrained(names["model"]),
    }
    told = {**names, "model": live, "out": str(tmp_path / "out")}
    made = edgedistill.build(target=told.pop("target"), **told)
    assert made.exit_code == 0 and made.bundle().labels == ["blue", "green", "red"]


@pytest.mark.slow
def test_a_build_that_is_killed_again_and_again_ends_with_the_same_bytes(built, tmp_path):
    names, _, _ = built
    # int8 alone fits: on models this small whether it pays is noise, and the choice would differ
    names = {**names, "out": str(tmp_path / "wanted"), "limit": "size_mb=0.055"}
    unbroken = small.run(small.command(names))
    assert unbroken.returncode == 0, unbroken.stderr
    wanted = small.payload(tmp_path / "wanted")
    names |= {"out": str(tmp_path / "out"), "store": str(tmp_path / "store")}
    names["settings"] = {**names["settings"]}
    line, draw, kills = small.command(names), random.Random(5), 0
    made: dict[str, float] = {}
    for _ in range(6):
        running = subprocess.Popen(
            line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        time.sleep(draw.uniform(2, 14))
        if running.poll() is None:
            os.kill(running.pid, signal.SIGKILL)
            kills += 1
        running.wait()
        now = {
            str(path): path.stat().st_mtime_ns
            for path in (tmp_path / "store" / "v1").rglob("artifact.json")
        }
        assert all(now.get(path) == when for path, when in made.items()), "made twice"
        made = now
    assert kills
    done = small.run(line)
    assert done.returncode == 0, done.stderr
    assert small.payload(tmp_path / "out") == wanted


def test_a_target_that_asks_for_one_shape_gets_a_second_graph_that_agrees(built, tmp_path):
    import numpy as np
    import onnxruntime

    names, _, _ = built
    target = tmp_path / "square.toml"
    told = small.TARGET.replace("roomy", "square")
    target.write_text(told.replace("[runtime]", "[runtime]\nfixed = 24"))
    done = small.run(small.command({**names, "target": str(target), "out": str(tmp_path / "out")}))
    assert done.returncode == 0, done.stderr
    made = edgedistill.load(tmp_path / "out")
    fixed = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.fixed.onnx"))
    assert all(each.shape == [1, 24] for each in fixed.get_inputs())
    row = made.encoder.encode({"text": "w0 w20 w21"})
    feed = {}
    for name, value in made.encoder.batch([row]).items():
        feed[name] = np.zeros((1, 24), value.dtype)
        feed[name][:, : value.shape[1]] = value
    (found,) = fixed.run(None, {each.name: feed[each.name] for each in fixed.get_inputs()})
    assert found.argmax() == made.outputs([{"text": "w0 w20 w21"}]).argmax()
