"""Plans: which rows a step reads, and that test rows reach no stage that fits."""

import dataclasses

import pytest
from planning import MORE, OWN, plan, sources, steps_named

from edgedistill.builder.course import steps_of
from edgedistill.errors import JobError
from edgedistill.train import recipe


@pytest.mark.parametrize(("head", "prune"), [(True, None), (False, "0.5")])
def test_no_path_leads_from_test_into_a_stage_that_fits(head, prune):
    made = plan(head=head, prune=prune)
    for step in steps_of(made.rows()):
        if "test" in sources(step, "rows"):
            assert step.stage in ("encode", "evaluate"), step
    fitted = [step for step in steps_of(made.rows()) if step.stage == "distill"]
    assert fitted and all("train" in sources(step, "rows") for step in fitted)


def test_unlabelled_rows_reach_the_student_through_the_teacher_and_never_the_control():
    made = plan(known=MORE, settings={"distill.made": "joined", "distill.epochs": 100})
    row = next(row for row in made.candidates if row.role == "candidate")
    inputs = row.training.inputs
    read = [(sources(inputs[f"train.{n}"], "rows"), inputs[f"train.{n}"].settings["made"])
            for n in range(4)]  # fmt: skip
    assert read == [
        ({"train"}, []),
        ({"unlabelled"}, []),
        ({"train"}, ["joined"] * 3),
        ({"unlabelled"}, ["joined"] * 3),
    ]
    for n in range(4):
        assert inputs[f"labels.{n}"].inputs["rows.0"] is inputs[f"train.{n}"]
    assert row.training.settings["steps"] == 100 * (640 + 320) * 2 // 64
    control = next(each for each in made.beside if each.role == "control").training
    assert sources(control, "rows") == {"train", "validation"}
    assert control.settings["steps"] == row.training.settings["steps"]
    for step in steps_of(made.rows()):
        if "unlabelled" in sources(step, "rows"):
            assert step.stage not in ("finetune",), step
        if step.stage == "quantize":
            assert sources(step.inputs["train.0"], "rows") == {"train"}, "never calibrated on"


def test_own_rows_are_read_by_every_training_as_often_as_their_share_asks():
    asked = {"distill.made": "joined", "distill.epochs": 100, "data.own": "o"}
    made = plan(known=OWN, head=False, settings=asked)
    row = next(row for row in made.candidates if row.role == "candidate")
    training, inputs = row.training, row.training.inputs
    names = [min(sources(inputs[f"train.{n}"], "rows")) for n in range(6)]
    assert names == ["train", "unlabelled", "own_train"] * 2
    assert training.settings["repeats"] == [1, 1, 13] * 2  # 416 of 960 + 416: 0.30
    assert training.settings["steps"] == 100 * 2 * (960 + 13 * 32) // 64
    assert sources(inputs["validation.1"], "rows") == {"own_validation"}
    assert not any(name.startswith("answers.") for name in inputs), "it may err on own rows"
    control = next(each for each in made.beside if each.role == "control").training
    assert [sources(control.inputs[f"train.{n}"], "rows") for n in range(2)] == [
        {"train"},
        {"own_train"},
    ]
    assert control.settings["repeats"] == [1, 9]  # 288 of 640 + 288: 0.31
    head = next(iter(steps_named(made, "finetune")))
    assert head.settings["repeats"] == [1, 9] and "validation.1" in head.inputs
    for step in steps_of(made.rows()):
        if sources(step, "rows") & {"own_test", "test"}:
            assert step.stage in ("encode", "evaluate"), step
        if step.stage == "quantize":
            assert sources(step.inputs["train.0"], "rows") == {"train"}
    for each in made.rows():
        assert set(each.own) == {"own_validation", "own_test"}


def test_without_own_rows_no_training_repeats_any():
    for step in steps_named(plan(head=False), "distill") + steps_named(
        plan(head=False), "finetune"
    ):
        assert step.settings["repeats"] == []
    assert not any(row.own for row in plan().rows())


def test_kinds_that_read_the_teachers_weights_get_them_and_no_other_row_does():
    made = plan(settings={"distill.made": "masked,replaced"})
    encoded = steps_named(made, "encode")
    assert {bool(each.settings["made"]) for each in encoded} == {True, False}
    for each in encoded:
        reads = "replaced" in each.settings["made"]
        assert ("model.0" in each.inputs) == reads
        assert not reads or each.inputs["model.0"].hash == "m" * 64
    plain = plan(settings={"distill.made": "masked,ngrams"})
    assert not any("model.0" in each.inputs for each in steps_named(plain, "encode"))


def test_no_step_that_fits_a_smaller_vocabulary_sees_test_rows():
    for step in steps_of(plan(student="2v60").rows()):
        if "test" in sources(step, "rows"):
            assert step.stage in ("encode", "evaluate"), step


@pytest.mark.parametrize(
    ("rows", "told", "copies"), [(640, {}, 3), (60_000, {}, 1), (60_000, {"distill.copies": 3}, 3)]
)
def test_of_many_rows_fewer_are_made_unless_the_job_says_how_many(rows, told, copies):
    known = {"rows": {"train": rows, "validation": 50, "test": 50}}
    mine = recipe.read("logits")
    mine = dataclasses.replace(mine, settings={**mine.settings, "copies": 3})
    steps = steps_named(plan(known={**known, "recipe": mine}, settings=told), "encode")
    (made,) = [step.settings["made"] for step in steps if step.settings["made"]]
    assert len(made) == 5 * copies


def test_more_kinds_vary_what_is_read_and_fewer_than_three_how_much():
    many = {"rows": {"train": 60_000, "validation": 50, "test": 50}}
    one, three, five = (
        next(
            row.training.settings["steps"]
            for row in plan(known=many, settings={"distill.made": kinds}).candidates
            if row.training
        )
        for kinds in ("masked", "masked,joined,halves", "masked,joined,halves,ngrams,misspelt")
    )
    assert 2 * one == three == five


def test_copies_vary_what_is_read_not_how_much():
    one, five = (
        next(row for row in plan(settings={"distill.copies": count}).candidates if row.training)
        for count in (1, 5)
    )
    assert one.training.settings["steps"] == five.training.settings["steps"]
    made = [step for step in steps_of([five]) if step.settings.get("made")]
    assert {len(step.settings["made"]) for step in made} == {25}


def test_no_made_rows_beside_made_rows_is_refused():
    assert plan(settings={"distill.made": "none"}).baseline
    with pytest.raises(JobError, match="'none' stands alone"):
        plan(settings={"distill.made": "none,masked"})
