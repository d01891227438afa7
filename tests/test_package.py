"""The package: what it needs, what is in the wheel, and that the wheel works by itself."""

import ast
import re
import sys
import tomllib
import zipfile
from pathlib import Path

import environments
import pytest

from edgedistill import plugins

HOUSE = environments.HOUSE
IMPORTED_AS = {"pillow": "PIL", "scikit-learn": "sklearn"}


def floors(lines):
    """Return the floor of each package of a list of requirements."""
    return {
        name.lower(): floor
        for name, floor in (line.strip().split(">=") for line in lines if line.strip())
    }


def dependencies():
    table = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]
    return floors(table["dependencies"]), table["optional-dependencies"]


def device():
    lines = (HOUSE / "requirements-device.txt").read_text().splitlines()
    return floors(line for line in lines if not line.startswith("#"))


def imported():
    """Return the packages of others that our code imports anywhere."""
    found = set()
    for path in (HOUSE / "edgedistill").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"edgedistill", "__future__"}


def test_each_dependency_is_imported_and_each_import_is_a_dependency():
    needed, extras = dependencies()
    names = {IMPORTED_AS.get(name, name) for name in needed}
    for extra in extras.keys() - {"test"}:
        names |= {name.replace("-", "_") for name in floors(extras[extra])}
    assert names <= imported(), "a dependency that nothing imports"
    brought = {"huggingface_hub"}  # by transformers; a device has no use for it
    assert imported() <= names | brought


def test_a_device_needs_a_part_of_it_with_an_older_runtime():
    needed, _ = dependencies()
    short = device()
    assert set(short) == set(needed) & set(short) and "torch" not in short
    from edgedistill import target

    oldest = {target.load(name).runtime.onnxruntime for name in plugins.names("targets")}
    assert short["onnxruntime"] in oldest
    assert {n: f for n, f in short.items() if n != "onnxruntime"} == {
        n: f for n, f in needed.items() if n in short and n != "onnxruntime"
    }


def test_the_known_good_set_is_above_the_floors():
    needed, extras = dependencies()
    held = dict(
        line.split("==") for line in (HOUSE / "constraints.txt").read_text().split() if line
    )
    held = {name.lower().replace("_", "-"): version for name, version in held.items()}
    known = {**needed, **floors(extras["test"])}
    for name, floor in known.items():
        found, least = (
            [int(part) for part in re.findall(r"\d+", text)] for text in (held[name], floor)
        )
        assert found >= least, name
    assert held["torch"] == "2.13.0"


@pytest.mark.slow
def test_the_wheel_holds_what_the_checkout_holds(wheel):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {
        path.relative_to(HOUSE).as_posix()
        for path in (HOUSE / "edgedistill").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    for kind, place in (("targets", "targets"), ("cases", "benchmarks/cases")):
        for path in (HOUSE / place).rglob("*.toml"):
            wanted.add(f"edgedistill/{kind}/{path.relative_to(HOUSE / place).as_posix()}")
    assert inside == wanted
    for name in (
        "targets/phone.toml", "cases/starter/digits.toml", "recipes/logits.toml",
        "measure/probe.py", "measure/yardstick/int8.onnx", "graph/tables/operators.json",
        "report/report.schema.json", "bundle/manifest.schema.json", "report/page.css",
        "bundle/snippets/text.md",
    ):  # fmt: skip
        assert f"edgedistill/{name}" in inside


@pytest.mark.slow
def test_the_wheel_works_outside_the_checkout(wheel, small, tmp_path):
    python = environments.fresh(tmp_path / "venv", "--no-deps", wheel, sees_ours=True)
    away = tmp_path / "away"
    away.mkdir()

    def say(*arguments, code=0):
        done = environments.run([python, "-m", "edgedistill", *arguments], cwd=away)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    place = environments.run(
        [python, "-c", "import edgedistill; print(edgedistill.__file__)"], cwd=away
    )
    assert Path(place.stdout.strip()).is_relative_to(tmp_path / "venv")
    command = environments.run([python.with_name("edgedistill"), "--version"], cwd=away)
    assert command.returncode == 0 and "edgedistill" in command.stdout
    assert "latency_p90_ms" in say("targets", "phone")
    listed = {line.split()[0] for line in say("targets").splitlines()}
    assert listed == set(plugins.names("targets"))
    assert "--on-device" in say("bench", "--help")
    assert "known: images, starter, text" in say("bench", "no-such-suite", code=2)
    assert ", logits, " in say("plan", "--target", "phone", "--recipe", "zzz", code=2)
    assert "distill" in say("plan", "--target", "mobile")
    names = small.job(tmp_path / "job")
    assert "student 1x32" in say(*small.command(names, "plan")[3:])
    assert not list(away.iterdir()), "a plan writes nothing"
    checked = environments.run(
        [python, "-c", "from edgedistill import report; print(report.schema()['title'])"],
        cwd=away,
    )
    assert checked.returncode == 0, checked.stderr
