"""Outputs on another processor held against this one's."""

import numpy as np

from edgedistill import judge

HERE = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
SPREAD = float(np.median(HERE.max(1) - HERE.min(1)))


def test_rounding_is_no_difference():
    there = HERE + np.float32(0.004 * SPREAD)
    there[:8] += np.float32(0.05 * SPREAD)  # a tail
    found = judge.alike(HERE, there)
    assert found.reason is None and found.agreement == 100 and found.other == 4


def test_other_sums_are_told_even_where_the_answers_are_the_same():
    found = judge.alike(HERE, HERE * np.float32(1.02))
    assert found.agreement == 100 and "% of 200 rows are computed otherwise" in found.reason


def test_what_is_no_number_is_no_answer():
    there = HERE.copy()
    there[:20, 0] = np.nan
    assert judge.alike(HERE, there).reason == "10 % of 200 rows are computed otherwise there"


def test_other_answers_are_told_where_outputs_hardly_differ():
    flat = np.full((100, 4), 1.0, np.float32)
    flat[:, 3] = -100
    there = flat.copy()
    there[:5, 1] += 0.1
    assert judge.alike(flat, there).reason == "only 95.0 % of 100 rows are answered as here"
