"""Plans: several teachers, and an assistant between a teacher and its students."""

import pytest
from planning import beside, plan, row_of, sources, steps_named

from edgedistill.builder.course import steps_of
from edgedistill.errors import JobError, ModelError
from edgedistill.store import keys


def test_each_teacher_reads_the_rows_in_its_own_encoding():
    other, like = beside(), beside("like", tokenizer="e")
    made = plan(known={"further": (other, like)}, settings={"label.weights": "2,1,1"})
    assert [one.weight for one in made.teachers] == [2, 1, 1]
    assert [one.labels for one in made.teachers] == [("a", "b"), ("b", "a"), ("b", "a")]
    for step in steps_named(made, "label"):
        rows = [step.inputs[f"rows.{index}"] for index in range(3)]
        assert [step.inputs[f"teacher.{index}"].name for index in range(3)] == [
            "teacher",
            "other",
            "like",
        ]
        assert rows[0] is rows[2] and rows[0] is not rows[1]
        assert rows[1].settings["made"] == rows[0].settings["made"]
        assert rows[1].inputs["rows.0"] is rows[0].inputs["rows.0"]
    held = [one.train.settings["rows"] for one in made.teachers]
    assert held == [256, 256, 256]
    assert {keys.key(one.validation) for one in made.teachers} <= {
        keys.key(step) for step in steps_of(made.everyone())
    }
    for step in steps_of(made.everyone()):
        if "test" in sources(step, "rows"):
            assert step.stage in ("encode", "evaluate")


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ("1", "1 weights for 2 teachers"),
        ("1,1,1", "3 weights for 2 teachers"),
        ("0,0", "none is above 0"),
    ],
)
def test_weights_must_be_one_a_teacher(weights, says):
    with pytest.raises(JobError, match=rf"label\.weights: {says}: the first is"):
        plan(known={"further": (beside(),)}, settings={"label.weights": weights})


def test_losses_that_read_inside_read_the_first_teacher_and_say_so(tmp_path):
    loss = tmp_path / "hidden.py"
    loss.write_text(
        "from edgedistill.losses.soft_labels import *\n"
        "def needs(settings, student_shape, teacher_shape):\n    return ('hidden.1',)\n"
    )
    told = {"distill.losses": {str(loss): {"weight": 1}}}
    made = plan(known={"further": (beside(),)}, allow_code=True, settings=told)
    assert any("read the first alone, 'teacher'" in note for note in made.notes)
    assert not any("read the first" in note for note in plan(known={"further": (beside(),)}).notes)


def test_an_assistant_that_can_not_be_is_named():
    with pytest.raises(ModelError, match=r"student\.assistant: a student of 9 layers"):
        plan(student="1", settings={"student.assistant": "9"})


def test_an_assistant_learns_first_and_labels_the_rows_of_the_students():
    made = plan(student=["1", "static16"], settings={"student.assistant": "4"})
    helper = row_of(made, "assistant 4x32 fp32")
    assert helper.role == "assistant" and helper.training.settings["steps"]
    for name in ("student 1x32 int8", "student static16 int8"):
        training = row_of(made, name).training
        labels = [
            each for n, each in training.inputs.items() if n.startswith(("labels.", "answers."))
        ]
        assert len(labels) == 3 and all(
            each.inputs["teacher.0"] is helper.training for each in labels
        )
    of_teacher = helper.training.inputs["labels.0"]
    assert of_teacher.inputs["teacher.0"] is made.baseline.model
    control = row_of(made, "control 1x32 int8")
    assert not any(name.startswith("labels") for name in control.training.inputs)
    assert not any(row.role == "assistant" for row in plan(student="1").rows())


def test_an_assistant_of_a_smaller_vocabulary_answers_rows_as_it_reads_them():
    made = plan(student="1", settings={"student.assistant": "4v60"})
    training = row_of(made, "student 1x32 int8").training
    (fold,) = steps_named(made, "fold")
    for name in ("labels.0", "labels.1", "answers.0"):
        assert training.inputs[name].inputs["rows.0"].inputs["encoder.0"] is fold


def test_losses_that_read_inside_read_the_assistant(tmp_path):
    loss = tmp_path / "hidden.py"
    loss.write_text(
        "from edgedistill.losses.soft_labels import *\n"
        "def needs(settings, student_shape, teacher_shape):\n    return ('hidden.0',)\n"
    )
    told = {"distill.losses": {str(loss): {"weight": 1}}, "student.assistant": "4"}
    made = plan(student="1", allow_code=True, settings=told)
    helper = row_of(made, "assistant 4x32 fp32")
    assert helper.training.inputs["teacher.0"] is made.baseline.model
    assert row_of(made, "student 1x32 int8").training.inputs["teacher.0"] is helper.training


def test_wrong_assistants():
    with pytest.raises(ModelError, match="expected 1 to 6"):
        plan(settings={"student.assistant": "9"})
    with pytest.raises(JobError, match="the teacher itself"):
        plan(settings={"student.assistant": "same"})
