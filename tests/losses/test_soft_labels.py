"""Soft labels: values worked by hand, the gradient's closed form, the limit of high temperature."""

from __future__ import annotations

import math

import pytest
import torch

from edgedistill.losses import soft_labels


def loss(ours, theirs, temperature):
    settings = soft_labels.Settings(temperature=temperature)
    return soft_labels.loss({"logits": ours}, {"logits": theirs}, {}, settings, None)


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_value_by_hand():
    # at T = 2 the logits 2 ln 3 and 0 are 3/4 and 1/4; the student says 1/2 and 1/2
    theirs, ours = torch.tensor([[2 * math.log(3), 0.0]]), torch.zeros(1, 2)
    expected = 4 * (3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2))
    assert loss(ours, theirs, 2.0).item() == pytest.approx(expected, rel=1e-6)


def test_it_is_summed_over_labels_and_averaged_over_rows():
    ours, theirs = drawn(6, 9, seed=0), drawn(6, 9, seed=1)
    each = [loss(ours[row : row + 1], theirs[row : row + 1], 3.0).item() for row in range(6)]
    assert loss(ours, theirs, 3.0).item() == pytest.approx(sum(each) / 6, rel=1e-5)


def test_nothing_where_both_agree_up_to_a_constant():
    theirs = drawn(4, 7, seed=2)
    assert loss(theirs + 5.0, theirs, 4.0).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 10.0])
def test_gradient_is_t_times_the_difference_over_rows(temperature):
    ours, theirs = drawn(8, 5, seed=3).requires_grad_(), drawn(8, 5, seed=4)
    loss(ours, theirs, temperature).backward()
    difference = (ours / temperature).softmax(-1) - (theirs / temperature).softmax(-1)
    assert torch.allclose(ours.grad, temperature * difference.detach() / 8, atol=1e-6)


def test_at_high_temperature_it_is_half_the_centred_squared_difference():
    ours, theirs = drawn(5, 6, seed=5).double(), drawn(5, 6, seed=6).double()
    difference = ours - theirs
    centred = difference - difference.mean(-1, keepdim=True)
    # T² KL tends to |centred difference|² / (2 labels)
    expected = (centred.square().sum(-1) / (2 * 6)).mean().item()
    assert loss(ours.float(), theirs.float(), 100.0).item() == pytest.approx(expected, rel=2e-2)


def test_half_precision_is_computed_in_float32():
    ours, theirs = drawn(4, 8, seed=7) * 20, drawn(4, 8, seed=8) * 20
    exact = loss(ours.bfloat16().float(), theirs.half().float(), 1.0)
    assert loss(ours.bfloat16(), theirs.half(), 1.0).item() == pytest.approx(exact.item(), rel=1e-6)
