"""Choose: the start whose short training scores best is written as it was before that training."""

from __future__ import annotations

import pytest
import tiny

from edgedistill import settings
from edgedistill.progress import silent
from edgedistill.stages import choose, finetune, initialize, label

TASK = "text-classification"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A trained tiny teacher, its labels, a start of its own layers and one of random weights."""
    folder = tmp_path_factory.mktemp("choose")
    tiny.model(folder / "base", labels=None)
    tiny.rows(folder / "train", folder / "base", count=240)
    tiny.rows(folder / "validation", folder / "base", count=60, seed=1)
    common = {"task": TASK, "encoder": tiny.encoder(folder / "base", "bert")}
    told = {**common, "steps": 120, "batch": 16, "rate": 3e-3, "embedding_rate": 1.0}
    made = settings.coerce(finetune.Settings, {**told, "labels": tiny.LABELS}, "finetune")
    rows = {"train.0": folder / "train", "validation.0": folder / "validation"}
    finetune.run({"model.0": folder / "base", **rows}, made, folder / "teacher", silent)
    made = settings.coerce(label.Settings, common, "label")
    inputs = {"teacher.0": folder / "teacher", "rows.0": folder / "train"}
    label.run(inputs, made, folder / "labels", silent)
    for name, init in (("random", "random"), ("own", "teacher")):
        told = {"task": TASK, "shape": {"layers": 2}, "layers": [0, 1], "init": init}
        made = settings.coerce(initialize.Settings, told, "initialize")
        initialize.run({"teacher.0": folder / "teacher"}, made, folder / name, silent)
    values = {**common, "steps": 20, "batch": 16, "rate": 3e-4, "rows": 50}
    return folder, {**values, "names": ["0, 1 (random)", "0, 1 (first)"]}


def inputs_of(folder, *starts, labels=True):
    found = {f"student.{index}": folder / name for index, name in enumerate(starts)}
    found |= {"train.0": folder / "train", "validation.0": folder / "validation"}
    return {**found, "labels.0": folder / "labels"} if labels else found


def test_the_better_start_is_written_untrained(place, tmp_path):
    folder, values = place
    said = []
    made = settings.coerce(choose.Settings, values, "choose")
    found = inputs_of(folder, "random", "own")
    (tmp_path / "out").mkdir()
    facts = choose.run(found, made, tmp_path / "out", said.append)
    assert facts["chosen"] == "0, 1 (first)"
    first, second = facts["starts"]
    assert second["score"] > first["score"] and first["name"] == "0, 1 (random)"
    own = {file.name: file.read_bytes() for file in (folder / "own").iterdir() if file.is_file()}
    for name, content in own.items():
        assert (tmp_path / "out" / name).read_bytes() == content, name
    notes = [event["text"] for event in said if event.get("kind") == "note"]
    assert notes == [facts["said"]] and "after 20 steps" in notes[0]
    assert f"0, 1 (first) {second['score']:.1f}" in notes[0]


def test_of_equal_scores_the_first_wins(place, tmp_path):
    folder, values = place
    made = settings.coerce(choose.Settings, {**values, "names": ["a", "b"]}, "choose")
    facts = choose.run(inputs_of(folder, "own", "own"), made, tmp_path, silent)
    assert facts["chosen"] == "a"
    assert facts["starts"][0]["score"] == facts["starts"][1]["score"]


def test_an_estimate_needs_no_labels_and_leaves_nothing(place, tmp_path):
    folder, values = place
    made = settings.coerce(choose.Settings, values, "choose")
    found = inputs_of(folder, "own", "random", labels=False)
    assert 0 < choose.estimate(found, made, tmp_path) < 600
    assert not list(tmp_path.iterdir())
