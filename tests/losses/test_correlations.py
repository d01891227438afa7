"""Correlations: values worked by hand; shift and scale of answers do not count."""

from __future__ import annotations

import pytest
import torch

from edgedistill.losses import correlations


def loss(ours, theirs, **told):
    settings = correlations.Settings(**{"temperature": 1.0, **told})
    return correlations.loss({"logits": ours}, {"logits": theirs}, {}, settings, None)


def logs(*rows):
    return torch.tensor(rows).log()


def test_rows_by_hand():
    # answers (.5 .3 .2) against (.2 .3 .5): centred (1, -.2, -.8) / 6 against (-.8, -.2, 1) / 6
    r = (-0.8 + 0.04 - 0.8) / (1 + 0.04 + 0.64)
    ours, theirs = logs((0.2, 0.3, 0.5)), logs((0.5, 0.3, 0.2))
    assert loss(ours, theirs, labels=0.0).item() == pytest.approx(1 - r, rel=1e-5)
    assert loss(ours, theirs, labels=0.0, rows=3.0).item() == pytest.approx(3 * (1 - r), rel=1e-5)


def test_labels_by_hand():
    # two labels over two rows: both fall where the teacher's rise, so r is -1 for each
    ours, theirs = logs((0.6, 0.4), (0.3, 0.7)), logs((0.2, 0.8), (0.9, 0.1))
    assert loss(ours, theirs, rows=0.0).item() == pytest.approx(2.0, rel=1e-5)


def test_temperature_squared_stands_before_it():
    ours, theirs = logs((0.2, 0.3, 0.5)), logs((0.5, 0.3, 0.2))
    cold = loss(ours / 1.0, theirs).item()
    assert loss(3 * ours, 3 * theirs, temperature=3.0).item() == pytest.approx(9 * cold, rel=1e-5)


def test_answers_that_differ_in_scale_alone_lose_nothing():
    theirs = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]])
    ours = 1 / 3 + 0.25 * (theirs - 1 / 3)  # flatter, in the same proportions
    assert loss(ours.log(), theirs.log(), labels=0.0).item() == pytest.approx(0, abs=1e-5)


def test_one_row_says_nothing_of_labels():
    ours = torch.randn(1, 4, requires_grad=True)
    loss(ours, torch.randn(1, 4), rows=0.0).backward()
    assert ours.grad.abs().max() == 0
