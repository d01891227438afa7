"""Distill: a student learns from a teacher; a killed step goes on to the same bytes."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tiny

from edgedistill import plugins, settings
from edgedistill.errors import InternalError, TrainingError
from edgedistill.progress import silent
from edgedistill.stages import distill, finetune, initialize, label
from edgedistill.train import checkpoint, loop

RUN = {"steps": 40, "batch": 16, "rate": 3e-3, "embedding_rate": 1.0, "patience": 0}


@pytest.fixture(scope="module", params=["bert", "resnet"])
def place(request, tmp_path_factory):
    """A trained tiny teacher of a kind, its rows and labels, and a student to be trained."""
    kind, folder = request.param, tmp_path_factory.mktemp(request.param)
    tiny.model(folder / "base", kind, labels=None)
    tiny.rows(folder / "train", folder / "base", kind, count=240)
    tiny.rows(folder / "made", folder / "base", kind, count=60, seed=7, labelled=False)
    tiny.rows(folder / "validation", folder / "base", kind, count=60, seed=1)
    tiny.rows(folder / "test", folder / "base", kind, count=90, seed=2)
    common = {"task": tiny.task(kind), "encoder": tiny.encoder(folder / "base", kind)}
    family = "resnet" if kind == "resnet" else "encoder"
    made = settings.coerce(
        finetune.Settings, {**common, **RUN, "steps": 120, "labels": tiny.LABELS}, "finetune"
    )
    rows = {"train.0": folder / "train", "validation.0": folder / "validation"}
    finetune.run({"model.0": folder / "base", **rows}, made, folder / "teacher", silent)
    for index, name in enumerate(("train", "made", "validation")):
        label.run(
            {"teacher.0": folder / "teacher", "rows.0": folder / name},
            settings.coerce(label.Settings, common, "label"),
            folder / f"labels{index}",
            silent,
        )
    shape = {"layers": 2} if family == "encoder" else {"blocks": 2, "blocks.0": 1, "blocks.1": 1}
    told = {"task": common["task"], "family": family, "shape": shape}
    initialize.run(
        {"teacher.0": folder / "teacher"},
        settings.coerce(initialize.Settings, told, "initialize"),
        folder / "student",
        silent,
    )
    return kind, folder, {**common, "family": family, **RUN}


def inputs(folder, *, made=True, labels=True):
    found = {"student.0": folder / "student", "validation.0": folder / "validation"}
    for index, name in enumerate(("train", "made") if made else ("train",)):
        found[f"train.{index}"] = folder / name
        if labels:
            found[f"labels.{index}"] = folder / f"labels{index}"
    return found


def run(place, out, found=None, progress=silent, **told):
    _, folder, values = place
    made = settings.coerce(distill.Settings, {**values, **told}, "distill")
    return distill.run(found or inputs(folder), made, out, progress)


def score(place, model):
    from edgedistill.train import outputs, weights
    from edgedistill.train.batches import Examples

    kind, folder, values = place
    task = plugins.find("tasks", tiny.task(kind))
    examples = Examples([folder / "test"])
    opened = task.open_encoder(model, values["encoder"])
    logits = outputs.logits(weights.load(model, task), examples, task.forward, opened)
    return 100 * np.mean(np.concatenate(list(logits)).argmax(1) == examples.truth)


def test_a_student_comes_near_its_teacher(place, tmp_path):
    facts = run(place, tmp_path / "out", steps=80)
    assert score(place, place[1] / "teacher") > 90
    assert score(place, tmp_path / "out") > 85
    assert facts["best"]["score"] > 85 and facts["train_score"] > 85
    assert facts["rows"] == 300 and facts["steps"] == 80
    assert (tmp_path / "out" / "labels.json").is_file()


def test_the_teacher_is_what_it_learns_from(place, tmp_path):
    """With the truth shut out and the teacher's answers turned around, so is the student."""
    from edgedistill.data import arrays

    _kind, folder, _ = place
    turned = {}
    for index in (0, 1):
        rows = arrays.Arrays(folder / f"labels{index}").stacked("logits")
        arrays.write(tmp_path / f"l{index}", [{"logits": np.roll(row, 1)} for row in rows])
        turned[f"labels.{index}"] = tmp_path / f"l{index}"
    told = {"alpha": 1.0, "steps": 120, "rate": 1e-3, "average": "none", "evaluate_every": 120}
    right = run(place, tmp_path / "right", inputs(folder), **told)
    wrong = run(place, tmp_path / "wrong", {**inputs(folder), **turned}, **told)
    assert right["best"]["score"] > 85 and wrong["best"]["score"] < 20


def test_the_weights_that_answer_most_like_the_teacher_are_kept(place, tmp_path):
    _kind, folder, _ = place
    found = {**inputs(folder), "answers.0": folder / "labels2"}
    facts = run(place, tmp_path / "out", found, steps=80)
    near = [one[f"{which}_from_teacher"] for one in facts["history"] for which in ("raw", "ema")]
    assert facts["best"]["from_teacher"] == min(near) < max(near)
    for asked in ({"found": found, "alpha": 0.4}, {}):  # the truth counts for more; no answers
        alone = run(place, tmp_path / str(len(asked)), steps=10, **asked)
        assert alone["best"]["from_teacher"] is None
        assert "raw_from_teacher" not in alone["history"][0]


def test_the_control_needs_no_teacher(place, tmp_path):
    _kind, folder, _ = place
    told = {"losses": {"hard_labels": {"weight": 1.0}}, "alpha": 0.0}
    found = inputs(folder, made=False, labels=False)
    facts = run(place, tmp_path / "out", found, **told, steps=80)
    assert facts["best"]["score"] > 70 and facts["rows"] == 240


def test_labels_that_are_missing_are_no_silence(place, tmp_path):
    with pytest.raises(InternalError, match="no labels"):
        run(place, tmp_path, inputs(place[1], labels=False))


@pytest.mark.parametrize("average", ["none", "ema"])
def test_averaged_weights_are_scored_beside_the_raw(place, tmp_path, average):
    facts = run(place, tmp_path / "out", average=average, steps=24)
    assert all(("ema" in entry) == (average == "ema") for entry in facts["history"])
    best = facts["best"]
    entry = next(one for one in facts["history"] if one["step"] == best["step"])
    assert entry[best["weights"]] == best["score"]


def test_a_run_that_is_too_fast_says_so(place, tmp_path):
    with pytest.raises(TrainingError, match=r"step \d+ of 40, rate"):
        run(place, tmp_path / "out", rate=1e30, warmup=0.0, clip=0.0)


def test_the_estimate_needs_no_labels_and_leaves_nothing(place, tmp_path):
    _kind, folder, values = place
    made = settings.coerce(distill.Settings, values, "distill")
    found = inputs(folder, labels=False)
    assert 0 < distill.estimate(found, made, tmp_path) < 600
    assert not list(tmp_path.iterdir())


def test_a_killed_step_goes_on_to_the_same_bytes(place, tmp_path, monkeypatch):
    """A second process is ended by os._exit in the middle, with a checkpoint each few steps."""
    _kind, folder, values = place
    run(place, tmp_path / "straight")
    out = tmp_path / "killed"
    code = textwrap.dedent(
        f"""
        import os, pathlib
        from edgedistill import settings
        from edgedistill.stages import distill
        from edgedistill.train import loop
        loop.BAR_SECONDS = 0.0
        def progress(event):
            if event.get("done") == 23:
                os._exit(9)
        folder = pathlib.Path({str(folder)!r})
        found = {{name: pathlib.Path(path) for name, path in
                 { ({name: str(path) for name, path in inputs(folder).items()})!r}.items()}}
        made = settings.coerce(distill.Settings, {values!r}, "distill")
        distill.run(found, made, pathlib.Path({str(out)!r}), progress)
        """
    )
    monkeypatch.setenv(checkpoint.VARIABLE, "0")
    out.mkdir()
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 9
    assert len(list((out / ".resume").iterdir())) == 2
    assert not (out / "model.safetensors").exists()
    told = []
    run(place, out, progress=told.append)
    assert any("goes on from step" in event.get("text", "") for event in told)
    files = sorted(path.name for path in (tmp_path / "straight").iterdir() if path.is_file())
    for name in files:
        assert (out / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name


def test_a_loss_of_a_stranger_can_read_hidden_states_of_a_live_teacher(place, tmp_path):
    _kind, folder, _values = place
    path = tmp_path / "nearness.py"
    path.write_text(
        textwrap.dedent(
            '''
            """Nearness of one layer's outputs, through a learned map."""
            from dataclasses import dataclass
            READS_TEACHER, NEEDS_TRUTH = True, False
            @dataclass(frozen=True)
            class Settings:
                pass
            def needs(settings, student, teacher):
                return ("hidden.1",)
            def build(settings, student, teacher):
                import torch
                return torch.nn.Linear(1, 1)
            def loss(student, teacher, batch, settings, learned):
                ours, theirs = student["hidden.1"].float(), teacher["hidden.1"].float()
                ours, theirs = ours.flatten(1).mean(1, keepdim=True), theirs.flatten(1).mean(1)
                return (learned(ours)[:, 0] - theirs).square().mean()
            '''
        )
    )
    losses = {str(path): {"weight": 1.0}, "soft_labels": {"weight": 1.0}}
    found = {**inputs(folder), "teacher.0": folder / "teacher"}
    told = {"losses": losses, "alpha": 1.0, "steps": 30, "evaluate_every": 10}
    facts = run(place, tmp_path / "out", found, **told)
    first, last = facts["history"][0]["loss"], facts["history"][-1]["loss"]
    assert last < first
    assert facts["best"]["score"] > 50
    with pytest.raises(InternalError, match=r"hidden\.1"):
        run(place, tmp_path / "none", inputs(folder), **told)


INSIDE = {
    "bert": {
        "hidden_states": {"weight": [5.0, 0.0, 0.5]},
        "embeddings": {"weight": [5.0, 0.0]},
        "attention_maps": {"map": [3, 1]},
        "relations": {},
    },
    "resnet": {"feature_maps": {"weight": [1.0, 0.0, 0.5]}, "attention_transfer": {}},
}


@pytest.fixture(scope="module")
def narrow(place, tmp_path_factory):
    """A student half as wide as its teacher, and the inputs to train it with a live teacher."""
    kind, folder, values = place
    out = tmp_path_factory.mktemp("narrow")
    shape = {"layers": 2, "hidden": 16, "heads": 2, "feed_forward": 32}
    if kind == "resnet":
        shape = {"stages": 2, "blocks": 2, "channels": 16, "embedding": 8, "blocks.0": 1,
                 "blocks.1": 1, "channels.0": 8, "channels.1": 16}  # fmt: skip
    told = {"task": values["task"], "family": values["family"], "shape": shape}
    made = settings.coerce(initialize.Settings, told, "initialize")
    initialize.run({"teacher.0": folder / "teacher"}, made, out, silent)
    return {**inputs(folder), "student.0": out, "teacher.0": folder / "teacher"}


def test_losses_inside_of_a_narrower_student_go_on_to_the_same_bytes(
    place, narrow, tmp_path, monkeypatch
):
    """What they learn is trained, checkpointed and resumed, and never written with the student."""
    from safetensors.torch import load_file

    told = {"losses": {**INSIDE[place[0]], "soft_labels": {}, "hard_labels": {}}}
    facts = run(place, tmp_path / "straight", narrow, **told)
    assert facts["history"][-1]["loss"] < facts["history"][0]["loss"]
    monkeypatch.setenv(checkpoint.VARIABLE, "0")
    monkeypatch.setattr(loop, "BAR_SECONDS", 0.0)

    def killed(event):
        if event.get("done") == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(place, tmp_path / "again", narrow, killed, **told)
    kept = sorted((tmp_path / "again" / ".resume").iterdir())[-1] / "state.safetensors"
    assert any("learned" in name for name in load_file(kept))
    run(place, tmp_path / "again", narrow, **told)
    one, other = (tmp_path / name / "model.safetensors" for name in ("straight", "again"))
    assert one.read_bytes() == other.read_bytes()
    assert set(load_file(one)) == set(load_file(narrow["student.0"] / "model.safetensors"))


def test_the_estimate_runs_the_live_teacher_while_it_is_needed(place, narrow, tmp_path):
    from edgedistill.train import signals

    read, calls = signals.Live.read, []
    fading = {name: {**each, "weight": [1.0, 0.0, 0.5]} for name, each in INSIDE[place[0]].items()}
    told = {"losses": {**fading, "soft_labels": {}}, "alpha": 1.0}
    made = settings.coerce(distill.Settings, {**place[2], **told}, "distill")
    found = {name: path for name, path in narrow.items() if not name.startswith("labels")}

    def counted(self, *arguments):
        calls.append(arguments)
        return read(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signals.Live, "read", counted)
        assert 0 < distill.estimate(found, made, tmp_path) < 600
    assert len(calls) == 10  # of ten batches, each run twice, those in the first half


def test_a_step_names_its_plugins(place):
    plain = settings.plain(distill.Settings())
    assert ("losses", "soft_labels") in distill.plugins(plain)
    assert ("families", "encoder") in distill.plugins(plain)
    assert loop.BAR_SECONDS > 0
