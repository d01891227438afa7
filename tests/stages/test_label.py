"""Label: raw logits of the teachers, in the order of the rows."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import tiny
import torch

from edgedistill import plugins, settings
from edgedistill.data.arrays import Arrays
from edgedistill.errors import JobError, ModelError, TrainingError
from edgedistill.progress import silent
from edgedistill.stages import label
from edgedistill.train import outputs, weights


def run(tmp_path, kind="bert", teachers=1, rows=None, **told):
    folders = {}
    for index in range(teachers):
        path = tmp_path / f"teacher{index}"
        if not path.exists():
            tiny.model(path, kind, seed=index)
        folders[f"teacher.{index}"] = path
    if rows is None:
        rows = tmp_path / "rows"
        if not rows.exists():
            tiny.rows(rows, folders["teacher.0"], kind, count=20)
    values = {
        "task": tiny.task(kind),
        "encoder": tiny.encoder(folders["teacher.0"], kind),
        **told,
    }
    out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    made = settings.coerce(label.Settings, values, "label")
    facts = label.run({**folders, "rows.0": rows}, made, out, silent)
    return Arrays(out), facts


@pytest.mark.parametrize("kind", ["bert", "resnet"])
def test_batches_at_once_give_the_same_bytes(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(outputs, "CHUNK", 8)
    task = plugins.find("tasks", tiny.task(kind))
    real, seen = task.forward, []

    def forward(model, batch):
        places.add((threading.current_thread().name, torch.get_num_threads()))
        return real(model, batch)

    monkeypatch.setattr(task, "forward", forward)
    for threads in (1, 3):
        places: set = set()
        found, facts = run(tmp_path, kind, batch=3, threads=threads)
        seen.append((found.stacked("logits").tobytes(), facts))
        assert {count for _, count in places} == {1}
        assert all("ThreadPool" in name for name, _ in places) == (threads > 1)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("kind", ["bert", "resnet"])
def test_each_row_has_what_the_teacher_answers_for_it_alone(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(outputs, "CHUNK", 8)  # rows stream in several chunks
    found, facts = run(tmp_path, kind, batch=4)
    task = plugins.find("tasks", tiny.task(kind))
    model = weights.load(tmp_path / "teacher0", task).eval()
    opened = task.open_encoder(tmp_path / "teacher0", tiny.encoder(tmp_path / "teacher0", kind))
    rows = Arrays(tmp_path / "rows")
    assert len(found) == len(rows) == facts["rows"]
    names = [name for name in rows.names if name != "truth"]
    for index in range(len(rows)):
        batch = opened.batch([rows.row(index, names)])
        inputs = {name: torch.from_numpy(array) for name, array in batch.items()}
        with torch.no_grad():
            alone = task.forward(model, inputs).logits[0].numpy()
        assert found.value("logits", index).dtype == np.float16
        assert found.value("logits", index) == pytest.approx(alone, rel=2e-3, abs=2e-3)


def test_the_score_is_over_rows_that_have_a_truth(tmp_path):
    _, facts = run(tmp_path)
    answers = next(Arrays(tmp_path / path.name) for path in tmp_path.glob("out*")).stacked("logits")
    truth = Arrays(tmp_path / "rows").stacked("truth")
    assert facts["score"] == pytest.approx(100 * np.mean(answers.argmax(1) == truth), abs=0.01)
    tiny.rows(tmp_path / "unlabelled", tmp_path / "teacher0", count=5, labelled=False)
    assert run(tmp_path, rows=tmp_path / "unlabelled")[1]["score"] is None


def test_several_teachers_are_a_weighted_mean(tmp_path):
    both, facts = run(tmp_path, teachers=2, weights=[3.0, 1.0])
    first, _ = run(tmp_path)
    (tmp_path / "teacher0").rename(tmp_path / "first")
    (tmp_path / "teacher1").rename(tmp_path / "teacher0")
    second, _ = run(tmp_path)
    wanted = (3 * first.stacked("logits").astype(float) + second.stacked("logits")) / 4
    assert facts["teachers"] == 2
    assert both.stacked("logits") == pytest.approx(wanted, abs=5e-3)


def test_weights_for_other_teachers_are_an_error(tmp_path):
    with pytest.raises(JobError, match="2 weights for 1 teachers"):
        run(tmp_path, weights=[1.0, 2.0])


def test_a_float16_config_is_computed_in_float32(tmp_path):
    tiny.model(tmp_path / "teacher0")
    want, _ = run(tmp_path)
    path = tmp_path / "teacher0" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "dtype": "float16"}))
    got, _ = run(tmp_path)
    assert np.array_equal(got.stacked("logits"), want.stacked("logits"))


def test_an_answer_that_is_no_number_names_its_row(tmp_path):
    tiny.model(tmp_path / "teacher0")
    model = weights.load(tmp_path / "teacher0", plugins.find("tasks", "text-classification"))
    with torch.no_grad():
        model.classifier.bias[0] = float("nan")
    model.save_pretrained(tmp_path / "teacher0")
    with pytest.raises(TrainingError, match="row 1 is not a number"):
        run(tmp_path)


def test_each_teacher_reads_its_own_encoding_and_is_matched_by_the_names_of_its_labels(tmp_path):
    first = tiny.model(tmp_path / "a", "bert")
    other = tiny.model(tmp_path / "b", "roberta", labels=("blue", "red", "green"), seed=1)
    for name, folder, kind in (("rows", first, "bert"), ("rows1", other, "roberta")):
        tiny.rows(tmp_path / name, folder, kind, count=20)
    inputs = {
        "teacher.0": first,
        "teacher.1": other,
        "rows.0": tmp_path / "rows",
        "rows.1": tmp_path / "rows1",
    }
    told = {
        "encoder": tiny.encoder(first, "bert"),
        "further": [tiny.encoder(other, "roberta")],
        "labels": tiny.LABELS,
    }

    def answers(name, folders, **settings_):
        made = settings.coerce(label.Settings, settings_, "label")
        label.run(folders, made, tmp_path / name, silent)
        return Arrays(tmp_path / name).stacked("logits").astype(float)

    both = answers("both", inputs, **told)
    del told["further"]
    one = answers("one", {name: inputs[name] for name in ("teacher.0", "rows.0")}, **told)
    alone = {"teacher.0": other, "rows.0": tmp_path / "rows1"}
    raw = answers("two", alone, encoder=tiny.encoder(other, "roberta"))  # blue, red, green
    two = answers("three", alone, encoder=tiny.encoder(other, "roberta"), labels=tiny.LABELS)
    assert np.array_equal(two, raw[:, [1, 2, 0]])
    assert both == pytest.approx((one + two) / 2, abs=5e-3)


def test_labels_that_differ_are_named():
    columns = outputs.columns(("b", "c", "a"), ("a", "b", "c"), teacher="t")
    assert columns.tolist() == [2, 0, 1]
    with pytest.raises(ModelError, match=r"teacher 't' has no 'a' and has 'x', which the first"):
        outputs.columns(("b", "x"), ("a", "b"), teacher="t")
    with pytest.raises(ModelError, match="names a label twice"):
        outputs.columns(("a", "b", "b"), ("a", "b"), teacher="t")
