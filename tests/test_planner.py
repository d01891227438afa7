"""Plans: what is shared, what is in a key, and that test rows reach no stage that fits."""

import dataclasses
from pathlib import Path

import pytest

from edgedistill import job, planner, plugins, target
from edgedistill.builder.course import steps_of
from edgedistill.errors import JobError, ModelError, TargetError, TrainingError
from edgedistill.records import Source, Step
from edgedistill.store import keys
from edgedistill.train import pace, recipe

CONFIG = {
    "model_type": "bert",
    "num_hidden_layers": 6,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 100,
}
SHAPE = {"layers": 6, "hidden": 32, "heads": 4, "feed_forward": 64, "vocabulary": 100}


def facts(*, head=True, **changes):
    teacher = planner.Model(
        source=Source("model", "m" * 64, Path("m"), "teacher"),
        encoder_source=Source("encoder", "e" * 64, Path("e"), "teacher"),
        encoder={"max_length": 16},
        config=CONFIG,
        family="encoder",
        shape=SHAPE,
        has_head=head,
    )
    host = planner.Host(
        threads=1, dtype="float32", device="cpu", instructions="x86-64+vnni", opset=17, ir=8
    )
    values = {
        "task": "text-classification",
        "metric": "accuracy",
        "labels": ("a", "b"),
        "rows": {"train": 640, "validation": 50, "test": 50},
        "splits": {
            name: Source("rows", name[0] * 64, Path(name), name)
            for name in ("train", "validation", "test")
        },
        "teacher": teacher,
        "host": host,
        "recipe": recipe.read("logits"),
    }
    return planner.Facts(**{**values, **changes})


def plan(*, head=True, known=None, on="phone", **names):
    asked = job.named(target="phone", model="m", data="d", **names)
    found = target.with_limits(target.load(on), asked.limits)
    return planner.propose(asked, found, facts(head=head, **(known or {})))


def steps_named(made, stage):
    return [step for step in steps_of(made.rows()) if step.stage == stage]


def losses_of(made):
    row = next(row for row in made.candidates if row.name == "student 2x32 int8")
    return row.training.settings["losses"]


def sources(step, kind):
    found = set()
    for each in step.inputs.values():
        if isinstance(each, Source):
            found |= {each.name} if each.kind == kind else set()
        else:
            found |= sources(each, kind)
    return found


@pytest.mark.parametrize(("head", "prune"), [(True, None), (False, "0.5")])
def test_no_path_leads_from_test_into_a_stage_that_fits(head, prune):
    made = plan(head=head, prune=prune)
    for step in steps_of(made.rows()):
        if "test" in sources(step, "rows"):
            assert step.stage in ("encode", "evaluate"), step
    fitted = [step for step in steps_of(made.rows()) if step.stage == "distill"]
    assert fitted and all("train" in sources(step, "rows") for step in fitted)


MORE = {
    "rows": {"train": 640, "validation": 50, "test": 50, "unlabelled": 320},
    "splits": {
        name: Source("rows", name[0] * 64, Path(name), name)
        for name in ("train", "validation", "test", "unlabelled")
    },
}


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


OWN = {
    "rows": {**MORE["rows"], "own_train": 32, "own_validation": 8, "own_test": 8},
    "splits": {
        **MORE["splits"],
        **{
            name: Source("rows", name[4:6] * 32, Path(name), name)
            for name in ("own_train", "own_validation", "own_test")
        },
    },
}


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


def usual(row):
    return row.name.endswith(" int8")


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
    assert count == {"label": 2, "encode": 4}  # rows and made rows; train, made, validation, test


def test_a_student_of_a_smaller_vocabulary_reads_rows_by_its_own_encoder():
    made = plan(student=["2", "2x32v60", "3v60"])
    names = [row.name for row in made.candidates if row.role == "candidate" and usual(row)]
    assert names == ["student 2x32 int8", "student 2x32v60 int8", "student 3x32v60 int8"]
    (fold,) = steps_named(made, "fold")
    assert fold.settings["vocabulary"] == 60
    assert sources(fold, "rows") == {"train"}
    count = {stage: len(steps_named(made, stage)) for stage in ("label", "encode")}
    assert count == {"label": 2, "encode": 8}  # shared by students of one vocabulary
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


def test_no_step_that_fits_a_smaller_vocabulary_sees_test_rows():
    for step in steps_of(plan(student="2v60").rows()):
        if "test" in sources(step, "rows"):
            assert step.stage in ("encode", "evaluate"), step


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


def test_wrong_students_schemes_and_kinds():
    with pytest.raises(ModelError, match="expected 1 to 6"):
        plan(student="9")
    with pytest.raises(JobError, match="did you mean 'dynamic_int8'"):
        plan(quantize="dynamic_in8")
    with pytest.raises(JobError, match="did you mean 'masked'"):
        plan(settings={"distill.made": "maskd"})
    with pytest.raises(JobError, match="asked for twice"):
        plan(student=["2", "2x32"])


def test_a_file_that_is_no_scheme_is_told_what_it_lacks(tmp_path):
    file = tmp_path / "halves.py"
    file.write_text('"""Halves."""\nPRECISION = "int4"\n\ndef valid(*told):\n    return None\n')
    with pytest.raises(JobError, match="is no quantization scheme: it lacks Settings, CALIBRATES"):
        plan(quantize=str(file), allow_code=True)


def test_two_schemes_of_one_name_for_their_rows_are_told_apart_or_refused(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        source = Path(plugins.find("schemes", "float16").__file__).read_text()
        (tmp_path / folder / "mine.py").write_text(source)
    both = [str(tmp_path / folder / "mine.py") for folder in ("one", "two")]
    with pytest.raises(JobError, match="two would have rows called 'fp16 mine': rename"):
        plan(quantize=both, allow_code=True)
    beside = plan(quantize=[both[0], "float16"], allow_code=True).candidates
    assert {"student 2x32 fp16", "student 2x32 fp16 mine"} <= {row.name for row in beside}


def test_float16_is_tried_only_when_it_is_named():
    assert not [row for row in plan().candidates if row.scheme == "float16"]
    named = plan(quantize="float16").candidates
    assert {row.scheme for row in named} == {"float16"}
    assert "student 2x32 fp16" in [row.name for row in named]


def test_the_graph_of_single_rows_is_for_targets_that_run_one():
    exports = steps_named(plan(), "export")
    assert all(step.settings["single"] for step in exports)
    whole = steps_named(plan(settings={"export.single": False}), "export")
    assert not any(step.settings["single"] for step in whole)
    phone = target.load("phone")
    runtime = dataclasses.replace(phone.runtime, batch=4)
    four = dataclasses.replace(phone, runtime=runtime)
    several = planner.propose(job.named(target="phone", model="m", data="d"), four, facts())
    assert not any(step.settings["single"] for step in steps_named(several, "export"))


def test_without_int8_the_float_student_is_all_there_is():
    made = plan(quantize="none")
    assert made.candidates == ()
    assert [row.name for row in made.beside if row.role == "control"] == [
        "control 2x32 fp32",
        "control 3x32 fp32",
    ]


def network(**names):
    """Plan for a ResNet."""
    resnet = {
        "model_type": "resnet",
        "num_channels": 1,
        "embedding_size": 16,
        "hidden_sizes": [16, 32],
        "depths": [2, 2],
        "layer_type": "basic",
    }
    family = plugins.find("families", "resnet")
    told = facts(task="image-classification", recipe=recipe.read(names.pop("recipe", "logits")))
    teacher = dataclasses.replace(
        told.teacher, config=resnet, family="resnet", shape=family.shape(resnet), encoder={}
    )
    found = target.load("phone")
    return planner.propose(
        job.named(target="phone", model="m", data="d", **names),
        found,
        dataclasses.replace(told, teacher=teacher),
    )


def test_convolutions_get_static_int8_and_transformers_dynamic_and_static():
    def words(made):
        rows = [row for row in made.candidates if not row.unaware]
        return {row.scheme: row.name.partition("int8")[1:] for row in rows}

    assert words(network()) == {"static_qdq": ("int8", "")}
    both = {"dynamic_int8": ("int8", ""), "static_qoperator": ("int8", " static")}
    assert words(plan()) == both
    assert words(plan(quantize="static_qoperator")) == {"static_qoperator": ("int8", " static")}
    named = words(plan(quantize=["auto", "static_qdq"]))
    assert named == {**both, "static_qdq": ("int8", " qdq")}


def test_where_the_target_batches_static_is_tried_alone_and_dynamic_can_be_named(tmp_path):
    batched = tmp_path / "batched.toml"
    text = (Path(target.__file__).parents[1] / "targets" / "phone.toml").read_text()
    told = text.replace('"phone"', '"batched"').replace("batch = 1", "batch = 8")
    batched.write_text(told.replace('aliases = ["mobile"]\n', ""))
    assert {row.scheme for row in plan(on=str(batched)).candidates} == {"static_qoperator"}
    named = plan(on=str(batched), quantize="dynamic_int8")
    assert {row.scheme for row in named.candidates} == {"dynamic_int8"}


# ---------------------------------------------------------------- what is wished of losses


def test_losses_of_the_job_lie_over_the_recipes_loss_by_loss():
    made = plan(settings={"distill.losses.soft_labels.weight": "2"})
    assert losses_of(made) == {"soft_labels": {"weight": 2.0}, "hard_labels": {"weight": 1.0}}
    made = plan(settings={"distill.losses.soft_labels.weight": "[1, 0]"})
    assert losses_of(made)["soft_labels"] == {"weight": [1.0, 0.0]}
    made = plan(settings={"distill.losses.hard_labels.smoothing": "0.1"})
    assert losses_of(made)["hard_labels"] == {"weight": 1.0, "smoothing": 0.1}
    control = next(row for row in made.beside if row.role == "control")
    assert control.training.settings["losses"] == {"hard_labels": {"weight": 1.0, "smoothing": 0.1}}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("losses.soft_label.weight", 1, "did you mean 'soft_labels'"),
        ("losses.soft_labels.wieght", 1, "did you mean 'weight'"),
        ("losses.soft_labels.temperature", -1, "out of range"),
        ("losses.soft_labels.weight", "much", "expected a number or"),
        ("losses.soft_labels", 1, "expected settings such as weight"),
        ("losses", 1, "expected losses by name"),
        ("copies", 0, "copies: 0 is out of range"),
        ("epochs", "many", "expected a number"),
        ("metric", "acuracy", "did you mean 'accuracy'"),
        ("family", "encodr", "did you mean 'encoder'"),
        ("device", "gpu", "is not one of its values"),
    ],
)
def test_wrong_settings_of_distill_are_found_by_the_plan(name, value, says):
    with pytest.raises(JobError, match=says):
        plan(settings={f"distill.{name}": value})


def test_a_loss_that_the_task_does_not_list_is_refused(monkeypatch):
    task = plugins.find("tasks", "text-classification")
    monkeypatch.setattr(task, "LOSSES", ("hard_labels",))
    with pytest.raises(JobError, match="'soft_labels' makes no sense for text-classification"):
        plan()


def test_without_a_loss_that_counts_there_is_no_plan():
    with pytest.raises(TrainingError, match="no loss"):
        plan(settings={"distill.alpha": 1, "distill.losses.soft_labels.weight": 0})


def test_a_setting_of_one_scheme_reaches_that_one_alone():
    made = plan(settings={"quantize.scheme_settings.method": "percentile"})
    found = {
        step.settings["scheme"]: step.settings["scheme_settings"].get("method")
        for step in steps_named(made, "quantize")
    }
    assert found == {"dynamic_int8": None, "static_qoperator": "percentile"}


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
    assert steps_named(plan(settings={"quantize.rows": 8}), "quantize")[0].settings["rows"] == 8


def test_a_live_teacher_stands_by_where_a_loss_reads_inside_of_it(tmp_path):
    loss = tmp_path / "hidden.py"
    loss.write_text(
        "from edgedistill.losses.soft_labels import *\n"
        "def needs(settings, student_shape, teacher_shape):\n    return ('hidden.1',)\n"
    )
    made = plan(allow_code=True, settings={"distill.losses": {str(loss): {"weight": 1}}})
    row = next(row for row in made.candidates if row.role == "candidate")
    assert row.training.inputs["teacher.0"] is made.baseline.model
    with pytest.raises(JobError, match="--allow-code"):
        plan(settings={"distill.losses": {str(loss): {"weight": 1}}})


# ---------------------------------------------------------------- several teachers


def beside(name="other", tokenizer="f", **changes):
    told = facts().teacher
    return dataclasses.replace(
        told,
        source=Source("model", name[0] * 64, Path(name), name),
        encoder_source=Source("encoder", tokenizer * 64, Path(tokenizer), name),
        labels=("b", "a"),
        **changes,
    )


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


@pytest.mark.parametrize("weights", ["1", "1,1,1", "0,0"])
def test_weights_must_be_one_a_teacher(weights):
    with pytest.raises(JobError, match=r"weights for 2 teachers, or none above 0"):
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


def test_layers_that_can_not_be_are_found_by_the_plan():
    made = plan(settings={"distill.losses.hidden_states.map": "1,3"}, student="2")
    assert losses_of(made)["hidden_states"] == {"weight": 1.0, "map": [1, 3]}
    for name, value, says in (
        (
            "hidden_states.map",
            "1,6",
            r"hidden_states\.map: expected a layer of the teacher, 0 to 5",
        ),
        ("hidden_states.map", "lats", "did you mean 'last'"),
        ("relations.heads", 5, "5 heads don't divide"),
        ("relations.teacher_layer", 6, "expected -6 to 5"),
        ("relations.of", "query,keys", "did you mean 'key'"),
    ):
        with pytest.raises(JobError, match=says):
            plan(settings={f"distill.losses.{name}": value}, student="2")


@pytest.mark.parametrize(
    ("name", "text", "image"),
    [
        ("features", {"hidden_states", "embeddings"}, {"feature_maps"}),
        ("attention", {"attention_maps"}, {"attention_transfer"}),
        ("hybrid", {"relations", "hidden_states"}, {"feature_maps", "attention_transfer"}),
    ],
)
def test_of_a_recipe_count_the_losses_that_find_what_they_read(name, text, image):
    both = (plan(known={"recipe": recipe.read(name)}), network(recipe=name))
    for made, inside in zip(both, (text, image), strict=True):
        trained = next(row.training for row in made.candidates if row.role == "candidate")
        assert set(trained.settings["losses"]) == {"soft_labels", "hard_labels", *inside}
        assert trained.inputs["teacher.0"] is made.baseline.model
        controls = [row.training for row in made.beside if row.role == "control"]
        assert controls and not any("teacher.0" in step.inputs for step in controls)


def test_a_recipe_that_finds_nothing_to_read_names_those_that_do():
    says = (
        r"recipe 'relations' reads nothing of such a model: 'relations' reads its layers, hidden, "
        r"heads; recipes that do: attention, features, hybrid, logits"
    )
    with pytest.raises(JobError, match=says):
        network(recipe="relations")


def test_a_loss_that_reads_what_the_models_have_not_is_refused():
    with pytest.raises(JobError, match="'feature_maps' reads stages, channels of both models"):
        plan(settings={"distill.losses.feature_maps.weight": 1})


# ---------------------------------------------------------------- the starter, controls, keys


def test_the_starters_settings_lie_under_the_jobs_for_students_and_controls():
    known = {"starter": {"distill": {"rate": 0.002, "batch": 32, "steps": 400}}}

    def trained(**settings):
        made = plan(known=known, settings={f"distill.{n}": v for n, v in settings.items()})
        rows = [row.training for row in made.rows() if row.training and not row.unaware]
        return {(step.settings["steps"], step.settings["rate"]) for step in rows}

    assert trained() == {(400, 0.002)}
    assert trained(steps=7, rate=0.1) == {(7, 0.1)}
    assert {steps for steps, _ in trained(epochs=100)} == {8000}  # of 640 rows and made ones


def test_a_float_student_has_a_control_of_its_own():
    made = plan()
    controls = [row for row in made.beside if row.role == "control"]
    assert [(row.name, row.scheme) for row in controls][:3] == [
        ("control 2x32 fp32", "none"),
        ("control 2x32 int8", "dynamic_int8"),
        ("control 2x32 int8 static", "static_qoperator"),
    ]
    assert len({id(row.training) for row in controls[:3]}) == 1


def test_where_the_host_saturates_quantize_and_evaluate_both_take_the_precaution():
    host = dataclasses.replace(facts().host, instructions="x86-64+avx2")
    precise = {"session.x64quantprecision": "1"}
    for known, expected in (({"host": host}, precise), ({}, {})):
        made = plan(known=known)
        row = next(row for row in made.candidates if row.role == "candidate")
        assert row.graph.settings["session"]["config"] == expected
        assert row.test.settings["session"]["config"] == expected
        assert made.baseline.test.settings["session"]["config"] == {}


def test_int8_that_saturates_on_a_processor_of_the_target_is_refused():
    wish = {"quantize.scheme_settings.reduce_range": "false"}
    assert plan(settings=wish).candidates
    with pytest.raises(JobError, match=r"is not exact on 'x86-64\+avx2'"):
        plan(on="server", settings=wish)


def test_a_target_whose_processors_no_scheme_serves_exactly_is_one_clear_line():
    strange = dataclasses.replace(target.load("phone"), processors=("arm64", "riscv64"))
    words = "dynamic_int8: its arithmetic is not proven exact on 'riscv64' (proven: arm64, "

    def on_strange(**names):
        return planner.propose(job.named(target="phone", model="m", data="d", **names), strange,
                               facts())  # fmt: skip

    made = on_strange()
    (said,) = [note for note in made.notes if note.startswith("no int8: ")]
    assert words in said and "\n" not in said
    assert {row.scheme for row in made.rows()} == {"none"}
    with pytest.raises(TargetError) as told:
        on_strange(quantize="dynamic_int8")
    assert str(told.value).startswith(f"no named scheme serves 'phone': {words}")


def test_a_seed_stands_only_in_keys_that_it_can_change():
    one, two = plan(seed=1), plan(seed=2)
    for before, after in zip(one.rows(), two.rows(), strict=True):
        same = keys.key(before.test) == keys.key(after.test)
        assert same == (before.role == "baseline"), before.name
        assert keys.key(before.test.inputs["rows.0"]) == keys.key(after.test.inputs["rows.0"])
    assert keys.key(one.baseline.train) != keys.key(two.baseline.train)  # drawn rows
    made = [step for step in steps_named(two, "encode") if step.settings["made"]]
    assert [step.settings["seed"] for step in made] == [2]


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


# ---------------------------------------------------------------- students of another family


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


# ---------------------------------------------------------------- where a student starts


def row_of(made, name):
    return next(row for row in made.rows() if row.name == name)


def test_a_long_training_is_preceded_by_a_choice_of_layers():
    made = plan(student="2", settings={"distill.steps": 5000})
    row, control = row_of(made, "student 2x32 int8"), row_of(made, "control 2x32 int8")
    chosen = row.training.inputs["student.0"]
    assert chosen.stage == "choose" and control.training.inputs["student.0"] is chosen
    names = ["0, 1 (first)", "0, 3 (uniform)", "0, 5 (ends)", "4, 5 (last)"]
    assert chosen.settings["names"] == names
    tried = [chosen.inputs[f"student.{index}"].settings["layers"] for index in range(4)]
    assert tried == [[0, 1], [0, 3], [0, 5], [4, 5]]
    for name in ("rate", "batch", "temperature", "encoder", "family"):
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


# ---------------------------------------------------------------- a teacher assistant


def test_an_assistant_learns_first_and_labels_the_rows_of_the_students():
    made = plan(student=["1", "static16"], settings={"student.assistant": "4"})
    helper = row_of(made, "assistant 4x32 fp32")
    assert helper.role == "assistant" and helper.training.settings["steps"]
    for name in ("student 1x32 int8", "student static16 int8"):
        training = row_of(made, name).training
        labels = [each for n, each in training.inputs.items() if n.startswith("labels.")]
        assert labels and all(each.inputs["teacher.0"] is helper.training for each in labels)
    of_teacher = helper.training.inputs["labels.0"]
    assert of_teacher.inputs["teacher.0"] is made.baseline.model
    control = row_of(made, "control 1x32 int8")
    assert not any(name.startswith("labels") for name in control.training.inputs)
    assert not any(row.role == "assistant" for row in plan(student="1").rows())


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


# ---------------------------------------------------------------- pruning


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
    assert step.settings["steps"] == pace.steps(640 * 5, epochs=1, batch=32)
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


# ---------------------------------------------------------------- distilled on with int8 simulated


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


@pytest.mark.parametrize(
    ("rows", "told", "copies"), [(640, {}, 3), (60_000, {}, 1), (60_000, {"distill.copies": 3}, 3)]
)
def test_of_many_rows_fewer_are_made_unless_the_job_says_how_many(rows, told, copies):
    known = {"rows": {"train": rows, "validation": 50, "test": 50}}
    mine = recipe.read("logits")
    mine = dataclasses.replace(mine, settings={**mine.settings, "copies": 3})
    steps = steps_named(plan(known={**known, "recipe": mine}, settings=told), "encode")
    (made,) = [step.settings["made"] for step in steps if step.settings["made"]]
    assert len(made) == 3 * copies


def test_no_step_of_a_plan_is_made_twice():
    steps = steps_of(plan().everyone())  # of facts whose train and test rows are alike
    found = [keys.key(step) for step in steps if step.stage != "encode"]
    assert len(found) == len(set(found))


def test_copies_vary_what_is_read_not_how_much():
    one, five = (
        next(row for row in plan(settings={"distill.copies": count}).candidates if row.training)
        for count in (1, 5)
    )
    assert one.training.settings["steps"] == five.training.settings["steps"]
    made = [step for step in steps_of([five]) if step.settings.get("made")]
    assert {len(step.settings["made"]) for step in made} == {15}


def test_how_long_and_whether_it_is_distilled_on_is_the_jobs_to_say():
    settings = {"quantize.aware_share": 0.5, "distill.steps": 90}
    steps = [row.training for row in plan(settings=settings).candidates if row.unaware]
    assert {step.settings["steps"] for step in steps} == {45}
    for told in ({"settings": {"quantize.aware": "never"}}, {"quantize": "float16"}):
        assert not [row for row in plan(**told).rows() if row.unaware]
    assert not [row for row in plan(prune="0.5", student="2").rows() if row.unaware]


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
