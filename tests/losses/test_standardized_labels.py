"""Standardized labels: a value worked by hand; size and shift of logits do not count."""

from __future__ import annotations

import math

import pytest
import torch

from edgedistill.losses import soft_labels, standardized_labels


def loss(ours, theirs, temperature=2.0):
    settings = standardized_labels.Settings(temperature=temperature)
    return standardized_labels.loss({"logits": ours}, {"logits": theirs}, {}, settings, None)


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_value_by_hand():
    # two labels standardize to +1 and -1 whatever they were: at T = 2 they differ by 1
    ours, theirs = torch.tensor([[0.1, 5.0]]), torch.tensor([[9.0, 2.0]])
    high, low = (1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1)))
    expected = 4 * (high * math.log(high / low) + low * math.log(low / high))
    assert loss(ours, theirs).item() == pytest.approx(expected, rel=1e-5)


def test_only_order_and_proportions_count():
    ours, theirs = drawn(4, 6, seed=0), drawn(4, 6, seed=1)
    once = loss(ours, theirs).item()
    assert loss(3 * ours + 2, 0.5 * theirs - 1).item() == pytest.approx(once, rel=1e-5)
    assert loss(7 * theirs + 1, theirs).item() == pytest.approx(0, abs=1e-5)


def test_of_standardized_logits_it_is_soft_labels():
    both = [drawn(4, 6, seed=seed) for seed in (2, 3)]
    z = [
        (one - one.mean(-1, keepdim=True)) / one.std(-1, correction=0, keepdim=True) for one in both
    ]
    told = soft_labels.Settings(temperature=3.0)
    soft = soft_labels.loss({"logits": z[0]}, {"logits": z[1]}, {}, told, None)
    assert loss(*both, temperature=3.0).item() == pytest.approx(soft.item(), rel=1e-5)


def test_equal_logits_are_no_trouble():
    ours = torch.zeros(2, 3, requires_grad=True)
    found = loss(ours, drawn(2, 3, seed=4))
    found.backward()
    assert found.isfinite() and ours.grad.isfinite().all()
