import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgedistill.data import models
from edgedistill.errors import ModelError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "play", "stop", "the", "song"]


def tokenizer():
    import transformers

    vocabulary = {word: index for index, word in enumerate(WORDS)}
    return transformers.BertTokenizer(vocab=vocabulary)


def bert(kind="BertForSequenceClassification", **settings):
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=32, **settings,
    )  # fmt: skip
    return getattr(transformers, kind)(config)


NAMES = {
    "id2label": {0: "play", 1: "stop", 2: "wait"},
    "label2id": {"play": 0, "stop": 1, "wait": 2},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    bert(**NAMES).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def configure(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.update(changes)
    gone = [name for name, value in changes.items() if value is None]
    path.write_text(json.dumps({name: v for name, v in config.items() if name not in gone}))


def test_a_checkpoint_with_a_head(folder):
    found = models.read(folder)
    assert (found.name, found.kind, found.model_type) == ("tiny", "text", "bert")
    assert (found.has_head, found.outputs, found.labels) == (True, 3, ("play", "stop", "wait"))
    assert found.parameters == sum(p.numel() for p in bert(**NAMES).parameters())
    assert found.dtype == "float32"
    assert found.bytes == (folder / "model.safetensors").stat().st_size
    assert list(found.encoder) == ["tokenizer.json"]
    assert "transformers_version" not in found.config


def test_what_is_written_loads_and_is_the_same_each_time(folder, tmp_path):
    from transformers import AutoModelForSequenceClassification

    models.read(folder).write(tmp_path / "a")
    models.read(tmp_path / "a").write(tmp_path / "b")
    names = {"config.json", "labels.json", "model.safetensors", "tokenizer.json"}
    names.add("tokenizer_config.json")
    assert {path.name for path in (tmp_path / "a").iterdir()} == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert models.read(folder).digest == models.read(tmp_path / "a").digest
    _, about = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "a", output_loading_info=True
    )
    assert not about["missing_keys"]


@pytest.mark.parametrize(
    "told",
    [
        {"do_lower_case": False},
        {"do_lower_case": True, "strip_accents": False},
        {"do_lower_case": False, "tokenize_chinese_chars": False},
    ],
    ids=["cased", "accents", "unspaced"],
)
def test_what_is_written_keeps_the_case_of_its_tokenizer(told, saved, tmp_path):
    """Wherever it is opened: beside the config, alone, by us or by transformers."""
    from transformers import AutoTokenizer

    from edgedistill.tasks import text_classification as task

    given = tmp_path / "given"
    shutil.copytree(saved, given)
    words = dict.fromkeys([*WORDS, "play", "Play", "PLAY", "pl\u00e1y", "\u4eca", "\u4eca\u5929"])
    tokenizer = json.loads((given / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {word: index for index, word in enumerate(words)}
    (given / "tokenizer.json").write_text(json.dumps(tokenizer))
    path = given / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **told, "vocab_file": "/home/me"}))
    text = "Play PLAY pl\u00e1y \u4eca\u5929"
    expected = AutoTokenizer.from_pretrained(given)(text)["input_ids"]

    folder, shipped = tmp_path / "made", tmp_path / "shipped"
    models.read(given).write(folder)
    settings = task.encoder_settings(folder)
    encoder = task.open_encoder(folder, settings)
    shipped.mkdir()
    encoder.files(shipped)
    for each in (encoder, task.open_encoder(shipped, settings)):
        assert each.encode({"text": text})["input_ids"].tolist() == expected
    assert AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == expected
    assert "/home/me" not in (folder / "tokenizer_config.json").read_text()
    assert models.read(folder).encoder_digest == models.read(given).encoder_digest


def test_the_encoder_alone(folder, tmp_path):
    models.read(folder).write_encoder(tmp_path / "a")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["tokenizer.json"]


def test_digests_see_what_counts_and_nothing_else(folder):
    before = models.read(folder)
    (folder / "README.md").write_text("new")
    configure(folder, _name_or_path="/home/somebody", transformers_version="9.9")
    same = models.read(folder)
    assert (same.digest, same.encoder_digest) == (before.digest, before.encoder_digest)
    configure(folder, hidden_act="relu")
    other = models.read(folder)
    assert other.digest != before.digest
    assert other.encoder_digest == before.encoder_digest
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"song"', '"tune"'))
    third = models.read(folder)
    assert third.encoder_digest != before.encoder_digest
    assert third.digest != other.digest


def test_reading_loads_nothing_heavy(folder):
    code = (
        f"import sys; from edgedistill.data import models; models.read({str(folder)!r}); "
        "print([m for m in ('torch', 'transformers', 'onnx', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM", "BertForTokenClassification"])
def test_other_heads_are_no_head(kind, tmp_path):
    bert(kind).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    found = models.read(tmp_path)
    assert (found.has_head, found.labels, found.outputs) == (False, None, None)
    assert models.labels(found, ["b", "a", "b"]) == ["a", "b"]


def test_a_head_for_another_question_is_named(tmp_path):
    bert("BertForTokenClassification").save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    found = models.read(tmp_path)
    assert not found.has_head
    assert "BertForTokenClassification: that head is left out" in found.warnings[0]


def test_a_head_that_is_said_but_not_there(tmp_path):
    bert("BertModel").save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    configure(tmp_path, architectures=["BertForSequenceClassification"])
    found = models.read(tmp_path)
    assert not found.has_head
    assert "holds no head" in found.warnings[0]


def refused(folder, message, **told):
    with pytest.raises(ModelError, match=message) as error:
        models.read(folder, **told)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_no_model_names_the_missing_file(folder):
    (folder / "model.safetensors").rename(folder / "tf_model.h5")
    refused(folder, r"model\.safetensors is missing \('tf_model\.h5' is not read\)")
    (folder / "config.json").unlink()
    refused(folder, r"config\.json is missing")
    refused(folder / "tokenizer.json", "is a file")
    refused(folder.parent / "tinny", "does not exist: did you mean '.*tiny'")


def test_no_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    refused(folder, r"tokenizer\.json is missing")


def test_a_vocabulary_alone_is_converted(folder):
    before = models.read(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    found = models.read(folder)
    vocabulary = json.loads(found.encoder["tokenizer.json"])["model"]["vocab"]
    assert vocabulary == {word: index for index, word in enumerate(WORDS)}
    assert found.weights_digest == before.weights_digest


def test_a_cut_checkpoint(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(folder, "cut off or damaged")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"auto_map": {"AutoModel": "mine.Model"}}, "code of its own"),
        ({"model_type": None}, "names no model_type"),
        ({"quantization_config": {"bits": 4}}, "quantized already"),
        ({"problem_type": "multi_label_classification"}, "not yet"),
        ({"problem_type": "regression"}, "not yet"),
        ({"id2label": {"0": "a", "1": "b"}}, "3 outputs, but config.json names 2"),
        ({"id2label": {"0": "a", "1": "b", "2": "a"}}, "the same label 'a'"),
        ({"id2label": {"zero": "a"}}, "can't be read"),
    ],
)
def test_configs_that_will_not_do(folder, changes, message):
    configure(folder, **changes)
    refused(folder, message)


def test_a_config_that_is_not_json(folder):
    (folder / "config.json").write_text("{")
    refused(folder, r"config\.json' is not JSON")
    (folder / "config.json").write_bytes(b"\xff\xfe{")
    refused(folder, r"config\.json' is not JSON")


def test_a_number_to_predict(tmp_path):
    bert(num_labels=1).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    refused(tmp_path, "regression.*not yet")


def test_an_onnx_file_is_not_yet(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"")
    refused(tmp_path / "model.onnx", "as --model, alone")


def pickled(folder):
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_a_pickle_only_with_leave_and_then_its_tensors_alone(folder, tmp_path):
    before = models.read(folder)
    pickled(folder)
    refused(folder, "pickle only.*--allow-pickle")
    found = models.read(folder, allow_pickle=True)
    assert found.weights_digest == before.weights_digest
    found.write(tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()


class Harm:
    def __reduce__(self):
        return print, ("harm",)


def test_a_pickle_with_code_is_never_run(folder, capfd):
    pickled(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Harm()}, protocol=2))
    refused(folder, "can't be read as tensors alone", allow_pickle=True)
    assert "harm" not in capfd.readouterr().out


@pytest.mark.parametrize("form", ["tuple", "mapping", "origin"])
def test_a_live_model_reads_like_its_folder(folder, form):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    own = AutoTokenizer.from_pretrained(folder)
    given = {"tuple": (model, own), "mapping": {"model": model, "tokenizer": own}, "origin": model}
    found = models.read(given[form])
    assert found.name == "BertForSequenceClassification"
    assert found.labels == ("play", "stop", "wait")
    assert found.weights_digest == models.read(folder).weights_digest


def test_a_live_model_needs_its_tokenizer():
    refused(bert(), "without its tokenizer")
    refused(42, "type int can't be taken")
    refused({"tokenizer": 1}, 'needs "model"')


def test_labels_by_name(folder):
    found = models.read(folder)
    assert models.labels(found, ["wait", "stop", "play", "stop"]) == ["play", "stop", "wait"]
    with pytest.raises(ModelError, match=r"rows have 'plai', which .*did you mean 'play'.*"
                                         r"model has 'play', for which"):  # fmt: skip
        models.labels(found, ["wait", "stop", "plai"])
    with pytest.raises(ModelError, match="the model has 'wait', for which there is no training"):
        models.labels(found, ["play", "stop"])


def test_labels_by_order_where_the_model_has_no_names(folder, tmp_path):
    configure(folder, id2label={str(index): f"LABEL_{index}" for index in range(3)})
    found = models.read(folder)
    assert (found.labels, found.outputs) == (None, 3)
    assert models.labels(found, ["10", "9", "2"]) == ["2", "9", "10"]
    assert models.labels(found, ["b", "a", "C"]) == ["C", "a", "b"]
    with pytest.raises(ModelError, match="3 outputs without names, the rows have 2 labels"):
        models.labels(found, ["a", "b"])
    with pytest.raises(ModelError, match="without a training row: 1"):
        models.labels(found, ["0", "2"])
    named = models.named(found, ["x", "y", "z"])
    assert named.digest != found.digest
    named.write(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "labels.json").read_text()) == ["x", "y", "z"]
    assert models.read(tmp_path / "out").labels == ("x", "y", "z")


def test_a_student_may_be_a_config_alone(folder):
    refused(folder.parent / "none.json", "does not exist", student=True, task="text-classification")
    found = models.read(folder / "config.json", student=True, task="text-classification")
    assert (found.has_weights, found.has_head, dict(found.encoder)) == (False, False, {})
    (folder / "model.safetensors").unlink()
    found = models.read(folder, student=True)
    assert (found.has_weights, list(found.encoder)) == (False, ["tokenizer.json"])


def test_an_image_model(tmp_path):
    import transformers

    config = transformers.ResNetConfig(
        num_channels=1, embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic",
        num_labels=3,
    )  # fmt: skip
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path)
    refused(tmp_path, r"preprocessor_config\.json")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16},
        "image_mean": [0.5], "image_std": [0.5],
    }))  # fmt: skip
    found = models.read(tmp_path)
    assert (found.kind, found.has_head, found.outputs, found.labels) == ("image", True, 3, None)
    assert json.loads(found.encoder["image.json"])["size"] == [16, 16]
