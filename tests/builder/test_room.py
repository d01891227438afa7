"""What a build may write is known before it begins: at least what its steps then write."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import planning
import pytest

from edgedistill import job, planner, target
from edgedistill.builder import driver
from edgedistill.builder.course import steps_of
from edgedistill.data import arrays
from edgedistill.errors import SurroundingsError
from edgedistill.records import Step

LABELS = tuple(f"label {index}" for index in range(100))
ROWS = {"train": 2000, "validation": 50, "test": 50}


def steps():
    facts = planning.facts(labels=LABELS, rows=ROWS)
    plan = planner.propose(
        job.named(target="phone", model="m", data="d"), target.load("phone"), facts
    )
    return steps_of(plan.everyone()), SimpleNamespace(
        facts=facts, model=SimpleNamespace(parameters=1000)
    )


def size(folder):
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def test_labels_of_made_rows_are_counted_kind_by_kind(tmp_path):
    planned, prepared = steps()
    kinds = 0
    for step in planned:
        if step.stage == "label" and isinstance(step.inputs["rows.0"], Step):
            made = step.inputs["rows.0"].settings["made"]
            kinds = max(kinds, len(made))
            count = ROWS["train"] * max(1, len(made))
            folder = Path(tempfile.mkdtemp(dir=tmp_path))
            row = {"logits": np.zeros(len(LABELS), dtype=np.float16)}
            arrays.write(folder, (row for _ in range(count)))
            written = (folder / "logits.npy").stat().st_size
            assert written <= 1.01 * driver._bytes(step, prepared)
    assert kinds > 3, "the default makes rows of several kinds"


def test_checkpoints_of_a_training_are_counted_with_the_one_being_written(tmp_path):
    import torch

    from edgedistill.train import pace, running

    model = torch.nn.Linear(500, 500)
    run = running.begin(model, {}, None, pace.Training())
    model(torch.randn(4, 500)).sum().backward()
    run.optimizer.step()
    run.best, run.best_weights = {"score": 1.0}, running.copy_of(model)
    for step in (1, 2):
        run.step = step
        running.save(run, tmp_path)
    prepared = SimpleNamespace(model=SimpleNamespace(parameters=500 * 501))
    one, two = ([Step("distill", {}, {})] * count for count in (1, 2))
    assert 1.5 * size(tmp_path) <= 1.05 * driver._checkpoints(one, prepared)
    assert driver._checkpoints(two, prepared) == 2 * driver._checkpoints(one, prepared)
    assert driver._checkpoints([], prepared) == 0


def test_a_full_disk_is_told_before_the_first_step():
    planned, prepared = steps()
    store = SimpleNamespace(has=lambda *_: False, free_bytes=lambda: 1e5, root="/store")
    with pytest.raises(SurroundingsError, match=r"may write .* MB, and '/store' has 0 MB free"):
        driver._room(SimpleNamespace(store=store), prepared, planned)
    store.free_bytes = lambda: 1e12
    driver._room(SimpleNamespace(store=store), prepared, planned)
