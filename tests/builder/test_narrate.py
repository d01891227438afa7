"""What a step is for, in one line."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgedistill.builder import narrate
from edgedistill.records import Source, Step

TEACHER = Source("model", "ab", None, "my-checkpoint")  # type: ignore[arg-type]
ROW = SimpleNamespace(name="student 2x64 int8", role="candidate", unaware=None)


@pytest.mark.parametrize(
    ("layers", "told"),
    [([0], "layer 0"), ([0, 3], "layers 0, 3"), ([], "layers as the family says")],
)
def test_the_layers_that_start_a_student_are_one_or_several(layers, told):
    step = Step("initialize", {"layers": layers, "init": "teacher"}, {"teacher.0": TEACHER})
    line = narrate.SAID["initialize"](step, ROW, None)
    assert line == f"student 2x64 from my-checkpoint's {told}"


@pytest.mark.parametrize(("rounds", "told"), [(1, "1 round"), (3, "3 rounds")])
def test_rounds_of_pruning_are_one_or_several(rounds, told):
    step = Step("prune", {"steps": 1200, "rounds": rounds}, {})
    assert narrate.SAID["prune"](step, ROW, None) == f"student 2x64, 1,200 steps in {told}"
