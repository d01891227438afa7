"""What the teacher was worth: said with its interval, and plainly where it was worth nothing."""

from __future__ import annotations

import re

import jsonschema
import numpy as np
import pytest

from edgedistill import plugins, report
from edgedistill.judge import evidence
from edgedistill.records import Interval
from edgedistill.report import words

CASES = [
    (
        Interval(1.4, 0.9, 1.9),
        r"^The teacher was worth 1\.4 points, between 0\.9 and 1\.9: .*93\.9",
    ),
    (
        Interval(0.2, -0.3, 0.7),
        r"^Distillation did not measurably help: .* labels alone scores 93\.9, 0\.2 points less; "
        r"by these 4,500 test rows its gain lies between -0\.3 and 0\.7\.$",
    ),
    (
        Interval(0.0, -0.4, 0.4),
        r"^Distillation did not measurably help: .* scores 93\.9, the same; ",
    ),
    (Interval(-0.8, -1.3, -0.3), r"^Distillation did not help: .*, 0\.8 points more; "),
]


@pytest.mark.parametrize(("gain", "says"), CASES)
def test_every_face_says_it_in_one_sentence(invent, gain, says):
    made = invent(gain=gain)
    jsonschema.validate(made, report.schema())
    said = words.worth(made)
    assert re.search(says, said), said
    assert said in report.table(made) and said in words.summary(made)
    assert said.replace("-", "\\-") in report.markdown(made) or said in report.markdown(made)
    assert said in report.html(made)
    assert made["teacher_worth"]["test"]["low"] == gain.low


def test_without_a_control_nothing_is_said(invent):
    made = invent(gain=None)
    jsonschema.validate(made, report.schema())
    assert made["teacher_worth"] is None and not words.worth(made)
    older = {name: value for name, value in made.items() if name != "teacher_worth"}
    jsonschema.validate(older, report.schema())
    assert not words.worth(older) and report.html(older)


def test_a_student_that_is_not_the_chosen_one_is_named(invent):
    made = invent()
    made["chosen"] = "teacher int8"
    assert "worth 1.4 points (of student 2x384 int8), between" in words.worth(made)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_a_gain_is_paired_and_has_its_sign(metric):
    task = plugins.find("tasks", "text-classification")
    truth = np.arange(400) % 4
    right = np.eye(4)[truth]
    worse = right.copy()
    worse[:40] = np.roll(worse[:40], 1, axis=1)
    found = evidence.gain(right, worse, truth, task=task, metric=metric)
    assert 0 < found.low < found.value < found.high and found.value == pytest.approx(10, abs=0.5)
    other = evidence.gain(worse, right, truth, task=task, metric=metric)
    assert other == pytest.approx((-found.value, -found.high, -found.low))
    none = evidence.gain(right, right, truth, task=task, metric=metric)
    assert none.value == 0 and none.low <= 0 <= none.high
