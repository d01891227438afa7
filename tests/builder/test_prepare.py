"""Prepare: what is said, refused and decided before anything is planned."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest

import edgedistill
from edgedistill import job, planner, target
from edgedistill.builder.course import steps_of
from edgedistill.builder.prepare import prepare
from edgedistill.errors import JobError, ModelError
from edgedistill.store import Store

spec = importlib.util.spec_from_file_location("small", Path(__file__).parent / "small.py")
small = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a tiny teacher, rows and a target, and the names of a job."""
    folder = tmp_path_factory.mktemp("place")
    return folder, small.job(folder, head=True)


def asked(place, **more):
    names = {**place[1], **more}
    names["settings"] = {**place[1]["settings"], **more.get("settings", {})}
    return job.named(**names)


def prepared(place, *, store=None, **more):
    made = asked(place, **more)
    return prepare(made, target.load(made.target), store)


def told(found):
    return "\n".join(f"{heading}: {text}" for heading, text in found.lines)


# ---------------------------------------------------------------- code of strangers


@pytest.fixture
def stranger(tmp_path):
    """A loss of one's own that leaves a mark where it runs, and where the mark would lie."""
    mark = tmp_path / "it-ran"
    path = tmp_path / "own.py"
    path.write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
        "from edgedistill.losses.hard_labels import *\n"
    )
    recipe = tmp_path / "own.toml"
    recipe.write_text('[losses."own.py"]\nweight = 1\n[losses.soft_labels]\nweight = 1\n')
    return path, recipe, mark


@pytest.mark.parametrize("door", [edgedistill.plan, edgedistill.build])
def test_a_strangers_code_never_runs_unless_allowed(door, place, stranger):
    path, recipe, mark = stranger
    ways = [
        {"recipe": str(recipe)},
        {"settings": {"distill.losses": {str(path): {"weight": 1}}}},
        {"task": str(path)},
        {"quantize": str(path)},
        {"settings": {"evaluate.task": str(path)}},
        {"settings": {"initialize.family": str(path)}},
        {"settings": {"finetune.task": str(path)}},  # a stage that this plan does without
    ]
    for way in ways:
        names = {**place[1], **way, "settings": {**place[1]["settings"], **way.get("settings", {})}}
        with pytest.raises(JobError, match="--allow-code"):
            door(**names)
        assert not mark.exists(), way


def test_a_strangers_loss_is_planned_when_allowed(place, stranger):
    path, recipe, mark = stranger
    planned = edgedistill.plan(**{**place[1], "recipe": str(recipe), "allow_code": True})
    losses = [set(step.settings["losses"]) for step in steps_of(planned.plan.rows())
              if step.stage == "distill"]  # fmt: skip
    assert {str(path), "soft_labels"} in losses and mark.exists()


# ---------------------------------------------------------------- students from elsewhere


@pytest.fixture(scope="module")
def others(place):
    """Checkpoints to start students from: a headless DistilBERT, and configs alone."""
    folder, made = place[0] / "others", small.tiny()
    made.model(folder / "distil", "distilbert", labels=None, n_layers=2)
    for name, changes in {
        "config": {"num_hidden_layers": 1},
        "strange": {"vocab_size": 99},
    }.items():
        (folder / name).mkdir()
        config = json.loads((place[0] / "model" / "config.json").read_text())
        (folder / name / "config.json").write_text(json.dumps({**config, **changes}))
    shutil.copyfile(folder / "config" / "config.json", folder / "lone.json")
    return folder


def rows_of(place, found, **more):
    made = asked(place, **more)
    return planner.propose(made, target.load(made.target), found.facts)


def test_a_config_alone_wants_a_random_start_and_takes_the_teachers_encoder(
    place, others, tmp_path
):
    with pytest.raises(ModelError, match=r"--set student\.init=random"):
        prepared(place, student=str(others / "config"))
    more = {"settings": {"student.init": "random"}}
    with pytest.raises(ModelError, match="vocab_size is 99, the teacher's 50"):
        prepared(place, student=str(others / "strange"), **more)
    more["student"] = [str(others / "config"), str(others / "lone.json"), str(others / "distil")]
    store = Store(tmp_path / "store")
    found = prepared(place, store=store, **more)
    lone = found.facts.students[str(others / "lone.json")]
    assert lone.encoder_source.hash == found.facts.teacher.encoder_source.hash
    assert lone.encoder == found.facts.teacher.encoder and not lone.has_head
    plan = rows_of(place, found, **more)
    rows = {row.name: row for row in plan.candidates if row.role == "candidate"}
    assert [name for name in rows if name.endswith(" int8")] == [
        "student config 1x32 int8",
        "student lone 1x32 int8",
        "student distil 2x32 int8",
    ]
    row = rows["student lone 1x32 int8"]
    assert row.training.settings["rate"] == place[1]["settings"]["distill.rate"]
    graph = store.run(row.untrained.inputs["graph.0"])
    labels = json.loads((graph.path / "labels.json").read_text())
    assert labels == list(found.facts.labels) and (graph.path / "model.onnx").is_file()


def test_a_headless_checkpoint_trains_through_the_store(place, others, tmp_path):
    more = {"student": str(others / "distil"), "settings": {"distill.steps": 3}}
    store = Store(tmp_path / "store")
    plan = rows_of(place, prepared(place, store=store, **more), **more)
    row = next(row for row in plan.candidates if row.role == "candidate")
    for step in steps_of([dataclasses.replace(row, fixed=None)]):
        if step.stage != "quantize" and step.stage != "evaluate":
            made = store.run(step)
            assert made.path.is_dir()
    assert row.training.settings["family"] == "encoder"


# ---------------------------------------------------------------- what is told and decided


def test_private_shows_no_row(place):
    assert "label: " in told(prepared(place))
    assert "label: " not in told(prepared(place, private=True))


def test_outputs_without_names_are_shown_in_their_order(place, tmp_path):
    config = json.loads((place[0] / "model" / "config.json").read_text())
    shutil.copytree(place[0] / "model", tmp_path / "model")
    (tmp_path / "model" / "labels.json").unlink()
    for name in ("id2label", "label2id"):
        del config[name]
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    said = told(prepared(place, model=str(tmp_path / "model")))
    assert "LABEL_0    blue\n" in said and "LABEL_2    red\n" in said
    assert "LABEL_0" not in told(prepared(place))


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not say")
def test_training_takes_the_cores_that_the_process_may_use(place, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 7})
    names = {**place[1], "settings": {}}
    made = job.named(**names)
    assert prepare(made, target.load(made.target), None).facts.host.threads == 3
    assert prepared(place).facts.host.threads == 1  # as told


def test_a_recipe_that_is_wrong_is_said_before_the_rows_are_read(place, tmp_path):
    wrong = tmp_path / "mine.toml"
    wrong.write_text("[losses.hard_labels]\nweight = 1\n[optimisation]\nbtach = 2\n")
    with pytest.raises(JobError, match="did you mean 'batch'"):
        prepared(place, recipe=str(wrong), data="/nowhere")


def numbered(folder, out, labels):
    """Write the rows of a job with other labels, by name."""
    out.mkdir()
    for path in (folder / "rows").glob("*.csv"):
        text = path.read_text()
        for old, new in labels.items():
            text = text.replace(f",{old}\n", f",{new}\n")
        (out / path.name).write_text(text)
    return str(out)


def test_labels_that_are_numbers_are_those_of_the_models_outputs(place, tmp_path):
    names = small.tiny().LABELS
    rows = numbered(place[0], tmp_path / "rows", {name: n for n, name in enumerate(names)})
    found, whole = prepared(place, data=rows), prepared(place)
    assert found.facts.labels == whole.facts.labels == names
    for name, part in found.data.splits.items():
        assert list(part.truth) == list(whole.data.splits[name].truth)
    (note,) = [line for line in found.warnings if "numbers" in line]
    assert note.endswith("outputs: 0 is 'red', 1 is 'green', 2 is 'blue'")
    assert "label: red" in told(found) and not whole.warnings
    anew = prepared(place, data=rows, settings={"model.finetune": "always"})
    assert anew.facts.labels == ("0", "1", "2") and not anew.warnings
    few = numbered(place[0], tmp_path / "few", {"red": 0, "green": 1, "blue": 1})
    with pytest.raises(ModelError, match="the model has 'blue', for which there is no training"):
        prepared(place, data=few)
    other = numbered(place[0], tmp_path / "other", {"red": 1, "green": 2, "blue": 3})
    with pytest.raises(ModelError, match="the rows have '1', '2', '3', which the model has not"):
        prepared(place, data=other)


def test_a_model_whose_labels_are_numbers_keeps_them(place, tmp_path):
    model = small.tiny().model(tmp_path / "model", labels=("2", "1", "0"))
    labels = {"red": 0, "green": 1, "blue": 2}
    rows = numbered(place[0], tmp_path / "rows", labels)
    found = prepared(place, model=str(model), data=rows)
    assert found.facts.labels == ("2", "1", "0") and not found.warnings


def test_a_runtime_newer_than_any_that_is_known_is_said(place, tmp_path):
    text = (place[0] / "roomy.toml").read_text()
    for version, says in (("9.9", True), ("1.17", False), ("1.31.7", False)):
        path = tmp_path / "roomy.toml"
        path.write_text(text.replace('"1.17"', f'"{version}"'))
        warnings = prepared(place, target=str(path)).warnings
        assert any("onnxruntime 9.9, newer than any" in line for line in warnings) is says


# ---------------------------------------------------------------- several teachers


def test_further_teachers_need_a_head_and_the_same_labels(place, tmp_path):
    tiny = small.tiny()
    bare = tiny.model(tmp_path / "bare", labels=None)
    with pytest.raises(ModelError, match=r"the teacher 'bare' has no head .*: fine-tune it"):
        prepared(place, settings={"model.teachers": str(bare)})
    strange = tiny.model(tmp_path / "strange", labels=("red", "green", "violet"), seed=1)
    says = "the teacher 'strange' has no 'blue' and has 'violet', which the first has not"
    with pytest.raises(ModelError, match=says):
        prepared(place, settings={"model.teachers": str(strange)})
    few = tiny.model(tmp_path / "few", labels=("LABEL_0", "LABEL_1"), seed=1)
    with pytest.raises(ModelError, match="the teacher 'few' has no 'red'"):
        prepared(place, settings={"model.teachers": str(few)})
    with pytest.raises(ModelError, match="are the same"):
        prepared(place, settings={"model.teachers": place[1]["model"]})
    with pytest.raises(JobError, match="name that with --model"):
        asked(place, model=None, settings={"model.teachers": str(bare)})


def test_further_teachers_are_told_and_keep_their_order_of_labels(place, tmp_path):
    other = small.tiny().model(tmp_path / "other", labels=("blue", "red", "green"), seed=1)
    found = prepared(place, settings={"model.teachers": str(other)})
    assert "other · 4x32 · beside the first" in told(found)
    (further,) = found.facts.further
    assert further.labels == ("blue", "red", "green") and found.facts.labels == small.tiny().LABELS
    unnamed = small.tiny().model(
        tmp_path / "unnamed", labels=[f"LABEL_{index}" for index in range(3)], seed=1
    )
    found = prepared(place, settings={"model.teachers": [str(unnamed)]})
    assert found.facts.further[0].labels == found.facts.labels


# ---------------------------------------------------------------- students by vocabulary


@pytest.mark.parametrize("text", ["static", "2", "samev50"])
def test_students_of_the_whole_vocabulary_need_no_smaller_pieces(place, text):
    assert prepared(place, student=text).facts.teacher.shape["vocabulary"] == 50


@pytest.mark.parametrize("text", ["2v30", "static16v30"])
def test_a_vocabulary_that_can_not_be_is_refused_before_the_hour(place, text):
    with pytest.raises(ModelError, match=f"student '{text}'.*WordLevel"):
        prepared(place, student=text)


# ---------------------------------------------------------------- rows beside the training rows


def test_own_rows_are_told_with_what_bounds_them(place, tmp_path):
    own = tmp_path / "mine.csv"
    words = " ".join(["w20"] * 14)
    lines = [f"own{n} {words},{label}" for n, label in enumerate(("red", "blue") * 30)]
    own.write_text("\n".join(["text,label", *lines]) + "\n")
    both = [place[1]["data"], str(own)]
    found = prepared(place, data=both)
    said = told(found)
    assert (
        "own rows: mine" in said and "own train and own validation and own test cut by us" in said
    )
    assert "it cuts 100.0 % of the own train rows: --set task.max_length=" in said
    assert "no limit on their drop: --limit max_own_drop_points=2" in said
    assert found.seen_by_teacher("own_test") and not found.seen_by_teacher()
    made = asked(place, data=both, limits={"max_own_drop_points": 2})
    limited = target.with_limits(target.load(made.target), made.limits)
    assert "no limit on their drop" not in told(prepare(made, limited, None))


def test_a_tokenizer_of_another_vocabulary_is_found_before_the_hour(place, tmp_path):
    tiny_models = small.tiny()
    tiny_models.model(tmp_path / "short", vocab_size=20)
    with pytest.raises(ModelError, match=r"'short': its tokenizer makes pieces up to 4\d, .* 20"):
        prepared(place, student=[str(tmp_path / "short")])


def test_a_student_with_a_head_for_other_labels_is_told_of(place, tmp_path):
    tiny_models = small.tiny()
    tiny_models.model(tmp_path / "other", labels=("yes", "no"))
    tiny_models.model(tmp_path / "turned", labels=tiny_models.LABELS[::-1])
    found = prepared(place, student=[str(tmp_path / "other"), str(tmp_path / "turned")])
    (line,) = [each for each in found.warnings if "student" in each]
    assert "'other'" in line and "2 other labels (yes, no" in line and "these 3" in line


def test_a_student_that_reads_images_can_not_learn_texts(place, tmp_path):
    small.tiny().model(tmp_path / "eyes", "vit")
    with pytest.raises(ModelError, match="eyes"):
        prepared(place, student=[str(tmp_path / "eyes")])
