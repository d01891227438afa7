"""Recipes: every key is checked, with the nearest right name."""

from __future__ import annotations

import pytest

from edgedistill.errors import JobError
from edgedistill.train import recipe

LOSS = "[losses.soft_labels]\nweight = 1\n"


def read(folder, text, **more):
    path = folder / "mine.toml"
    path.write_text(text)
    return recipe.read(str(path), **more)


def test_what_is_given_is_coerced_and_the_rest_left_to_the_stage(tmp_path):
    text = LOSS + "temperature = 2\n[optimisation]\nepochs = 3\nbatch = 16\n"
    made = read(tmp_path, text + "[augmentation]\nmade = ['masked']\n")
    assert made.name == "mine"
    assert made.losses == {"soft_labels": {"weight": 1.0, "temperature": 2.0}}
    assert made.settings == {"epochs": 3.0, "batch": 16, "made": ["masked"]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("alpha = 0.5\n" + LOSS, "unknown key 'alpha'"),  # it belongs to [optimisation]
        ("temperature = 2\n" + LOSS, "unknown key 'temperature'"),
        ("[optimization]\n" + LOSS, "did you mean 'optimisation'"),
        ("[losses.soft_label]\nweight = 1\n", "did you mean 'soft_labels'"),
        (LOSS + "temprature = 2\n", "did you mean 'temperature'"),
        (LOSS + "wieght = 2\n", "did you mean 'weight'"),
        (LOSS + "temperature = -2\n", r"soft_labels\.temperature: -2.* out of range"),
        ("[losses.soft_labels]\nweight = -1\n", "expected a number of 0 or more, or"),
        ("[losses]\nsoft_labels = 1\n", "expected settings such as weight"),
        (LOSS + "[optimisation]\nbtach = 2\n", "did you mean 'batch'"),
        (LOSS + "[optimisation]\nthreads = 2\n", "unknown key 'threads'"),
        (LOSS + "[optimisation]\nepochs = 0\n", "epochs: 0.* out of range"),
        (LOSS + "[optimisation]\nwarmup = 2\n", "warmup: 2.* out of range"),
        (LOSS + "[augmentation]\nmaed = []\n", "did you mean 'made'"),
        (LOSS + "[augmentation]\nmade = ['maskd']\n", "did you mean 'masked'"),
        (LOSS + "[augmentation]\ncopies = 0\n", "copies: 0 is out of range"),
        ("about = 'nothing'\n", "names no losses"),
        ("losses = 1\n", "is a section"),
    ],
)
def test_wrong_keys_and_values_are_one_line(tmp_path, text, says):
    with pytest.raises(JobError, match=says) as error:
        read(tmp_path, text)
    assert "mine.toml" in str(error.value) and "\n" not in str(error.value)


def test_a_loss_that_is_a_file_runs_only_when_allowed(tmp_path):
    (tmp_path / "own.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n"
        "from edgedistill.losses.hard_labels import *\n"
    )
    text = '[losses."own.py"]\nweight = 1\n'  # found beside the recipe
    with pytest.raises(JobError, match="--allow-code"):
        read(tmp_path, text)
    assert not (tmp_path / "ran").exists()
    made = read(tmp_path, text, allow_code=True)
    assert list(made.losses) == [str(tmp_path / "own.py")] and (tmp_path / "ran").exists()
