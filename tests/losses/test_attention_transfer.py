"""Attention transfer: a value worked by hand; channels and scale do not count."""

from __future__ import annotations

import math

import pytest
import torch

from edgedistill.losses import attention_transfer


def loss(ours, theirs):
    both = ({"feature.0": ours}, {"feature.0": theirs})
    return attention_transfer.loss(*both, {}, attention_transfer.Settings(), None)


def test_value_by_hand():
    # squares (1, 0) against (1, 1): at length 1 (1, 0) against (1, 1) / sqrt 2
    ours, theirs = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[1.0, -1.0]]]])
    assert loss(ours, theirs).item() == pytest.approx(2 - math.sqrt(2), rel=1e-5)


def test_neither_the_number_of_channels_nor_the_scale_counts():
    theirs = torch.randn(2, 3, 4, 4)
    assert loss(5 * torch.cat([theirs, -theirs], dim=1), theirs).item() == pytest.approx(
        0, abs=1e-6
    )


def test_it_is_a_mean_over_rows():
    ours, theirs = torch.randn(3, 2, 4, 4), torch.randn(3, 5, 4, 4)
    each = [loss(ours[row : row + 1], theirs[row : row + 1]).item() for row in range(3)]
    assert loss(ours, theirs).item() == pytest.approx(sum(each) / 3, rel=1e-5)
