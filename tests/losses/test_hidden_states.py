"""Hidden states: values worked by hand, normalized ones, the projection, the map."""

from __future__ import annotations

import math

import pytest
import torch

from edgedistill.losses import hidden_states

SHAPE = {"layers": 4, "hidden": 2}


def loss(ours, theirs, mask=None, learned=None, **told):
    batch = {} if mask is None else {"attention_mask": torch.tensor(mask)}
    settings = hidden_states.Settings(**told)
    return hidden_states.loss({"hidden.0": ours}, {"hidden.0": theirs}, batch, settings, learned)


def test_value_by_hand():
    # two tokens, (1, 2) against (0, 0) and (3, 3) against (1, 3): means 2.5 and 2 over features
    ours, theirs = (
        torch.tensor([[[1.0, 2.0], [3.0, 3.0]]]),
        torch.tensor([[[0.0, 0.0], [1.0, 3.0]]]),
    )
    assert loss(ours, theirs).item() == pytest.approx((2.5 + 2) / 2, rel=1e-6)
    assert loss(ours, theirs, [[1, 0]]).item() == pytest.approx(2.5, rel=1e-6)


def test_normalized_by_hand():
    # (1, 0) and (1, 1) / sqrt 2: a squared distance of 2 - 2 / sqrt 2, whatever the lengths
    ours, theirs = torch.tensor([[[5.0, 0.0]]]), torch.tensor([[[2.0, 2.0]]])
    assert loss(ours, theirs, normalize=True).item() == pytest.approx(2 - math.sqrt(2), rel=1e-5)


def test_gradient_is_twice_the_difference_over_features_and_tokens():
    ours = torch.randn(3, 5, 4, requires_grad=True)
    theirs = torch.randn(3, 5, 4)
    loss(ours, theirs).backward()
    assert torch.allclose(ours.grad, 2 * (ours.detach() - theirs) / (4 * 15), atol=1e-6)


def test_a_narrower_student_learns_a_projection_for_each_layer():
    student = {"layers": 2, "hidden": 1}
    learned = hidden_states.build(hidden_states.Settings(), student, SHAPE)
    assert {name: tuple(one.shape) for name, one in learned.named_parameters()} == {
        "hidden_0.weight": (2, 1), "hidden_1.weight": (2, 1),
    }  # fmt: skip
    with torch.no_grad():
        learned["hidden_0"].weight.copy_(torch.tensor([[1.0], [2.0]]))
    ours, theirs = torch.tensor([[[3.0]]]), torch.tensor([[[3.0, 4.0]]])
    assert loss(ours, theirs, learned=learned).item() == pytest.approx(2.0, rel=1e-6)  # (0, 2)


def test_the_map_stands_in_its_needs():
    needs = hidden_states.needs(hidden_states.Settings(map=(2, 2)), {"layers": 2}, SHAPE)
    assert needs == {"hidden.0": "hidden.2", "hidden.1": "hidden.2"}
