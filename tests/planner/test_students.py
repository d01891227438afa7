"""Plans: the students that are tried, by shape, checkpoint and family."""

import dataclasses
from pathlib import Path

import pytest
from planning import facts, plan, sources, steps_named, usual

from edgedistill import plugins
from edgedistill.builder.course import steps_of
from edgedistill.errors import JobError, ModelError
from edgedistill.records import Source
from edgedistill.store import keys


def test_default_students_are_a_third_and_a_half_of_the_layers():
    made = plan()
    assert [row.name for row in made.candidates if not row.unaware] == [
        "teacher int8",
        "teacher int8 static",
        "student 2x32 int8",
        "student 2x32 int8 static",
        "student 3x32 int8",
        "student 3x32 int8 static",
    ]
    assert {row.role for row in made.beside} == {"student_fp32", "control"}


def test_students_share_the_teachers_labels_and_encodings():
    made = plan()
    steps = steps_of(made.rows())
    count = {stage: sum(step.stage == stage for step in steps) for stage in ("label", "encode")}
    # rows, made rows, validation; train, made, validation, test
    assert count == {"label": 3, "encode": 4}


def test_a_teacher_answers_the_validation_rows_too():
    made = plan()
    row = next(row for row in made.candidates if row.name == "student 2x32 int8")
    answers = row.training.inputs["answers.0"]
    assert answers.stage == "label" and sources(answers, "rows") == {"validation"}
    assert answers.inputs["rows.0"] is made.baseline.validation.inputs["rows.0"]
    estimated = keys.estimate_inputs(row.training).values()
    assert not any(each.stage == "label" for each in estimated), "minutes before the first line"
    control = next(row for row in made.beside if row.name.startswith("control"))
    assert not any(name.startswith("answers") for name in control.training.inputs)


def test_a_student_of_a_smaller_vocabulary_reads_rows_by_its_own_encoder():
    made = plan(student=["2", "2x32v60", "3v60"])
    names = [row.name for row in made.candidates if row.role == "candidate" and usual(row)]
    assert names == ["student 2x32 int8", "student 2x32v60 int8", "student 3x32v60 int8"]
    (fold,) = steps_named(made, "fold")
    assert fold.settings["vocabulary"] == 60
    assert sources(fold, "rows") == {"train"}
    count = {stage: len(steps_named(made, stage)) for stage in ("label", "encode")}
    assert count == {"label": 3, "encode": 8}  # shared by students of one vocabulary
    row = next(row for row in made.candidates if row.name == "student 2x32v60 int8")
    training = row.training
    for name in ("train.0", "train.1", "validation.0"):
        assert training.inputs[name].inputs["encoder.0"] is fold
    for index in (0, 1):  # the teacher labels its own encoding of the same rows
        own, theirs = training.inputs[f"train.{index}"], training.inputs[f"labels.{index}"]
        theirs = theirs.inputs["rows.0"]
        assert theirs.inputs["encoder.0"] is made.baseline.test.inputs["rows.0"].inputs["encoder.0"]
        assert theirs.inputs["rows.0"] == own.inputs["rows.0"]
        assert own.settings == theirs.settings
    assert training.inputs["student.0"].inputs["encoder.0"] is fold
    assert row.test.inputs["rows.0"].inputs["encoder.0"] is fold
    whole = next(row for row in made.candidates if row.name == "student 2x32 int8")
    assert whole.training.settings["rate"] == training.settings["rate"]


def test_wrong_students_schemes_and_kinds():
    with pytest.raises(ModelError, match="expected 1 to 6"):
        plan(student="9")
    with pytest.raises(JobError, match="did you mean 'dynamic_int8'"):
        plan(quantize="dynamic_in8")
    with pytest.raises(JobError, match="did you mean 'masked'"):
        plan(settings={"distill.made": "maskd"})
    with pytest.raises(JobError, match="asked for twice"):
        plan(student=["2", "2x32"])


def test_students_of_several_checkpoints_all_count_and_their_rows_differ():
    def other(content):
        source = Source("model", content * 64, Path("o"), "small")
        return dataclasses.replace(facts().teacher, source=source, has_head=False)

    known = {"students": {"a/small": other("a"), "b/small": other("b")}}
    made = plan(known=known, student=["2", "a/small", "b/small"])
    names = [row.name for row in made.candidates if row.role == "candidate" and usual(row)]
    assert names == ["student 2x32 int8", "student small 6x32 int8", "student small 6x32 #2 int8"]
    starts = {step.inputs["teacher.0"].hash[0] for step in steps_named(made, "initialize")}
    assert starts == {"m", "a", "b"}
    assert all(s.settings["labels"] == ["a", "b"] for s in steps_named(made, "initialize"))
    made = plan(known=known, settings={"student.from": ["teacher", "a/small"]})
    assert sum(row.role == "candidate" and usual(row) for row in made.candidates) == 3


def test_a_static_student_starts_from_the_teacher_and_trains_as_its_family_says():
    made = plan(student=["static16", "2"])
    row = next(row for row in made.candidates if row.name == "student static16 int8")
    start, training = row.training.inputs["student.0"], row.training
    assert start.settings["family"] == training.settings["family"] == "static"
    assert start.settings["shape"] == {"hidden": 16, "feed_forward": 32, "vocabulary": 100}
    family = plugins.find("families", "static")
    assert training.settings["embedding_rate"] == family.TRAINING["embedding_rate"]
    assert training.settings["rate"] == family.RATE["whole"]
    control = next(row for row in made.beside if row.name == "control static16 int8")
    for name in ("rate", "batch", "steps", "embedding_rate"):
        assert control.training.settings[name] == training.settings[name]
    other = next(row for row in made.candidates if row.name == "student 2x32 int8").training
    assert other.settings["embedding_rate"] == 0.1 and other.settings["family"] == "encoder"
    assert other.inputs["labels.0"] is training.inputs["labels.0"]
    told = plan(student="static16", settings={"distill.embedding_rate": 0.5, "distill.batch": 8})
    row = next(row for row in told.candidates if row.role == "candidate")
    assert (row.training.settings["embedding_rate"], row.training.settings["batch"]) == (0.5, 8)


def test_a_loss_that_reads_inside_can_not_be_held_against_another_family(tmp_path):
    loss = tmp_path / "hidden.py"
    loss.write_text(
        "from edgedistill.losses.soft_labels import *\n"
        "def needs(settings, student_shape, teacher_shape):\n    return ('hidden.1',)\n"
    )
    with pytest.raises(ModelError, match=r"reads hidden\.1 .* static16 is of another family"):
        plan(
            student="static16",
            allow_code=True,
            settings={"distill.losses": {str(loss): {"weight": 1}}},
        )


def test_a_static_student_can_have_a_smaller_vocabulary_too():
    made = plan(student="static16v60")
    row = next(row for row in made.candidates if row.role == "candidate")
    assert row.name == "student static16v60 int8"
    start = row.training.inputs["student.0"]
    assert start.inputs["encoder.0"].stage == "fold" and start.settings["shape"]["vocabulary"] == 60
