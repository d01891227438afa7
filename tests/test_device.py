"""A device: the short list of packages alone, and the oldest onnxruntime that a bundle names."""

import json
import shutil
import sys
from pathlib import Path

import environments
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def device(tmp_path_factory, wheel):
    """The python of an environment with just the device's list, and us without dependencies."""
    python = environments.fresh(
        tmp_path_factory.mktemp("device") / "venv",
        "-r",
        environments.HOUSE / "requirements-device.txt",
    )
    environments.pip(python, "install", "-q", "--no-deps", wheel)
    return python


@pytest.fixture
def command(device, tmp_path):
    def run(*arguments, code=0):
        line = [device, "-m", "edgedistill", *arguments]
        done = environments.run(line, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stderr

    return run


def test_it_has_no_torch(device):
    for name in ("torch", "transformers", "onnx", "sklearn", "pandas", "safetensors", "rich"):
        assert environments.run([device, "-c", f"import {name}"]).returncode == 1, name


def test_every_command_over_bundles_runs(command, tiny_built, tmp_path):
    bundle = Path(shutil.copytree(tiny_built["out"], tmp_path / "bundle"))
    evidence = Path(tiny_built["out"] + ".evidence.npz")
    shutil.copy(evidence, tmp_path / "bundle.evidence.npz")
    rows, target = tiny_built["data"], tiny_built["target"]
    assert "whole:" in command("verify", bundle)
    assert json.loads(command("predict", bundle, "w0 w20", "--json"))[0]["top"]
    assert json.loads(command("eval", bundle, "--data", rows, "--json"))["score"]["rows"] == 90
    checked = json.loads(
        command("check", bundle, "--data", rows, "--target", target, "--format", "json")
    )
    assert checked["verdict"] in ("fits", "fits_closely")
    states = {each["limit"]: each["state"] for each in checked["checks"]}
    assert states["max_drop_points"] in ("holds", "close"), "the drop is paired by the evidence"
    measured = json.loads(command("bench", bundle, "--seconds", "0.5", "--json"))
    assert len(measured["rows"]) == 1 and measured["rows"][0]["size_mb"] > 0
    assert command("inspect", bundle)
    assert "latency_p90_ms" in command("targets", "phone")
    store = tmp_path / "store"
    assert "is no store" in command("store", "list", "--store", store, code=2)
    shutil.copytree(tiny_built["store"], store)
    listed = json.loads(command("store", "list", "--store", store, "--json"))
    assert {"finetune", "distill", "export"} <= {each["stage"] for each in listed}
    assert "everything holds" in command("store", "verify", "--store", store)


def test_what_needs_more_says_which_package(command, small, tiny_built, tmp_path):
    said = command("plan", "--target", "mobile", code=3)
    assert "'sklearn'" in said and "pip install edgedistill" in said
    names = {**tiny_built, "out": str(tmp_path / "out"), "store": str(tmp_path / "store")}
    said = command(*small.command(names)[3:], code=3)
    assert "pip install" in said.splitlines()[-1]


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="onnxruntime 1.17 has no wheel for it")
def test_golden_vectors_hold_under_the_oldest_runtime(small, tiny_built, wheel, tmp_path):
    names = {**tiny_built, "out": str(tmp_path / "int8"), "limit": "size_mb=0.055"}
    done = small.run(small.command(names))
    assert done.returncode == 0, done.stderr
    manifests = [
        json.loads((Path(place) / "manifest.json").read_text())
        for place in (tiny_built["out"], names["out"])
    ]
    assert "int8" in {each["model"]["precision"] for each in manifests}
    (oldest,) = {each["model"]["onnxruntime"] for each in manifests}
    python = environments.fresh(
        tmp_path / "venv",
        "numpy<2", f"onnxruntime=={oldest}.*", "tokenizers", "pillow", "click", "filelock",
    )  # fmt: skip
    environments.pip(python, "install", "-q", "--no-deps", wheel)
    asked = environments.run([python, "-c", "import onnxruntime as o; print(o.__version__)"])
    assert asked.stdout.startswith(f"{oldest}.")
    for place in (tiny_built["out"], names["out"]):
        done = environments.run([python, "-m", "edgedistill", "verify", place, "--json"])
        assert done.returncode == 0, done.stderr
        golden = json.loads(done.stdout)["golden"]
        assert golden["rows"] > 0
