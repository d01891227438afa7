"""The last layer for the first token alone: the same answers and gradients, of fewer products."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import tiny
import torch

from edgedistill import plugins
from edgedistill.families import encoder
from edgedistill.train import weights
from edgedistill.train.batches import Examples, tensors
from edgedistill.train.simulate import simulated

POOLS = {"dinov2": False}  # by the first token and by the mean of the others


def opened(tmp_path, kind, **config):
    """Return a tiny model of a type, and what answers a few padded rows with it."""
    folder = tiny.model(tmp_path / "model", kind, **config)
    task = plugins.find("tasks", tiny.task(kind))
    model = weights.load(folder, task)
    examples = Examples([tiny.rows(tmp_path / "rows", folder, kind, count=6)])
    rows = task.open_encoder(folder, tiny.encoder(folder, kind)).batch(examples.rows(range(6)))
    return model.eval(), lambda: task.forward(model, tensors(rows, "cpu")).logits


def multiplied(model, answer):
    """Return how many rows each product of the last layer had, by path."""
    layer = model.get_submodule(encoder.locate("hidden.3", model))
    rows: dict[str, int] = {}
    hooks = [
        module.register_forward_hook(
            lambda module, given, output, path=path: rows.__setitem__(path, given[0].shape[1])
        )
        for path, module in layer.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    answer()
    for hook in hooks:
        hook.remove()
    return rows


def derived(model, answer):
    model.zero_grad(set_to_none=True)
    logits = answer()
    (logits * torch.linspace(-1, 1, logits.shape[1])).pow(2).sum().backward()
    found = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return logits.detach(), found


@pytest.mark.parametrize("kind", encoder.MODEL_TYPES)
def test_each_model_type_answers_and_learns_the_same(tmp_path, kind):
    model, answer = opened(tmp_path, kind)
    logits, gradients = derived(model, answer)
    whole = multiplied(model, answer)
    with encoder.only_logits(model, answer):
        narrow = multiplied(model, answer)
        again, same = derived(model, answer)
    assert torch.allclose(again, logits, atol=1e-6)
    assert set(same) == set(gradients)
    for name, tensor in gradients.items():
        assert torch.allclose(same[name], tensor, atol=1e-6), name
    read = [path.rpartition(".")[2] for path, count in narrow.items() if count > 1]
    if POOLS.get(kind, True):
        assert len(narrow) == 6 and sorted(each[0] for each in read) == ["k", "v"]
    else:
        assert narrow == whole
    assert multiplied(model, answer) == whole, "what was narrowed is so no longer"


def test_a_model_in_training_is_left_in_training_and_draws_nothing_for_the_trial(tmp_path):
    model, answer = opened(tmp_path, "bert", hidden_dropout_prob=0.5)
    model.train()
    torch.manual_seed(3)
    drawn = torch.rand(4)
    torch.manual_seed(3)
    with encoder.only_logits(model, answer):
        assert model.training
        assert torch.equal(torch.rand(4), drawn)
    assert all(each.grad is None for each in model.parameters())


@pytest.mark.parametrize("largest", [0, 64])
def test_int8_is_simulated_of_the_first_row_alone(tmp_path, largest):
    model, answer = opened(tmp_path, "bert")
    with simulated(model, largest):
        with encoder.only_logits(model, answer):
            narrow = answer().detach().numpy()
        whole = answer().detach().numpy()
    plain = answer().detach().numpy()
    assert np.abs(narrow - whole).max() < 0.05 * np.abs(plain).max()
    assert bool(np.abs(narrow - plain).max() > 1e-5) == bool(largest)


def test_the_layer_is_whole_again_after_an_error(tmp_path):
    model, answer = opened(tmp_path, "bert")
    whole = multiplied(model, answer)
    with pytest.raises(KeyboardInterrupt), encoder.only_logits(model, answer):
        raise KeyboardInterrupt
    assert multiplied(model, answer) == whole


def test_what_reads_the_last_layer_otherwise_or_not_at_all_gets_it_whole(tmp_path):
    """A task's own code may pool by the mean, or read a layer below."""
    model, answer = opened(tmp_path, "bert")
    layers = model.bert.encoder.layer

    def of(layer, pool):
        caught = []
        hook = layer.register_forward_hook(lambda module, given, output: caught.append(output))
        answer()
        hook.remove()
        return model.classifier(pool(caught[-1]))

    mean = partial(of, layers[3], lambda rows: rows.mean(1))
    below = partial(of, layers[2], lambda rows: rows[:, 0])
    for read in (mean, below):
        whole = read().detach()
        with encoder.only_logits(model, read):
            assert torch.equal(read(), whole)
            assert 1 not in multiplied(model, answer).values()
