"""Decoupled labels: values and gradients by hand, the tie to soft labels, rows without a truth."""

from __future__ import annotations

import math

import pytest
import torch

from edgedistill.losses import decoupled_labels, soft_labels


def loss(ours, theirs, truth=None, **told):
    settings = decoupled_labels.Settings(**{"temperature": 1.0, **told})
    batch = {} if truth is None else {"truth": torch.tensor(truth)}
    return decoupled_labels.loss({"logits": ours}, {"logits": theirs}, batch, settings, None)


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_value_by_hand():
    # teacher 1/2, 3/8, 1/8; student 1/4, 3/8, 3/8; the target is the first
    theirs, ours = (torch.tensor([row]).log() for row in ((4.0, 3.0, 1.0), (2.0, 3.0, 3.0)))
    target = 1 / 2 * math.log(2) + 1 / 2 * math.log(2 / 3)
    others = 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)
    found = loss(ours, theirs, [0], target=2.0, others=5.0).item()
    assert found == pytest.approx(2 * target + 5 * others, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_labels_are_its_parts_the_second_by_what_the_teacher_leaves(temperature):
    ours, theirs = drawn(1, 7, seed=0), drawn(1, 7, seed=1)
    left = 1 - (theirs / temperature).softmax(-1)[0, 3].item()
    told = soft_labels.Settings(temperature=temperature)
    soft = soft_labels.loss({"logits": ours}, {"logits": theirs}, {}, told, None).item()
    found = loss(ours, theirs, [3], temperature=temperature, target=1.0, others=left).item()
    assert found == pytest.approx(soft, rel=1e-5)


def test_a_row_without_truth_takes_the_teachers_answer_as_its_target():
    ours, theirs = drawn(3, 5, seed=2), drawn(3, 5, seed=3)
    best = theirs.argmax(-1).tolist()
    other = [(best[0] + 1) % 5, *best[1:]]
    assert torch.equal(loss(ours, theirs, [-1, -1, -1]), loss(ours, theirs, best))
    assert torch.equal(loss(ours, theirs), loss(ours, theirs, best))
    assert torch.equal(loss(ours, theirs, [other[0], -1, -1]), loss(ours, theirs, other))
    assert not torch.equal(loss(ours, theirs, other), loss(ours, theirs, best))


def test_two_labels_have_no_others():
    ours, theirs = drawn(4, 2, seed=4), drawn(4, 2, seed=5)
    told = soft_labels.Settings(temperature=1.0)
    soft = soft_labels.loss({"logits": ours}, {"logits": theirs}, {}, told, None).item()
    assert loss(ours, theirs, [0, 1, 0, 1]).item() == pytest.approx(soft, rel=1e-5)


def test_gradient_of_each_part():
    """Target: T (p - p*) there, spread over the rest by what they hold; others: T (q - q*)."""
    ours, theirs = drawn(2, 5, seed=6).requires_grad_(), drawn(2, 5, seed=7)
    truth, heat = [3, 0], 2.0
    loss(ours, theirs, truth, temperature=heat, target=1.5, others=4.0).backward()
    p, its = ((each / heat).softmax(-1) for each in (ours.detach(), theirs))
    expected = torch.zeros(2, 5)
    for row, at in enumerate(truth):
        rest = [label for label in range(5) if label != at]
        q, other = (each[row, rest] / each[row, rest].sum() for each in (p, its))
        gap = p[row, at] - its[row, at]
        expected[row, at] = 1.5 * heat * gap / 2
        expected[row, rest] = heat * (4.0 * (q - other) - 1.5 * gap * q) / 2
    assert torch.allclose(ours.grad, expected, atol=1e-6)
