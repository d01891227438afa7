"""Plans: what is shared, what is in a key, what a control takes, and on how many threads."""

import dataclasses

import pytest
from planning import facts, plan, steps_named

from edgedistill import job, planner, target
from edgedistill.builder.course import steps_of
from edgedistill.errors import JobError, ModelError
from edgedistill.records import Step
from edgedistill.store import keys
from edgedistill.train import pace


def test_the_control_reads_no_teacher_and_takes_as_many_steps():
    made = plan()
    student = next(row for row in made.candidates if row.name == "student 2x32 int8")
    control = next(row for row in made.beside if row.name == "control 2x32 int8")
    assert control.training.settings["steps"] == student.training.settings["steps"]
    assert list(control.training.settings["losses"]) == ["hard_labels"]
    assert not any(name.startswith("labels") for name in control.training.inputs)
    for name in ("rate", "batch", "schedule", "average", "warmup", "dropout"):
        assert control.training.settings[name] == student.training.settings[name]


def test_a_model_without_a_head_is_finetuned_first():
    made = plan(head=False)
    head = made.baseline.model
    assert isinstance(head, Step) and head.stage == "finetune"
    width = made.baseline.shape["hidden"]
    assert head.settings["rate"] == pace.finetuning(width)
    slow = plan(head=False, settings={"finetune.rate": 1e-6}).baseline.model
    assert slow.settings["rate"] == 1e-6
    with pytest.raises(ModelError, match="no head"):
        plan(head=False, settings={"model.finetune": "never"})


def test_settings_reach_their_stage_and_change_just_what_stands_behind_it():
    before = {row.name: keys.key(row.test) for row in plan().rows()}
    after = {
        row.name: keys.key(row.test) for row in plan(settings={"distill.temperature": 2.0}).rows()
    }
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {
        f"student {shape} {word}"
        for shape in ("2x32", "3x32")
        for word in ("int8", "int8 static", "fp32", "int8 aware", "int8 static aware")
    }
    with pytest.raises(JobError, match="did you mean 'temperature'"):
        plan(settings={"distill.temprature": 2.0})
    with pytest.raises(JobError, match="out of range"):
        plan(settings={"distill.temperature": -2.0})


def test_no_step_leaves_anything_to_be_decided():
    for step in steps_of(plan(head=False).rows()):
        assert "auto" not in step.settings.values()
        assert "/" not in str({k: v for k, v in step.settings.items() if k != "task"})


def test_settings_of_stages_that_the_plan_does_without_are_checked_too():
    with pytest.raises(JobError, match=r"finetune\.rate"):
        plan(settings={"finetune.rate": "fast"})
    with pytest.raises(JobError, match="weights for 1 teacher"):
        plan(settings={"label.weights": "1,2"})
    with pytest.raises(JobError, match="starts from 2 layers of 0 to 5"):
        plan(settings={"initialize.layers": "0,1,6"})
    with pytest.raises(JobError, match="did you mean 'reduce_range'"):
        plan(settings={"quantize.scheme_settings.reduce_rang": True})
    with pytest.raises(JobError, match="did you mean 'percentile'"):
        plan(settings={"quantize.scheme_settings.percentil": 99})
    with pytest.raises(JobError, match="embeddings: 'auto' is not one of its values: known: int4"):
        plan(settings={"quantize.scheme_settings.embeddings": "auto"})
    assert steps_named(plan(settings={"quantize.rows": 8}), "quantize")[0].settings["rows"] == 8


def test_the_starters_settings_lie_under_the_jobs_for_students_and_controls():
    known = {"starter": {"distill": {"rate": 0.002, "batch": 32, "steps": 400}}}

    def trained(**settings):
        made = plan(known=known, settings={f"distill.{n}": v for n, v in settings.items()})
        rows = [row.training for row in made.rows() if row.training and not row.unaware]
        return {(step.settings["steps"], step.settings["rate"]) for step in rows}

    assert trained() == {(400, 0.002)}
    assert trained(steps=7, rate=0.1) == {(7, 0.1)}
    assert {steps for steps, _ in trained(epochs=100)} == {8000}  # of 640 rows and made ones
    assert {steps for steps, _ in trained(epochs=1)} == {80}, "so many, though rows are few"


def test_a_float_student_has_a_control_of_its_own():
    made = plan()
    controls = [row for row in made.beside if row.role == "control"]
    assert [(row.name, row.scheme) for row in controls][:3] == [
        ("control 2x32 fp32", "none"),
        ("control 2x32 int8", "dynamic_int8"),
        ("control 2x32 int8 static", "static_qoperator"),
    ]
    assert len({id(row.training) for row in controls[:3]}) == 1


def test_a_seed_stands_only_in_keys_that_it_can_change():
    one, two = plan(seed=1), plan(seed=2)
    for before, after in zip(one.rows(), two.rows(), strict=True):
        same = keys.key(before.test) == keys.key(after.test)
        assert same == (before.role == "baseline"), before.name
        assert keys.key(before.test.inputs["rows.0"]) == keys.key(after.test.inputs["rows.0"])
    assert keys.key(one.baseline.train) != keys.key(two.baseline.train)  # drawn rows
    made = [step for step in steps_named(two, "encode") if step.settings["made"]]
    assert [step.settings["seed"] for step in made] == [2]


def test_no_step_of_a_plan_is_made_twice():
    steps = steps_of(plan().everyone())  # of facts whose train and test rows are alike
    found = [keys.key(step) for step in steps if step.stage != "encode"]
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("told", "processes", "threads"),
    [
        ({}, 1, 2),
        ({"distill.threads": 3}, 1, 3),
        ({"distill.device": "cuda"}, 1, 5),
        ({}, 2, 5),
    ],
)
def test_a_student_and_its_control_share_the_threads(told, processes, threads):
    host = planner.Host(5, "float32", "cpu", "x86-64+vnni", 17, 8, processes)
    settings = {"student.assistant": "4", "quantize.aware": "never"} | told
    made = plan(head=False, known={"host": host}, settings=settings, student="2")
    found = {row.role: row.training.settings["threads"] for row in made.rows() if row.training}
    alone = told.get("distill.threads", 5)
    assert found == {"student_fp32": threads, "candidate": threads, "control": threads} | {
        "assistant": alone
    }
    stages = {step.stage: step.settings for step in steps_of(made.rows())}
    assert stages["finetune"]["threads"] == stages["label"]["threads"] == 5


def test_one_thread_is_one_for_each():
    host = planner.Host(1, "float32", "cpu", "x86-64+vnni", 17, 8)
    made = plan(known={"host": host})
    assert {row.training.settings["threads"] for row in made.rows() if row.training} == {1}


def test_a_shape_that_texts_do_not_fit_is_refused():
    phone = target.load("phone")
    asked = job.named(target="phone", model="m", data="d")

    def proposed(length):
        runtime = dataclasses.replace(phone.runtime, fixed=length)
        return planner.propose(asked, dataclasses.replace(phone, runtime=runtime), facts())

    assert proposed(16).baseline
    with pytest.raises(JobError, match=r"to 15 tokens, and texts .* 16: --set task.max_length=15"):
        proposed(15)
