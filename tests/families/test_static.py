"""Static embeddings: names, tables from a teacher's own, through to a graph that agrees."""

from __future__ import annotations

import json

import pytest
import tiny
import torch

from edgedistill import plugins, settings
from edgedistill.errors import ModelError
from edgedistill.families import family_of, static
from edgedistill.progress import silent
from edgedistill.stages import export, initialize, quantize
from edgedistill.train import weights

ENCODER = {"layers": 6, "hidden": 384, "heads": 12, "feed_forward": 1536, "vocabulary": 30522}
TASK = "text-classification"


def loaded(folder, kind="bert"):
    return weights.load(folder, plugins.find("tasks", tiny.task(kind)))


@pytest.mark.parametrize(("text", "width"), [("static", 256), ("static64", 64), ("static384", 384)])
def test_shapes_of_an_encoders_static_student(text, width):
    shape = static.parse(text, ENCODER)
    assert shape == {"hidden": width, "feed_forward": 2 * width, "vocabulary": 30522}
    assert static.name(shape) == f"static{width}" and static.reads(text)


@pytest.mark.parametrize("text", ["static0", "static4", "static385", "static2x3", "2", "staticky"])
def test_widths_that_can_not_be_say_what_can(text):
    with pytest.raises(ModelError, match="expected"):
        static.parse(text, ENCODER)


def test_a_teacher_of_images_has_no_pieces():
    with pytest.raises(ModelError, match="are for texts"):
        static.parse("static", {name: ENCODER[name] for name in ENCODER if name != "vocabulary"})


@pytest.mark.parametrize("kind", ["bert", "distilbert", "electra", "mpnet", "roberta"])
def test_the_table_is_the_teachers_turned(tmp_path, kind):
    teacher = loaded(tiny.model(tmp_path, kind), kind)
    words = teacher.get_input_embeddings().weight.detach().double()
    width = words.shape[1]
    shape = {"hidden": width, "feed_forward": 8, "vocabulary": len(words)}
    student, facts = static.shrink(teacher, shape, layers=(), init="teacher", seed=0)
    table = student.get_input_embeddings().weight.detach().double()
    assert facts["sliced"] == ["static.embeddings.weight"] and not facts["copied"]
    # a turn keeps all distances between pieces, up to one scale
    ours, theirs = torch.pdist(table), torch.pdist(words)
    assert (ours / theirs).std() < 1e-4 * (ours / theirs).mean()
    spread = table.var(0)
    assert (spread[:-1] >= spread[1:] - 1e-6).all()  # what comes first carries the most
    narrow = {**shape, "hidden": 8}
    first, _ = static.shrink(teacher, narrow, layers=(), init="teacher", seed=0)
    cut = first.get_input_embeddings().weight.detach().double()
    assert torch.allclose(cut / cut.std(), table[:, :8] / table[:, :8].std(), atol=1e-5)


def test_a_table_wider_than_the_teachers_is_filled_with_nothing(tmp_path):
    teacher = loaded(tiny.model(tmp_path, "electra"), "electra")  # 16 wide, and 32 above it
    shape = {"hidden": 32, "feed_forward": 8, "vocabulary": 50}
    student, _ = static.shrink(teacher, shape, layers=(), init="teacher", seed=0)
    assert not student.get_input_embeddings().weight[:, 16:].any()


def test_random_starts_are_the_seeds_and_copy_nothing(tmp_path):
    teacher = loaded(tiny.model(tmp_path))
    shape = static.parse("static16", {**ENCODER, "hidden": 32, "vocabulary": 50})
    made = [static.shrink(teacher, shape, layers=(), init="random", seed=s) for s in (1, 1, 2)]
    tables = [one.get_input_embeddings().weight for one, _ in made]
    assert torch.equal(tables[0], tables[1]) and not torch.equal(tables[0], tables[2])
    assert not made[0][1]["copied"] and made[0][1]["fresh"]


def test_a_static_teacher_of_the_same_shape_is_copied(tmp_path):
    teacher = loaded(tiny.model(tmp_path, "static-embeddings"))
    shape = static.shape(weights.config_of(tmp_path))
    student, facts = static.shrink(teacher, shape, layers=(), init="teacher", seed=3)
    assert not facts["fresh"]
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(student.state_dict()[name], tensor)


def test_a_narrower_one_of_a_static_teacher_answers_much_as_it_does(tmp_path):
    teacher = loaded(tiny.model(tmp_path, "static-embeddings")).eval()
    with torch.no_grad():  # a table that lies almost all in 16 dimensions, off the centre
        low = torch.randn(50, 16) @ torch.randn(16, 32)
        teacher.get_input_embeddings().weight.copy_(low + 3.0 + 1e-3 * torch.randn(50, 32))
    shape = static.parse("static16", static.shape(weights.config_of(tmp_path)))
    student, facts = static.shrink(teacher, shape, layers=(), init="teacher", seed=0)
    assert not facts["fresh"] and shape["feed_forward"] == 64
    pieces = torch.randint(5, 50, (8, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(student(pieces).logits, teacher(pieces).logits, atol=2e-2)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A static student of a tiny encoder, as the stage writes it, and rows."""
    folder = tmp_path_factory.mktemp("static")
    tiny.model(folder / "teacher")
    tiny.rows(folder / "train", folder / "teacher", count=40)
    shape = {"hidden": 128, "feed_forward": 64, "vocabulary": 50}
    told = {"task": TASK, "family": "static", "origin": "encoder"}
    told |= {"shape": shape, "labels": tiny.LABELS}
    made = settings.coerce(initialize.Settings, told, "initialize")
    facts = initialize.run({"teacher.0": folder / "teacher"}, made, folder / "student", silent)
    assert facts["name"] == "static128" and facts["head"] == "new" and facts["layers"] == []
    return folder


def test_the_folder_is_a_model_that_loads_by_its_plain_config(student):
    folder = student / "student"
    config = json.loads((folder / "config.json").read_text())
    assert family_of(config) == "static"
    assert static.shape(config) == {"hidden": 128, "feed_forward": 64, "vocabulary": 50}
    assert config["architectures"] == ["StaticForSequenceClassification"]
    assert (folder / "tokenizer.json").is_file() and weights.labels_of(folder) == list(tiny.LABELS)
    again = loaded(folder)
    assert list(again.config.id2label.values()) == list(tiny.LABELS)
    weights.save(again, student / "again", beside=folder)
    for name in ("model.safetensors", "config.json"):
        assert (student / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_padding_and_order_change_nothing(student):
    model = loaded(student / "student").eval()
    one = torch.tensor([[2, 20, 21, 22, 3]])
    turned = torch.tensor([[3, 22, 21, 20, 2, 0, 0, 0]])
    with torch.no_grad():
        alone = model(one, attention_mask=torch.ones_like(one)).logits
        padded = model(turned, attention_mask=(turned != 0).long()).logits
    assert torch.allclose(alone, padded, atol=1e-6)


def test_the_graph_agrees_with_torch_and_int8_with_the_graph(student):
    encoder = tiny.encoder(student / "teacher", "bert")
    told = settings.coerce(export.Settings, {"task": TASK, "encoder": encoder}, "export")
    facts = export.run({"model.0": student / "student"}, told, _made(student / "graph"), silent)
    assert facts["nodes"] < 20
    told = settings.coerce(quantize.Settings, {"task": TASK, "encoder": encoder}, "quantize")
    inputs = {"graph.0": student / "graph", "train.0": student / "train"}
    facts = quantize.run(inputs, told, _made(student / "int8"), silent)
    assert facts["against_parent"]["agreement_points"] > 95
    sizes = [(student / name / "model.onnx").stat().st_size for name in ("graph", "int8")]
    assert sizes[1] < sizes[0] / 2  # the table too, one scale a row


def _made(folder):
    folder.mkdir(exist_ok=True)
    return folder


def test_a_loss_that_reads_inside_says_that_there_is_nothing(student):
    with pytest.raises(ModelError, match=r"no 'hidden\.1'"):
        static.locate("hidden.1", None)


def test_training_reaches_it_through_the_loop(student, tmp_path):
    from edgedistill.stages import distill

    tiny.rows(tmp_path / "train", student / "student", count=240, seed=4)
    tiny.rows(tmp_path / "validation", student / "student", count=60, seed=5)
    inputs = {name: tmp_path / name.partition(".")[0] for name in ("train.0", "validation.0")}
    inputs["student.0"] = student / "student"
    values = {
        "task": TASK,
        "family": "static",
        "encoder": tiny.encoder(student / "teacher", "bert"),
    }
    values |= {"losses": {"hard_labels": {"weight": 1.0}}, "alpha": 0.0, "steps": 150}
    made = settings.coerce(
        distill.Settings, {**values, **static.TRAINING, "rate": 8e-3, "batch": 16}, "distill"
    )
    facts = distill.run(inputs, made, _made(tmp_path / "out"), silent)
    assert facts["best"]["score"] > 85
    assert facts["parameters"] == weights.parameters(loaded(tmp_path / "out"))
