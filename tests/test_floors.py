"""The oldest versions that pyproject allows: installed, and a tiny build run with them."""

import environments
import pytest
from test_package import dependencies

pytestmark = pytest.mark.slow

LIVE = """
import datasets
from edgedistill.data import live

rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1], "tags": [["x"], ["y"]]})
print(*live.read(rows)["train"].columns)
"""


def test_a_tiny_build_runs_on_the_floors(small, wheel, tmp_path):
    floors, _ = dependencies()
    python = environments.fresh(
        tmp_path / "venv", *(f"{name}=={floor}" for name, floor in floors.items())
    )
    environments.pip(python, "install", "-q", wheel)  # with its dependencies: all are there
    listed = environments.run([python, "-m", "pip", "list", "--format=freeze"]).stdout.lower()
    for name, floor in floors.items():
        assert f"{name}=={floor}" in listed, "pip took another version than the floor"
    names = small.job(tmp_path / "job")
    line = [python, *small.command(names)[1:]]
    done = environments.run(line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "chosen" in done.stdout
    digits = "from edgedistill.data import starter; print(len(starter.data().splits['train']))"
    done = environments.run([python, "-c", digits], cwd=tmp_path)
    assert done.returncode == 0 and int(done.stdout) > 500, done.stderr
    done = environments.run([python, "-c", LIVE], cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.split() == ["text", "label", "tags"], done.stderr
