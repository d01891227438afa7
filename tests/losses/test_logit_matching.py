"""Logit matching: a value worked by hand, the gradient, the tie to soft labels."""

from __future__ import annotations

import pytest
import torch

from edgedistill.losses import logit_matching, soft_labels


def loss(ours, theirs):
    settings = logit_matching.Settings()
    return logit_matching.loss({"logits": ours}, {"logits": theirs}, {}, settings, None)


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_value_by_hand():
    # differences (3, 0) and (1, 1), centred (1.5, -1.5) and (0, 0): half of 4.5, over 2 rows
    ours, theirs = torch.tensor([[3.0, 1.0], [2.0, 5.0]]), torch.tensor([[0.0, 1.0], [1.0, 4.0]])
    assert loss(ours, theirs).item() == pytest.approx(4.5 / 2 / 2, rel=1e-6)


def test_gradient_is_the_centred_difference_over_rows():
    ours, theirs = drawn(8, 5, seed=0).requires_grad_(), drawn(8, 5, seed=1)
    loss(ours, theirs).backward()
    difference = ours.detach() - theirs
    expected = (difference - difference.mean(-1, keepdim=True)) / 8
    assert torch.allclose(ours.grad, expected, atol=1e-6)


def test_it_is_what_soft_labels_tend_to_times_the_labels():
    ours, theirs = drawn(5, 6, seed=2), drawn(5, 6, seed=3)
    told = soft_labels.Settings(temperature=100.0)
    soft = soft_labels.loss({"logits": ours}, {"logits": theirs}, {}, told, None)
    assert loss(ours, theirs).item() == pytest.approx(6 * soft.item(), rel=2e-2)
