"""Plans: what is pruned of a trained student, and its control."""

import pytest
from planning import plan

from edgedistill.builder.course import steps_of
from edgedistill.errors import JobError, ModelError
from edgedistill.store import keys


def test_a_pruned_student_stands_beside_the_one_it_was_pruned_from():
    made = plan(student="2", prune="0.5", settings={"distill.batch": 32, "prune.epochs": 1})
    rows = {row.name: row for row in made.rows()}
    small, before = rows["pruned 2x32 to 2x32x32 int8"], rows["student 2x32 int8"]
    assert small.unpruned == before.name and small.parent == "pruned 2x32 to 2x32x32 fp32"
    assert rows[small.parent].unpruned == "student 2x32 fp32"
    assert small.shape == {**before.shape, "feed_forward": 32}
    step = small.training
    assert step.stage == "prune" and step.inputs["student.0"] is before.training
    alike = {name for name in before.training.inputs if name != "student.0"}
    assert alike == {name for name in step.inputs if name != "student.0"}
    assert step.settings["losses"] == before.training.settings["losses"]
    assert step.settings["batch"] == 32
    assert step.settings["steps"] == 640 * 4 // 32
    usual = plan(student="2", prune="0.5").candidates[-1].training
    assert usual.settings["steps"] == usual.inputs["student.0"].settings["steps"] // 2
    start = small.untrained.inputs["graph.0"].inputs["model.0"]
    assert start.stage == "initialize" and start.settings["shape"]["feed_forward"] == 32


def test_the_control_of_a_pruned_student_is_pruned_on_labels_alone():
    from edgedistill.builder.course import begun

    made = plan(student="2", prune="0.5")
    rows = {row.name: row for row in made.rows()}
    control = rows["control pruned 2x32 to 2x32x32 int8"]
    assert control.training.stage == "prune" and control.training.settings["alpha"] == 0.0
    assert not any(name.startswith("labels") for name in control.training.inputs)
    assert control.training.inputs["student.0"] is rows["control 2x32 int8"].training
    twin = rows["pruned 2x32 to 2x32x32 int8"]
    assert begun(control) is begun(twin) is begun(rows["student 2x32 int8"])
    assert control.shape == twin.shape
    assert control.training.settings["steps"] == twin.training.settings["steps"]


def test_a_loss_that_finds_no_more_what_it_reads_is_said_before_the_hour():
    told = {"student": "2", "recipe": "features"}
    told["settings"] = {"distill.losses.hidden_states.map": "2,5"}
    assert plan(**told, prune="0.5").candidates
    with pytest.raises(JobError, match=r"hidden_states\.map"):
        plan(**told, prune="layers=1")


def test_no_pruning_changes_no_key():
    alone = {"quantize.aware": "never"}
    keyed = [
        {keys.key(step) for step in steps_of(plan(prune=told, settings=alone).rows())}
        for told in (None, "none")
    ]
    more = {keys.key(step) for step in steps_of(plan(prune="0.5").rows())}
    assert keyed[0] == keyed[1] < more


def test_of_several_students_those_that_can_not_be_pruned_are_told():
    made = plan(student=["1", "2"], prune="layers=1")
    assert any(row.name == "pruned 2x32 to 1x32 int8" for row in made.rows())
    assert any("student 1x32 is not pruned" in note for note in made.notes)
    with pytest.raises(ModelError, match="leaves all of it"):
        plan(student="1", prune="layers=1")
