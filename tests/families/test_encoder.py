"""Encoders: shapes from plain configs, students of the teacher's own layers, each model type."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
import torch

from edgedistill import plugins
from edgedistill.errors import ModelError
from edgedistill.families import _projection, _stack, encoder, family_of
from edgedistill.train import weights

KINDS = ("hidden", "attention", "query", "value")
SHAPE = {"layers": 6, "hidden": 384, "heads": 12, "feed_forward": 1536, "vocabulary": 30522}


def loaded(folder, kind):
    return weights.load(folder, plugins.find("tasks", tiny.task(kind)))


def answers(model, kind, folder, rows):
    from edgedistill.train.batches import Examples
    from edgedistill.train.outputs import logits

    task = plugins.find("tasks", tiny.task(kind))
    opened = task.open_encoder(folder, tiny.encoder(folder, kind))
    return np.concatenate(list(logits(model, Examples([rows]), task.forward, opened)))


@pytest.mark.parametrize("kind", encoder.MODEL_TYPES)
def test_each_model_type_gives_a_student_of_its_own_layers(tmp_path, kind):
    folder = tiny.model(tmp_path / "teacher", kind)
    config = json.loads((folder / "config.json").read_text())
    shape = encoder.shape(config)
    assert (shape["layers"], shape["hidden"], shape["heads"], shape["feed_forward"]) == (
        4,
        32,
        4,
        64,
    )
    assert ("vocabulary" in shape) == (kind not in tiny.IMAGES)
    assert family_of(config) == "encoder"
    teacher = loaded(folder, kind)
    wanted = {**shape, "layers": 2}
    student, facts = encoder.shrink(teacher, wanted, layers=[1, 3], init="teacher", seed=0)
    assert not facts["fresh"]
    stack = encoder.stack(teacher)
    for ours, theirs in ((0, 1), (1, 3)):
        mine = student.get_submodule(f"{stack}.{ours}").state_dict()
        for name, tensor in teacher.get_submodule(f"{stack}.{theirs}").state_dict().items():
            assert torch.equal(mine[name], tensor), name
    out = tmp_path / "student"
    weights.save(student, out, beside=folder)
    assert encoder.shape(json.loads((out / "config.json").read_text()))["layers"] == 2
    rows = tiny.rows(tmp_path / "rows", folder, kind, count=6)
    again = answers(loaded(out, kind), kind, out, rows)
    assert np.array_equal(again, answers(student, kind, folder, rows))
    assert np.abs(again - answers(teacher, kind, folder, rows)).max() > 1e-3


@pytest.mark.parametrize("kind", ["bert", "distilbert", "mpnet", "vit"])
def test_a_student_of_all_layers_is_the_teacher(tmp_path, kind):
    folder = tiny.model(tmp_path / "teacher", kind)
    teacher = loaded(folder, kind)
    shape = encoder.shape(weights.config_of(folder))
    student, _ = encoder.shrink(teacher, shape, layers=range(4), init="teacher", seed=0)
    rows = tiny.rows(tmp_path / "rows", folder, kind, count=5)
    assert np.array_equal(
        answers(student, kind, folder, rows), answers(teacher, kind, folder, rows)
    )


def test_a_random_start_copies_nothing_and_is_the_seeds(tmp_path):
    teacher = loaded(tiny.model(tmp_path, "bert"), "bert")
    shape = {**encoder.shape(weights.config_of(tmp_path)), "layers": 2}

    def made(seed):
        student, facts = encoder.shrink(teacher, shape, layers=[0, 1], init="random", seed=seed)
        assert not facts["copied"] and facts["fresh"]
        return student.bert.embeddings.word_embeddings.weight

    assert torch.equal(made(1), made(1))
    assert not torch.equal(made(1), made(2))
    assert not torch.equal(made(1), teacher.bert.embeddings.word_embeddings.weight)


def test_albert_is_refused_with_its_reason(tmp_path):
    tiny.model(tmp_path, "albert")
    with pytest.raises(ModelError, match=r"albert.*one and the same"):
        family_of(weights.config_of(tmp_path))


def test_an_unknown_type_is_refused_with_those_that_can():
    with pytest.raises(ModelError, match=r"'llama' can't be shrunk.*bert.*resnet"):
        family_of({"model_type": "llama"})


def test_a_config_without_a_dimension_names_it():
    with pytest.raises(ModelError, match="num_hidden_layers"):
        encoder.shape({"model_type": "bert", "hidden_size": 8})


@pytest.mark.parametrize(
    ("text", "layers", "hidden", "heads", "feed_forward"),
    [
        ("2", 2, 384, 12, 1536),
        ("3x256", 3, 256, 8, 1024),
        ("3x256x512", 3, 256, 8, 512),
        ("same", 6, 384, 12, 1536),
    ],
)
def test_shapes_are_read_and_written(text, layers, hidden, heads, feed_forward):
    shape = encoder.parse(text, SHAPE)
    assert [shape[name] for name in ("layers", "hidden", "heads", "feed_forward")] == [
        layers, hidden, heads, feed_forward,
    ]  # fmt: skip
    assert shape["vocabulary"] == 30522
    assert encoder.name(shape) == f"{layers}x{hidden}"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("7", "1 to 6"),
        ("0", "1 to 6"),
        ("2x250", "head size, 32.* such as 256"),
        ("2x9999", "such as 384"),
        ("two", "2x256"),
        ("2x256x4", "feed-forward of 4: expected 8 to 1,536"),
        ("2v90000", "vocabulary of 90,000: expected 1 to 30,522"),
        ("2v", "2x256v6000"),
    ],
)
def test_a_shape_that_can_not_be_says_what_can(text, part):
    with pytest.raises(ModelError, match=part):
        encoder.parse(text, SHAPE)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("2", "2x384"),
        ("2v6000", "2x384v6000"),
        ("2x256", "2x256"),
        ("2x256x512v6000", "2x256x512v6000"),
        ("2x256x1024", "2x256"),
        ("samev6000", "6x384v6000"),
        ("2v30522", "2x384"),
    ],
)
def test_the_name_of_a_student_says_what_it_does_not_share(text, name):
    shape = encoder.parse(text, SHAPE)
    assert encoder.name(shape, SHAPE) == name
    assert encoder.parse(name, SHAPE) == shape


def test_images_have_no_vocabulary():
    images = {name: value for name, value in SHAPE.items() if name != "vocabulary"}
    with pytest.raises(ModelError, match="no vocabulary"):
        encoder.parse("2v6000", images)
    assert encoder.name(encoder.parse("2", images), images) == "2x384"


def test_embeddings_that_stay_are_the_teachers_at_their_new_place(tmp_path):
    teacher = loaded(tiny.model(tmp_path, "bert"), "bert")
    before = teacher.get_input_embeddings().weight.clone()
    encoder.fold(teacher, [0, 1, 7, 5])
    assert torch.equal(teacher.get_input_embeddings().weight, before[[0, 1, 7, 5]])
    assert encoder.shape(teacher.config.to_dict())["vocabulary"] == 4
    with pytest.raises(ModelError, match="embeddings for 4"):
        encoder.fold(teacher, [0, 4])


def test_defaults_are_a_third_and_a_half():
    assert [shape["layers"] for shape in encoder.defaults(SHAPE)] == [2, 3]
    assert [shape["layers"] for shape in encoder.defaults({**SHAPE, "layers": 12})] == [4, 6]
    assert [shape["layers"] for shape in encoder.defaults({**SHAPE, "layers": 2})] == [1]
    assert not encoder.defaults({**SHAPE, "layers": 1})


def test_layers_are_the_bottom_ones_up_to_a_third_then_spread():
    assert encoder.layers({**SHAPE, "layers": 2}, SHAPE) == [0, 1]
    assert encoder.layers({**SHAPE, "layers": 3}, SHAPE) == [0, 2, 4]
    assert encoder.layers(SHAPE, SHAPE) == [0, 1, 2, 3, 4, 5]


def test_layers_that_the_teacher_has_not_are_an_error(tmp_path):
    teacher = loaded(tiny.model(tmp_path, "bert"), "bert")
    shape = {**encoder.shape(weights.config_of(tmp_path)), "layers": 2}
    with pytest.raises(ModelError, match="0 to 3"):
        encoder.shrink(teacher, shape, layers=[0, 4], init="teacher", seed=0)


@pytest.mark.parametrize("kind", encoder.MODEL_TYPES)
def test_names_that_losses_read_lie_where_they_say(tmp_path, kind):
    """What is caught is what transformers itself calls hidden states and attentions."""
    from edgedistill.train.signals import Taps

    folder = tiny.model(tmp_path / "model", kind)
    model = loaded(folder, kind)
    needs = ["embeddings", "key.3", *(f"{one}.{i}" for one in KINDS for i in range(4))]
    taps = Taps(model, needs, encoder)
    opened = plugins.find("tasks", tiny.task(kind)).open_encoder(folder, tiny.encoder(folder, kind))
    from edgedistill.train.batches import Examples, tensors

    rows = Examples([tiny.rows(tmp_path / "rows", folder, kind, count=3)])
    batch = tensors(opened.batch(rows.rows([0, 1, 2])), "cpu")
    with torch.no_grad():
        told = model(**batch, output_hidden_states=True, output_attentions=True)
    caught = taps.take(None)
    length = caught["embeddings"].shape[1]
    assert torch.equal(caught["embeddings"], told.hidden_states[0])
    for index in range(4):
        assert torch.equal(caught[f"attention.{index}"], told.attentions[index])
        assert caught[f"hidden.{index}"].shape == (3, length, 32)
        if index < 3:  # of the last some models give what their final norm makes of it
            assert torch.equal(caught[f"hidden.{index}"], told.hidden_states[index + 1])
        one, other = caught[f"query.{index}"], caught[f"value.{index}"]
        assert one.shape == other.shape == (3, length, 32) and not torch.equal(one, other)
    if kind != "mpnet":  # it adds biases of relative positions to its scores
        query, key = (caught[f"{one}.3"].view(3, length, 4, 8) for one in ("query", "key"))
        scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / 8**0.5
        if "attention_mask" in batch:
            scores = scores.masked_fill(batch["attention_mask"][:, None, None] == 0, -1e9)
        assert torch.allclose(scores.softmax(-1), caught["attention.3"], atol=1e-5)


def test_a_layer_that_is_not_there_is_named(tmp_path):
    model = loaded(tiny.model(tmp_path, "bert"), "bert")
    for name in ("hidden.4", "attention.", "logit", "feature.0"):
        with pytest.raises(ModelError, match=name):
            encoder.locate(name, model)


@pytest.mark.parametrize("kind", encoder.MODEL_TYPES)
def test_a_narrower_student_is_slices_of_the_teacher(tmp_path, kind):
    folder = tiny.model(tmp_path / "teacher", kind)
    teacher = loaded(folder, kind)
    shape = encoder.parse("2x16", encoder.shape(weights.config_of(folder)))
    assert (shape["hidden"], shape["heads"], shape["feed_forward"]) == (16, 2, 32)
    how = {"layers": [0, 2], "init": "teacher", "seed": 0}
    student, facts = encoder.shrink(teacher, shape, width="select", **how)
    assert facts["sliced"] and not facts["fresh"]
    assert encoder.shape(student.config.to_dict()) == shape
    for name, tensor in student.state_dict().items():  # every value is one of the teacher's
        origin = _stack.source_name(name, encoder.stack(teacher), [0, 2])
        assert torch.isin(tensor, teacher.state_dict()[origin]).all(), name
    out = tmp_path / "student"
    weights.save(student, out, beside=folder)
    rows = tiny.rows(tmp_path / "rows", folder, kind, count=3)
    again = answers(loaded(out, kind), kind, out, rows)
    assert np.array_equal(again, answers(student, kind, folder, rows))


def test_the_same_dimensions_are_kept_all_through_the_model(tmp_path):
    teacher = loaded(tiny.model(tmp_path, "bert"), "bert")
    with torch.no_grad():  # each dimension has its own number in every norm
        for name, parameter in teacher.named_parameters():
            if name.endswith("LayerNorm.weight"):
                parameter.copy_(torch.arange(32.0))
    shape = encoder.parse("2x16", encoder.shape(weights.config_of(tmp_path)))
    how = {"layers": [0, 1], "init": "teacher", "seed": 0}
    student, _ = encoder.shrink(teacher, shape, width="select", **how)
    norms = [p for n, p in student.named_parameters() if n.endswith("LayerNorm.weight")]
    kept = norms[0].long()
    assert len(norms) == 5 and all(torch.equal(norm.long(), kept) for norm in norms)
    table = teacher.bert.embeddings.word_embeddings.weight[:, kept]
    assert torch.equal(student.bert.embeddings.word_embeddings.weight, table)
    assert torch.equal(student.classifier.weight, teacher.classifier.weight[:, kept])
    ours, theirs = student.bert.encoder.layer[1], teacher.bert.encoder.layer[1]
    neurons = ours.intermediate.dense.weight
    assert all((theirs.intermediate.dense.weight[:, kept] == row).all(1).any() for row in neurons)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "vit", "mpnet"])
def test_neurons_that_say_nothing_are_the_ones_left_out(tmp_path, kind):
    folder = tiny.model(tmp_path / "teacher", kind)
    teacher = loaded(folder, kind)
    shape = dict(encoder.shape(weights.config_of(folder)))
    quiet = torch.randperm(64, generator=torch.Generator().manual_seed(0))[:24]
    with torch.no_grad():
        for parameter in teacher.get_submodule(encoder.stack(teacher)).parameters():
            if parameter.shape == (32, 64):
                parameter[:, quiet] = 0.0
            elif parameter.shape == (64, 32):
                parameter[quiet] *= 1e-3
    narrow = {**shape, "feed_forward": 40}
    student, facts = encoder.shrink(teacher, narrow, layers=range(4), init="teacher", seed=0)
    assert facts["sliced"] and not facts["fresh"]
    rows = tiny.rows(tmp_path / "rows", folder, kind, count=5)
    ours, theirs = (answers(one, kind, folder, rows) for one in (student, teacher))
    assert ours == pytest.approx(theirs, abs=1e-5)


# ---------------------------------------------------------------- width by projection


@pytest.mark.parametrize("kind", encoder.MODEL_TYPES)
def test_a_narrower_student_can_be_a_projection_of_the_teacher(tmp_path, kind):
    folder = tiny.model(tmp_path / "teacher", kind)
    teacher = loaded(folder, kind)
    shape = encoder.parse("2x16", encoder.shape(weights.config_of(folder)))
    how = {"layers": [0, 2], "init": "teacher", "seed": 0}
    student, facts = encoder.shrink(teacher, shape, width="pca", **how)
    assert facts["sliced"] and not facts["fresh"]
    assert encoder.shape(student.config.to_dict()) == shape
    assert all(tensor.isfinite().all() for tensor in student.state_dict().values())
    again, _ = encoder.shrink(teacher, shape, width="pca", **how)
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    out = tmp_path / "student"
    weights.save(student, out, beside=folder)
    rows = tiny.rows(tmp_path / "rows", folder, kind, count=3)
    assert np.isfinite(answers(loaded(out, kind), kind, out, rows)).all()


def test_a_projection_keeps_a_stream_that_lies_in_fewer_dimensions(tmp_path, monkeypatch):
    """A teacher that uses 15 directions and the mean, with plain norms, is projected exactly."""
    teacher = loaded(tiny.model(tmp_path / "teacher", "bert"), "bert")
    draw = torch.Generator().manual_seed(0)
    span = torch.cat([torch.full((32, 1), 1.0), torch.randn(32, 15, generator=draw)], dim=1)
    within = torch.linalg.qr(span)[0]
    within = (within @ within.T).float()
    with torch.no_grad():
        for name, tensor in teacher.named_parameters():
            if "LayerNorm" in name:
                tensor.fill_(1.0 if name.endswith("weight") else 0.0)
            elif name.endswith(("output.dense.weight", "output.dense.bias")):
                tensor.copy_(within @ tensor)
            elif tensor.shape[-1] == 32 and tensor.ndim == 2:
                tensor.copy_(tensor @ within)
    shape = dict(encoder.shape(weights.config_of(tmp_path / "teacher")))
    narrow = {**shape, "hidden": 16, "heads": 2}
    made = []

    class Spied(_projection.Projection):
        def __init__(self, *told, **table):
            super().__init__(*told, **table)
            made.append(self._basis.float())

    monkeypatch.setattr(_projection, "Projection", Spied)
    how = {"layers": range(4), "init": "teacher", "seed": 0}
    student, _ = encoder.shrink(teacher, narrow, width="pca", **how)
    basis = made[0]
    assert torch.allclose(basis.T @ basis, torch.eye(16), atol=1e-5)
    ids = torch.arange(5, 12)[None]
    with torch.no_grad():
        ours, theirs = student.bert.embeddings(ids), teacher.bert.embeddings(ids)
    assert ours.numpy() == pytest.approx((theirs @ basis).numpy(), abs=1e-3)


def test_width_is_refused_where_a_family_knows_but_one_way(tmp_path):
    from edgedistill import settings
    from edgedistill.errors import JobError
    from edgedistill.progress import silent
    from edgedistill.stages import initialize

    tiny.model(tmp_path / "teacher", "resnet")
    told = {"task": "image-classification", "family": "resnet", "width": "pca"}
    made = settings.coerce(initialize.Settings, told, "")
    with pytest.raises(JobError, match="resnet students have one way alone: 'family'"):
        initialize.run({"teacher.0": tmp_path / "teacher"}, made, tmp_path / "out", silent)


@pytest.mark.parametrize(("kind", "way"), [("bert", "pca"), ("vit", "select")])
def test_the_family_projects_texts_and_selects_for_images(tmp_path, kind, way):
    folder = tiny.model(tmp_path, kind)
    teacher = loaded(folder, kind)
    shape = encoder.parse("2x16", encoder.shape(weights.config_of(folder)))
    how = {"layers": [0, 1], "init": "teacher", "seed": 0}
    made = [encoder.shrink(teacher, shape, **how, **more)[0] for more in ({}, {"width": way})]
    for one, other in zip(*(each.state_dict().values() for each in made), strict=True):
        assert torch.equal(one, other)
