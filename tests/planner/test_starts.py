"""Plans: which layers of the teacher a student starts from."""

import pytest
from planning import plan, row_of, steps_named

from edgedistill import planner, plugins
from edgedistill.builder.course import steps_of
from edgedistill.settings import names


def test_a_long_training_is_preceded_by_a_choice_of_layers():
    made = plan(student="2", settings={"distill.steps": 5000})
    row, control = row_of(made, "student 2x32 int8"), row_of(made, "control 2x32 int8")
    chosen = row.training.inputs["student.0"]
    assert chosen.stage == "choose" and control.training.inputs["student.0"] is chosen
    names = ["0, 1 (first)", "0, 3 (uniform)", "0, 5 (ends)", "4, 5 (last)"]
    assert chosen.settings["names"] == names
    tried = [chosen.inputs[f"student.{index}"].settings["layers"] for index in range(4)]
    assert tried == [[0, 1], [0, 3], [0, 5], [4, 5]]
    for name in ("rate", "batch", "temperature", "encoder", "family", "device", "dtype"):
        assert chosen.settings[name] == row.training.settings[name]
    assert chosen.inputs["labels.0"] is row.training.inputs["labels.0"]
    # what is measured before the hour is the family's own start, and needs no trial
    untrained = row.untrained.inputs["graph.0"].inputs["model.0"]
    assert untrained is chosen.inputs["student.0"] and untrained.stage == "initialize"


@pytest.mark.parametrize(
    ("student", "settings"),
    [
        ("2", {"distill.steps": 4799}),  # the trials would take more than a tenth
        ("2", {"student.choose": False}),
        ("2", {"initialize.layers": "0,3"}),
        ("2", {"student.init": "random"}),
        ("2", {"distill.alpha": 0}),  # nothing of the teacher to learn
        ("6", {}),
        ("same", {}),
        ("static16", {}),
    ],
)
def test_no_choice_where_it_can_not_pay_or_was_made(student, settings):
    made = plan(student=student, settings={"distill.steps": 5000, **settings})
    assert not steps_named(made, "choose")


def test_a_shorter_trial_pays_sooner():
    made = plan(student="1", settings={"distill.steps": 800, "choose.steps": 40})
    (chosen,) = steps_named(made, "choose")
    assert chosen.settings["names"] == ["0 (first)", "5 (last)"]
    assert chosen.settings["steps"] == 40


def test_a_trial_runs_where_the_training_does():
    host = planner.Host(1, "float32", "cpu", "x86-64+vnni", 17, 8, gpu_dtype="bfloat16")
    told = {"distill.steps": 5000, "distill.device": "cuda"}
    made = plan(known={"host": host}, student="2", settings=told)
    (chosen,) = steps_named(made, "choose")
    training = row_of(made, "student 2x32 int8").training
    for step in (chosen, training):
        assert (step.settings["device"], step.settings["dtype"]) == ("cuda", "bfloat16")
    labels = training.inputs["labels.0"]
    assert (labels.settings["device"], labels.settings["dtype"]) == ("cpu", "float32")
    named = plan(known={"host": host}, student="2", settings={**told, "distill.dtype": "float32"})
    assert row_of(named, "student 2x32 int8").training.settings["dtype"] == "float32"


def test_of_several_processes_one_tries_and_all_train():
    """Those beside it follow what has a `follow`, and wait meanwhile."""
    host = planner.Host(1, "float32", "cpu", "x86-64+vnni", 17, 8, 2)
    made = plan(known={"host": host}, student="2", prune="0.5", settings={"distill.steps": 5000})
    (chosen,) = steps_named(made, "choose")
    assert chosen.settings["processes"] == 1
    together = {
        step.stage for step in steps_of(made.rows()) if step.settings.get("processes", 1) > 1
    }
    assert together == {"distill", "prune"}
    for name in plugins.names("stages"):
        stage = plugins.find("stages", name)
        follows = hasattr(stage, "follow")
        assert follows == ("processes" in names(stage.Settings) and name != "choose"), name
