"""What losses read of a teacher: cached logits at once, the rest from a live one when asked for."""

from __future__ import annotations

import numpy as np
import pytest

from edgedistill.train.signals import Both


class Known:
    def read(self, indices, inputs):
        return {"logits": "cached"}


class Runs:
    def __init__(self):
        self.calls = 0

    def read(self, indices, inputs):
        self.calls += 1
        return {"logits": "live", "hidden.1": 1, "hidden.2": 2}


def test_a_live_teacher_runs_when_it_is_needed_and_once():
    live = Runs()
    found = Both(live, Known()).read(np.arange(2), {})
    assert found["logits"] == "cached" and live.calls == 0
    assert (found["hidden.2"], found["hidden.1"]) == (2, 1) and live.calls == 1
    assert found["logits"] == "cached", "of several teachers only the cached ones are the average"
    with pytest.raises(KeyError):
        found["hidden.3"]
