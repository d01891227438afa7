"""What losses read of a teacher: cached logits at once, the rest from a live one when asked for."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from edgedistill import plugins
from edgedistill.families import encoder
from edgedistill.train import weights
from edgedistill.train.batches import Examples, tensors
from edgedistill.train.signals import Both, Taps


class Known:
    def read(self, indices, inputs):
        return {"logits": "cached"}


class Runs:
    def __init__(self):
        self.calls = 0

    def read(self, indices, inputs):
        self.calls += 1
        return {"logits": "live", "hidden.1": 1, "hidden.2": 2}


def test_a_live_teacher_runs_when_it_is_needed_and_once():
    live = Runs()
    found = Both(live, Known()).read(np.arange(2), {})
    assert found["logits"] == "cached" and live.calls == 0
    assert (found["hidden.2"], found["hidden.1"]) == (2, 1) and live.calls == 1
    assert found["logits"] == "cached", "of several teachers only the cached ones are the average"
    with pytest.raises(KeyError):
        found["hidden.3"]


@pytest.mark.parametrize("kind", encoder.MODEL_TYPES)
def test_attention_that_is_read_of_a_student_in_training_is_the_softmax_whole(tmp_path, kind):
    """A tenth of it is zeros, and the rest too large, where dropout has been at it."""
    folder = tiny.model(tmp_path / "model", kind)
    task = plugins.find("tasks", tiny.task(kind))
    model = weights.load(folder, task, dropout=0.5).train()
    rows = Examples([tiny.rows(tmp_path / "rows", folder, kind, count=4)]).rows(range(4))
    batch = tensors(task.open_encoder(folder, tiny.encoder(folder, kind)).batch(rows), "cpu")
    taps = Taps(model, ("attention.1", "logits"), encoder)
    torch.manual_seed(0)
    found = taps.take(task.forward(model, batch).logits)["attention.1"]
    assert torch.allclose(found.sum(-1), torch.ones(()), atol=1e-5)
    again = taps.take(task.forward(model, batch).logits)
    assert not torch.equal(again["attention.1"], found), "elsewhere dropout stays"


def test_taps_that_are_gone_leave_no_hook_and_no_tensor_behind(tmp_path):
    folder = tiny.model(tmp_path / "model", "bert")
    task = plugins.find("tasks", tiny.task("bert"))
    model = weights.load(folder, task)
    layer = model.get_submodule(encoder.locate("hidden.1", model))
    rows = Examples([tiny.rows(tmp_path / "rows", folder, "bert", count=4)]).rows(range(4))
    batch = tensors(task.open_encoder(folder, tiny.encoder(folder, "bert")).batch(rows), "cpu")
    for _ in range(3):  # one after another, as rounds of pruning have them
        taps = Taps(model, ("hidden.1",), encoder)
        assert taps.take(task.forward(model, batch).logits)["hidden.1"].shape[0] == 4
        assert taps.caught == {}
    assert len(layer._forward_hooks) == 1
    del taps
    assert not layer._forward_hooks
