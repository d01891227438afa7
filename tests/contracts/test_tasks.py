"""Every file of tasks/ keeps the contract: attributes, signatures, a light module level."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import numpy as np
import pytest

from edgedistill import plugins
from edgedistill.tasks import Statistics, Task

NAMES = plugins.names("tasks")
FUNCTIONS = [
    name
    for name, value in vars(Task).items()
    if inspect.isfunction(value) and not name.startswith("_")
]
OPTIONAL = ("check_fold", "fold", "folded_files")  # all of them or none: texts alone have pieces
ATTRIBUTES = [name for name in Task.__annotations__ if name.isupper()]


def test_the_tasks_of_the_contract_are_there():
    assert {"text-classification", "image-classification"} <= set(NAMES)
    assert len(FUNCTIONS) >= 12 and len(ATTRIBUTES) >= 7


@pytest.fixture(params=NAMES)
def task(request):
    return plugins.find("tasks", request.param)


def test_attributes(task):
    for name in ATTRIBUTES:
        assert hasattr(task, name), name
    assert task.EXAMPLES in ("text", "image")
    assert task.UNIT == "points" and isinstance(task.HIGHER_IS_BETTER, bool)
    for name in ("METRICS", "MADE", "PACKAGES"):
        assert isinstance(getattr(task, name), tuple) and getattr(task, name)


def test_losses_know_its_outputs(task):
    reads = [plugins.find("losses", name).OUTPUTS for name in plugins.names("losses")]
    assert any(task.OUTPUTS in each for each in reads)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures(task, name):
    """Check names, kinds and defaults of the parameters: callers pass them as the contract says."""
    if name in OPTIONAL and not any(hasattr(task, each) for each in OPTIONAL):
        return
    wanted = list(inspect.signature(getattr(Task, name)).parameters.values())[1:]
    found = list(inspect.signature(getattr(task, name)).parameters.values())
    shown = [[(p.name, p.kind, p.default) for p in each] for each in (found, wanted)]
    assert shown[0] == shown[1]
    assert getattr(task, name).__doc__


@pytest.mark.parametrize("name", NAMES)
def test_the_module_level_is_light(name):
    code = (
        "import sys; from edgedistill import plugins;"
        f"plugins.find('tasks', {name!r});"
        "heavy = {'torch', 'transformers', 'onnx', 'onnxruntime', 'datasets', 'sklearn', 'PIL',"
        "'tokenizers'};"
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_scores_come_from_sums_and_stand_in_points(task):
    labels = 4
    truth = np.arange(40) % labels
    right = np.eye(labels)[truth]
    for metric in task.METRICS:
        found = task.statistics(right, truth, metric)
        assert found.columns.shape == found.values.shape and len(found.columns) == 40
        assert found.columns.min() >= 0 and found.columns.max() < found.size
        sums = found.sums()
        assert sums.shape == (found.size,)
        assert float(task.score(sums, metric)) == 100.0
        part = Statistics(found.columns[:10], found.values[:10], found.size).sums()
        assert task.score(np.stack([sums, part]), metric).shape == (2,)
        wrong = task.statistics(np.roll(right, 1, axis=1), truth, metric).sums()
        assert (task.score(wrong, metric) < 100.0) == task.HIGHER_IS_BETTER


def test_people_are_told_all_labels_the_most_likely_first(task):
    (told,) = task.decode(np.array([[0.0, 2.0, 1.0]], np.float32), ["a", "b", "c"], 1.0)
    assert [label for label, _ in told] == ["b", "c", "a"]
    assert json.dumps(told)


def test_the_default_metric_is_one_of_its_own(task):
    for rows in ({"a": 5, "b": 5}, {"a": 500, "b": 5, "c": 5}):
        metric, _ = task.default_metric(rows)
        assert metric in task.METRICS


def test_an_encoder_goes_its_whole_way(task, tmp_path):
    """Make, open, encode, collate, write and open again, by a model folder of the task's kind."""
    model, out, shipped = (tmp_path / name for name in ("model", "out", "shipped"))
    for folder in (model, out, shipped):
        folder.mkdir()
    _model_files(task.EXAMPLES, model)
    settings = task.encoder_settings(model)
    assert json.loads(json.dumps(settings)) == settings
    task.prepare_encoder(model, out, settings)
    encoder = task.open_encoder(out, settings)
    facts = json.loads(json.dumps(dict(encoder.facts)))
    assert {"kind", "file"} <= facts.keys()
    encoder.files(shipped)
    assert [path.name for path in shipped.iterdir()] == [facts["file"]]
    again = task.open_encoder(shipped, facts)
    examples = task.golden(encoder, ["one", "two"])
    assert examples and examples == task.golden(again, ["one", "two"])
    rows = encoder.encode_many(examples)
    for example, row in zip(examples, rows, strict=True):
        alone = again.encode(example)
        assert all((alone[name] == row[name]).all() for name in row)
        assert alone.keys() == row.keys() and "truth" not in row
    batch = encoder.batch(rows, integers="int32")
    assert tuple(batch) == encoder.inputs()
    assert all(len(values) == len(rows) for values in batch.values())
    assert {values.dtype for values in batch.values()} <= {np.dtype("int32"), np.dtype("float32")}
    kinds = [kind for kind in task.MADE if kind not in task.READS_MODEL]
    made = list(task.made(examples, np.zeros(len(examples), int), encoder, kinds=kinds, seed=0))
    assert len(made) == len(examples) * len(kinds) > 0
    assert set(task.READS_MODEL) <= set(task.MADE)
    assert all(row.keys() == rows[0].keys() for row in made)
    assert all(row[name].dtype == rows[0][name].dtype for row in made for name in row)


def _model_files(kind: str, folder) -> None:
    if kind == "image":
        about = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}
        (folder / "preprocessor_config.json").write_text(json.dumps(about))
        return
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two", "the", "a"]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(words[:5])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.save(str(folder / "tokenizer.json"))
    config = {"model_type": "bert", "max_position_embeddings": 32, "type_vocab_size": 2}
    (folder / "config.json").write_text(json.dumps(config))
