"""Hard labels: values worked by hand, rows without a truth, the gradient."""

from __future__ import annotations

import math

import pytest
import torch

from edgedistill.losses import hard_labels


def loss(logits, truth, **settings):
    batch = {"truth": torch.tensor(truth)}
    return hard_labels.loss({"logits": logits}, {}, batch, hard_labels.Settings(**settings), None)


def test_value_by_hand():
    logits = torch.tensor([[math.log(1), math.log(3)], [math.log(4), math.log(1)]])
    # p of the truth: 3/4 and 1/5
    expected = (math.log(4 / 3) + math.log(5)) / 2
    assert loss(logits, [1, 1]).item() == pytest.approx(expected, rel=1e-6)


def test_rows_without_a_truth_are_left_out_of_the_mean():
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    some = loss(logits, [2, -1, 0])
    assert some.item() == pytest.approx(loss(logits[[0, 2]], [2, 0]).item(), rel=1e-6)
    some.backward()
    assert logits.grad[1].abs().max() == 0


def test_no_truth_at_all_is_nothing():
    logits = torch.randn(2, 4, requires_grad=True)
    none = loss(logits, [-1, -1])
    none.backward()
    assert none.item() == 0 and logits.grad.abs().max() == 0


def test_gradient_is_p_minus_truth_over_rows():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)
    truth = [0, 1, 2, 1, 0]
    loss(logits, truth).backward()
    wanted = (logits.detach().softmax(-1) - torch.eye(3)[truth]) / 5
    assert torch.allclose(logits.grad, wanted, atol=1e-6)


def test_smoothing_by_hand():
    logits = torch.tensor([[0.0, math.log(3)]])
    # p = 1/4, 3/4; smoothed truth = 0.1, 0.9
    expected = -0.1 * math.log(1 / 4) - 0.9 * math.log(3 / 4)
    assert loss(logits, [1], smoothing=0.2).item() == pytest.approx(expected, rel=1e-6)
