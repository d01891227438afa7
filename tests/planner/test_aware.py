"""Plans: what is distilled on with int8 simulated."""

import pytest
from planning import plan


def test_a_student_and_its_control_are_distilled_on_with_the_weights_of_their_scheme():
    made = {row.name: row for row in plan(student="2").rows()}
    first, again = made["student 2x32 int8"], made["student 2x32 int8 aware"]
    assert again.unaware == first.name and again.parent == first.parent == "student 2x32 fp32"
    step = again.training
    assert step.inputs["student.0"] is first.training
    rest = {name: thing for name, thing in step.inputs.items() if name != "student.0"}
    assert rest == {n: each for n, each in first.training.inputs.items() if n != "student.0"}
    assert step is made["student 2x32 int8 static aware"].training
    changed = {n for n, v in step.settings.items() if v != first.training.settings[n]}
    assert changed == {"steps", "rate", "int8_largest"}
    assert step.settings["int8_largest"] == 127 and not first.training.settings["int8_largest"]
    assert step.settings["steps"] == round(0.15 * first.training.settings["steps"])
    assert step.settings["rate"] == pytest.approx(first.training.settings["rate"] / 10)
    control = made["control 2x32 int8 aware"].training
    assert control.settings["alpha"] == 0 and control.settings["steps"] == step.settings["steps"]
    assert control.inputs["student.0"] is made["control 2x32 int8"].training
    assert "control 2x32 fp32 aware" not in made
    server = {row.name: row for row in plan(student="2", on="server").rows()}
    trained = [row.training for name, row in server.items() if name.endswith("aware")]
    assert trained and {step.settings["int8_largest"] for step in trained} == {64}


def test_how_long_and_whether_it_is_distilled_on_is_the_jobs_to_say():
    settings = {"quantize.aware_share": 0.5, "distill.steps": 90}
    steps = [row.training for row in plan(settings=settings).candidates if row.unaware]
    assert {step.settings["steps"] for step in steps} == {45}
    for told in ({"settings": {"quantize.aware": "never"}}, {"quantize": "float16"}):
        assert not [row for row in plan(**told).rows() if row.unaware]
    assert not [row for row in plan(prune="0.5", student="2").rows() if row.unaware]
