"""A bundle is proven on the judged outputs before it ships."""

import numpy as np
import pytest

from edgedistill.builder import figures


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda outputs: outputs, None),
        (lambda outputs: outputs + 1e-5, None),  # rounding
        (lambda outputs: np.roll(outputs, 1, axis=0), "computed otherwise"),  # as many are right
        (lambda outputs: outputs[:, ::-1], "rightly"),
        (lambda outputs: outputs * np.nan, "computed otherwise"),
    ],
    ids=["same", "rounding", "exchanged", "reversed", "no numbers"],
)
def test_a_bundle_that_answers_otherwise_than_was_judged_is_told(change, said):
    outputs = np.tile(np.eye(4) * 5.0, (25, 1))
    truth = np.zeros(100, dtype=int)  # a quarter is right
    why = figures.unlike(outputs, change(outputs), truth)
    assert why is None if said is None else said in why
