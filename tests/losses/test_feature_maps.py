"""Feature maps: a value worked by hand, the projection, sizes that differ."""

from __future__ import annotations

import pytest
import torch

from edgedistill.errors import JobError
from edgedistill.losses import feature_maps

SHAPE = {"stages": 2, "channels": 3, "channels.0": 2, "channels.1": 3}


def loss(ours, theirs, learned=None):
    both = ({"feature.0": ours}, {"feature.0": theirs})
    return feature_maps.loss(*both, {}, feature_maps.Settings(), learned)


def test_value_by_hand():
    ours = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])  # two channels, one by two places
    assert loss(ours, torch.zeros_like(ours)).item() == pytest.approx(14 / 4, rel=1e-6)


def test_gradient_is_twice_the_difference_over_all():
    ours, theirs = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 3, 4, 4)
    loss(ours, theirs).backward()
    assert torch.allclose(ours.grad, 2 * (ours.detach() - theirs) / ours.numel(), atol=1e-6)


def test_of_stages_whose_channels_differ_a_projection_is_learned():
    student = {**SHAPE, "channels": 1, "channels.1": 1}
    learned = feature_maps.build(feature_maps.Settings(), student, SHAPE)
    assert {name: tuple(one.shape) for name, one in learned.named_parameters()} == {
        "feature_1.weight": (3, 1, 1, 1)
    }
    ours, theirs = torch.randn(2, 2, 3, 3), torch.randn(2, 2, 3, 3)
    assert torch.equal(loss(ours, theirs, learned), loss(ours, theirs))


def test_the_larger_is_averaged_down():
    ours, theirs = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]]), torch.tensor([[[[4.0]]]])
    assert loss(ours, theirs).item() == 0 == loss(theirs, ours).item()


def test_stages_can_be_told():
    assert feature_maps.needs(feature_maps.Settings(), SHAPE, SHAPE) == ["feature.0", "feature.1"]
    assert feature_maps.needs(feature_maps.Settings(stages=(1,)), SHAPE, SHAPE) == ["feature.1"]
    with pytest.raises(JobError, match=r"feature_maps\.stages: expected 0 to 1, got 2"):
        feature_maps.needs(feature_maps.Settings(stages=(2,)), SHAPE, SHAPE)
