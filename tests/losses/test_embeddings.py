"""Embeddings: a value worked by hand, the gradient, the projection."""

from __future__ import annotations

import pytest
import torch

from edgedistill.losses import embeddings


def loss(ours, theirs, mask=None, learned=None):
    batch = {} if mask is None else {"attention_mask": torch.tensor(mask)}
    both = ({"embeddings": ours}, {"embeddings": theirs})
    return embeddings.loss(*both, batch, embeddings.Settings(), learned)


def test_value_by_hand():
    ours, theirs = torch.tensor([[[1.0, 3.0], [9.0, 9.0]]]), torch.zeros(1, 2, 2)
    assert loss(ours, theirs, [[1, 0]]).item() == pytest.approx(5.0, rel=1e-6)
    assert loss(ours, theirs).item() == pytest.approx((5 + 81) / 2, rel=1e-6)


def test_gradient_is_twice_the_difference_over_features_and_tokens():
    torch.manual_seed(0)
    ours, theirs = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 3, 4)
    loss(ours, theirs, [[1, 1, 0], [1, 1, 1]]).backward()
    expected = 2 * (ours.detach() - theirs) / (4 * 5)
    expected[0, 2] = 0  # padding
    assert torch.allclose(ours.grad, expected, atol=1e-6)


def test_a_narrower_student_learns_a_projection():
    learned = embeddings.build(embeddings.Settings(), {"hidden": 2}, {"hidden": 3})
    weight = learned["embeddings"].weight
    assert weight.shape == (3, 2)
    assert torch.allclose(weight.T @ weight, torch.eye(2), atol=1e-6)  # it keeps lengths
    ours = torch.randn(2, 4, 2)
    assert loss(ours, ours @ weight.detach().T, learned=learned).item() == pytest.approx(
        0, abs=1e-6
    )
