"""Attention maps: values worked by hand; padding; heads that differ."""

from __future__ import annotations

import pytest
import torch

from edgedistill.losses import attention_maps


def loss(ours, theirs, mask=None):
    batch = {} if mask is None else {"attention_mask": torch.tensor(mask)}
    both = ({"attention.0": ours}, {"attention.0": theirs})
    return attention_maps.loss(*both, batch, attention_maps.Settings(), None)


def test_value_by_hand():
    # one head, two tokens: (.5 .5) against (1 0) is .5, (.2 .8) against (.4 .6) is .08
    ours = torch.tensor([[[[0.5, 0.5], [0.2, 0.8]]]])
    theirs = torch.tensor([[[[1.0, 0.0], [0.4, 0.6]]]])
    assert loss(ours, theirs).item() == pytest.approx((0.5 + 0.08) / 2, rel=1e-5)
    # of the first token alone, and what it gives to the second does not count
    assert loss(ours, theirs, [[1, 0]]).item() == pytest.approx(0.25, rel=1e-5)


def test_heads_that_differ_in_number_are_averaged():
    ours = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]])
    theirs = torch.tensor([[[[0.5, 0.5], [0.0, 1.0]]]])
    assert loss(ours, theirs).item() == pytest.approx(0, abs=1e-7)
    assert loss(ours, theirs.expand(-1, 2, -1, -1)).item() == pytest.approx(0.25, rel=1e-5)


def test_gradient_is_twice_the_difference_over_heads_and_tokens():
    ours, theirs = torch.rand(2, 3, 4, 4, requires_grad=True), torch.rand(2, 3, 4, 4)
    loss(ours, theirs).backward()
    assert torch.allclose(ours.grad, 2 * (ours.detach() - theirs) / (3 * 8), atol=1e-6)
