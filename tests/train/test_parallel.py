"""Several processes: the step of one with as large a batch, to rounding; drawn apart, agreed."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file

from edgedistill.data import arrays
from edgedistill.errors import JobError
from edgedistill.train import loop, objective, parallel

MEMBER = Path(__file__).with_name("member.py")
spec = importlib.util.spec_from_file_location("member", MEMBER)
member = importlib.util.module_from_spec(spec)
spec.loader.exec_module(member)


@pytest.fixture
def place(tmp_path):
    """A student, rows with labels and rows without, and what a teacher said of both."""
    tiny.model(tmp_path / "model", "bert", num_hidden_layers=2)
    draw = np.random.default_rng(0)
    for name, rows in {"train": 75, "bare": 45, "validation": 30}.items():
        folder = tmp_path / name
        tiny.rows(folder, tmp_path / "model", count=rows, seed=rows, labelled=name != "bare")
    for name, rows in {"logits": 75, "other": 45}.items():
        said = draw.normal(size=(rows, 3)).astype(np.float32)
        arrays.write(tmp_path / name, ({"logits": row} for row in said))
    return tmp_path


def test_two_processes_train_as_one_with_twice_the_batch(place):
    line = [sys.executable, str(MEMBER), str(place)]
    both = [subprocess.Popen([*line, str(rank), "2", "8", "0"]) for rank in (1, 0)]
    model, work = member.made(place, batch=16)
    member.save(model, loop.fit(model, work), place / "one")
    assert [each.wait(timeout=300) for each in both] == [0, 0]
    one, two = (json.loads((place / name / "facts.json").read_text()) for name in ("one", "two"))
    assert [each["step"] for each in two["history"]] == [4, 8, 12]
    for first, second in zip(one["history"], two["history"], strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-5)
        assert (first["raw"], first["ema"]) == (second["raw"], second["ema"])
    assert one["best"] == two["best"]
    one, two = (load_file(place / name / "weights.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        # no softmax feels a key's bias: its gradient is rounding alone, which AdamW makes steps of
        if not name.endswith("key.bias"):
            assert torch.allclose(tensor, two[name], atol=2e-5), name


@pytest.mark.slow
def test_a_run_of_two_processes_that_was_killed_ends_with_the_same_bytes(place):
    def both(stop, again=""):
        told = {**os.environ, "EDGEDISTILL_CHECKPOINT_SECONDS": "0", "AGAIN": again}
        line = [sys.executable, str(MEMBER), str(place)]
        made = [subprocess.Popen([*line, f"{r}", "2", "8", f"{stop}"], env=told) for r in (0, 1)]
        return [each.wait(timeout=300) for each in made]

    assert both(0) == [0, 0]
    shutil.rmtree(place / "resume-2")
    assert both(7) == [9, 9]
    assert sorted(path.name for path in (place / "resume-2").iterdir()) == ["00000005", "00000006"]
    assert both(0, "again") == [0, 0]
    one, two = (place / name for name in ("two", "twoagain"))
    facts, again = (json.loads((folder / "facts.json").read_text()) for folder in (one, two))
    assert facts == again
    name = "weights.safetensors"
    assert (one / name).read_bytes() == (two / name).read_bytes()


def test_losses_are_weighed_by_what_they_count():
    class Examples:
        truth = np.array([0, 1, 2, 0, -1, 1, -1, 2])

    terms = objective.terms(
        {"soft_labels": {}, "hard_labels": {}}, alpha=0.5, temperature=1, student={}, teacher={}
    )
    indices = np.arange(8)
    found = [parallel.Group(rank, 2).scaled(terms, Examples, indices) for rank in (0, 1)]
    by_rank = [{term.name: term.first for term in each} for each in found]
    assert [each["soft_labels"] for each in by_rank] == [0.5, 0.5]
    assert [each["hard_labels"] for each in by_rank] == pytest.approx([0.5 * 4 / 6, 0.5 * 8 / 6])
    assert parallel.ALONE.scaled(terms, Examples, indices) == tuple(terms)
    parts = [parallel.Group(rank, 3).mine(indices).tolist() for rank in range(3)]
    assert sorted(parts[0] + parts[1] + parts[2]) == indices.tolist()


def test_each_process_draws_its_own_and_the_first_as_if_alone():
    draws = {loop._draw(3, step, rank) for step in range(4) for rank in range(4)}
    assert len(draws) == 16


def test_a_training_for_several_processes_is_not_run_by_one(place):
    model, work = member.made(place, processes=2, batch=8)
    with pytest.raises(JobError, match="torchrun --nproc-per-node 2"):
        loop.fit(model, work)
