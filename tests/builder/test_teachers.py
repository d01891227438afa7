"""Several teachers: read in their own encodings, matched by labels' names, averaged, reported."""

import importlib.util
import json
from pathlib import Path

import jsonschema
import pytest

from edgedistill import plugins, report
from edgedistill.settings import coerce

spec = importlib.util.spec_from_file_location("small", Path(__file__).parent / "small.py")
small = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small)
tiny = small.tiny()
OTHER = ("blue", "red", "green")  # the same labels in another order


def trained(folder: Path, kind: str, *, order=tiny.LABELS) -> Path:
    """Write a tiny model that learned the rows' words, its outputs in that order of labels."""
    import torch

    from edgedistill.progress import silent
    from edgedistill.train import weights

    base = tiny.model(folder / "base", kind, labels=None)
    for name, seed in {"train": 0, "validation": 1}.items():
        tiny.rows(folder / name, base, kind, count=240, seed=seed)
    stage = plugins.find("stages", "finetune")
    told = {"steps": 120, "rate": 2e-3, "labels": tiny.LABELS, "embedding_rate": 1}
    settings = coerce(stage.Settings, {**told, "encoder": tiny.encoder(base, kind)}, "finetune")
    inputs = {f"{name}.0": folder / name for name in ("train", "validation")}
    facts = stage.run({"model.0": base, **inputs}, settings, folder / "made", silent)
    assert facts["best"]["score"] > 70
    model = weights.load(folder / "made", plugins.find("tasks", "text-classification"))
    head = model.classifier if kind == "bert" else model.classifier.out_proj
    place = [tiny.LABELS.index(label) for label in order]
    with torch.no_grad():
        head.weight.copy_(head.weight[place])
        head.bias.copy_(head.bias[place])
    for name, value in weights.labelled(order).items():
        if name != "num_labels":
            setattr(model.config, name, value)
    weights.save(model, folder / "model", beside=base, labels=order)
    return folder / "model"


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Two teachers that differ in tokenizer and in the order of their labels."""
    folder = tmp_path_factory.mktemp("teachers")
    made = small.job(folder)
    made["model"] = str(trained(folder / "first", "bert").rename(folder / "one"))
    other = trained(folder / "second", "roberta", order=OTHER).rename(folder / "two")
    made["settings"] |= {"model.teachers": str(other), "label.weights": "2,1"}
    return made


def test_two_teachers_with_other_tokenizers_and_label_orders_teach_one_student(names):
    done = small.run(small.command(names))
    assert done.returncode == 0, done.stderr
    record = json.loads((Path(names["out"]) / "report.json").read_text())
    jsonschema.validate(record, report.schema())
    first, second = record["teachers"]
    assert (first["name"], second["name"]) == ("one", "two")
    assert (first["weight"], second["weight"]) == (2.0, 1.0)
    assert first["hash"] == record["source_model"]["hash"] != second["hash"]
    assert min(one["validation"]["value"] for one in (first, second)) > 70
    line = "the average of the logits of one (weight 2, "
    assert line in done.stdout
    assert line in (Path(names["out"]) / "report.html").read_text()
    assert "the average of the logits of one" in (Path(names["out"]) / "report.md").read_text()
    assert "mean of 2 teachers' logits on training rows" in done.stderr
    assert "two · 4x32 · beside the first" in done.stderr
    labels = [step["key"] for step in record["steps"] if step["stage"] == "label"]
    store = Path(names["store"]) / "v1" / "label"
    facts = [json.loads((store / key / "artifact.json").read_text())["facts"] for key in labels]
    assert all(each["teachers"] == 2 for each in facts)
    assert any((each["score"] or 0) > 80 for each in facts)


def test_a_further_teacher_that_guesses_is_named(names, tmp_path):
    guess = tiny.model(tmp_path / "guess", "bert", seed=3)
    settings = {**names["settings"], "model.teachers": str(guess)}
    done = small.run(small.command({**names, "settings": settings}))
    assert done.returncode == 2, done.stderr
    assert "the teacher 'guess' answers" in done.stderr
