"""Comparing: a graph that differs anywhere is an error, never a warning."""

from __future__ import annotations

import numpy as np
import pytest

from edgedistill.errors import ExportError
from edgedistill.graph import compare


def feeds(*shapes):
    return [{"x": np.ones(shape, np.float32)} for shape in shapes]


def double(feed):
    return 2 * feed["x"].sum(axis=1, keepdims=True) * np.float32([1, -1])


FEEDS = feeds((2, 3), (1, 5), (4, 2))


def test_the_same_holds_and_says_how_well():
    facts = compare.hold(double, lambda feed: double(feed) * np.float32(1 + 1e-5), FEEDS)
    assert facts["shapes"] == [[1, 5], [2, 3], [4, 2]]
    assert 0 < facts["difference"] < facts["tolerance"] == 1e-3


@pytest.mark.parametrize("factor", (1.01, 0.0, np.nan, np.inf))
def test_a_difference_at_one_shape_is_an_error(factor):
    def other(feed):
        wrong = np.float32(factor if feed["x"].shape == (4, 2) else 1)
        return double(feed) * wrong

    with pytest.raises(ExportError, match=r"at x\[4, 2\]"):
        compare.hold(double, other, FEEDS)


def test_too_few_shapes_are_an_error():
    with pytest.raises(ExportError, match="needs 3 shapes"):
        compare.hold(double, double, feeds((2, 3), (2, 3), (1, 2)))


def test_another_shape_of_logits_is_an_error():
    with pytest.raises(ExportError, match=r"shape \[2, 1\]"):
        compare.hold(double, lambda feed: double(feed)[:, :1], FEEDS)


def test_likeness_of_chance_is_visible():
    right = np.eye(4, dtype=np.float32)
    like = compare.likeness(right, np.roll(right, 1, axis=1))
    assert (like.agreement_points, like.cosine, like.difference) == (0.0, 0.0, 1.0)
    same = compare.likeness(right, right)
    assert (same.agreement_points, same.cosine, same.rows) == (100.0, 1.0, 4)
