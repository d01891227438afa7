"""Prune: rounds of leaving out and distilling again; a killed step goes on to the same bytes."""

from __future__ import annotations

import json

import pytest
import tiny

from edgedistill import plugins, settings
from edgedistill.errors import InternalError
from edgedistill.progress import silent
from edgedistill.stages import export, label, prune
from edgedistill.train import checkpoint, loop, weights

RUN = {"steps": 12, "batch": 16, "rate": 3e-3, "embedding_rate": 1.0, "patience": 0, "rows": 32}
LEFT = {
    "bert": {"layers": 3, "feed_forward": 24},
    "resnet": {"channels.0": 8, "channels.1": 16, "channels": 16, "embedding": 8},
}


@pytest.fixture(scope="module", params=["bert", "resnet"])
def place(request, tmp_path_factory):
    """A tiny student of a kind, rows, and its own answers as labels."""
    kind, folder = request.param, tmp_path_factory.mktemp(request.param)
    tiny.model(folder / "student", kind)
    tiny.rows(folder / "train", folder / "student", kind, count=96)
    tiny.rows(folder / "validation", folder / "student", kind, count=30, seed=1)
    common = {"task": tiny.task(kind), "encoder": tiny.encoder(folder / "student", kind)}
    label.run(
        {"teacher.0": folder / "student", "rows.0": folder / "train"},
        settings.coerce(label.Settings, common, "label"),
        folder / "labels",
        silent,
    )
    family = "resnet" if kind == "resnet" else "encoder"
    found = plugins.find("families", family).shape(weights.config_of(folder / "student"))
    told = {**common, **RUN, "family": family, "rounds": 2, "shape": {**found, **LEFT[kind]}}
    return kind, folder, told


def inputs(folder, *, labels=True):
    names = {"student.0": "student", "train.0": "train", "validation.0": "validation"}
    names |= {"labels.0": "labels"} if labels else {}
    return {name: folder / place for name, place in names.items()}


def run(place, out, found=None, progress=silent, **told):
    _, folder, values = place
    made = settings.coerce(prune.Settings, {**values, **told}, "prune")
    return prune.run(found or inputs(folder), made, out, progress)


def test_it_shrinks_in_rounds_and_what_is_left_is_a_small_dense_graph(place, tmp_path):
    import onnx

    kind, folder, told = place
    notes = []
    facts = run(place, tmp_path / "out", progress=notes.append)
    sizes = [each["parameters"] for each in facts["rounds"]]
    whole = plugins.find("tasks", told["task"])
    assert weights.parameters(weights.load(folder / "student", whole)) > sizes[0] > sizes[1]
    assert facts["parameters"] == sizes[1] and facts["steps"] == 12
    assert any("round 2 of 2" in each.get("text", "") for each in notes)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    family = plugins.find("families", told["family"])
    assert family.shape(config) == told["shape"]
    assert (tmp_path / "out" / "labels.json").is_file()
    made = {name: told[name] for name in ("task", "encoder")}
    (tmp_path / "graph").mkdir()
    done = export.run(
        {"model.0": tmp_path / "out"},
        settings.coerce(export.Settings, made, "export"),
        tmp_path / "graph",
        silent,
    )
    assert done["compared"]
    graph = onnx.load(tmp_path / "graph" / "model.onnx").graph
    shapes = {tuple(each.dims) for each in graph.initializer}
    if kind == "bert":
        assert (32, 24) in shapes and not {(32, 64), (64, 32), (64,)} & shapes
    else:
        assert max(shape[0] for shape in shapes if len(shape) == 4) == 16


def test_a_killed_step_goes_on_to_the_same_bytes(place, tmp_path, monkeypatch):
    """Killed in its second round: the first is not run again, and no byte differs."""
    one = run(place, tmp_path / "straight")
    monkeypatch.setenv(checkpoint.VARIABLE, "0")
    monkeypatch.setattr(loop, "BAR_SECONDS", 0.0)
    seen = []

    def killed(event):
        seen.append(event)
        second = any("round 2" in each.get("text", "") for each in seen)
        if second and event.get("done") == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(place, tmp_path / "again", progress=killed)
    assert (tmp_path / "again" / ".resume" / "pruned-0" / prune.DONE).is_file()
    told = []
    other = run(place, tmp_path / "again", progress=told.append)
    said = [each.get("text", "") for each in told]
    assert not any("round 1" in each for each in said)
    assert any("goes on from step" in each for each in said)
    assert one == other
    for path in (tmp_path / "straight").iterdir():
        if path.is_file():
            assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_control_needs_no_teacher_and_labels_that_are_missing_are_no_silence(place, tmp_path):
    found = inputs(place[1], labels=False)
    alone = {"losses": {"hard_labels": {"weight": 1.0}}, "alpha": 0.0, "rounds": 1, "steps": 4}
    assert run(place, tmp_path / "out", found, **alone)["rows"] == 96
    with pytest.raises(InternalError, match="no labels"):
        run(place, tmp_path / "none", found)


def test_the_estimate_needs_no_labels_and_leaves_nothing(place, tmp_path):
    _, folder, values = place
    made = settings.coerce(prune.Settings, values, "prune")
    assert 0 < prune.estimate(inputs(folder, labels=False), made, tmp_path) < 600
    assert not list(tmp_path.iterdir())


def test_a_step_that_would_leave_all_is_refused(place, tmp_path):
    _, folder, told = place
    whole = plugins.find("families", told["family"]).shape(weights.config_of(folder / "student"))
    with pytest.raises(InternalError, match="prunes nothing"):
        run(place, tmp_path, shape=whole)


def test_a_step_names_its_plugins(place):
    found = prune.plugins(settings.plain(prune.Settings()))
    assert ("losses", "soft_labels") in found and ("families", "encoder") in found
