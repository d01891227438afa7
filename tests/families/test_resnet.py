"""Residual networks: shapes, and students of the blocks and channels that weigh most."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from edgedistill import plugins
from edgedistill.errors import ModelError
from edgedistill.families import family_of, resnet
from edgedistill.train import weights
from edgedistill.train.signals import Taps

TASK = "image-classification"
TEACHER = resnet.shape({"depths": [4, 4, 4], "hidden_sizes": [32, 64, 128], "embedding_size": 32})


@pytest.fixture(params=["resnet", "bottleneck"])
def teacher(request, tmp_path):
    folder = tiny.model(tmp_path / "teacher", request.param)
    return weights.load(folder, plugins.find("tasks", TASK))


def outputs(model, seed=0):
    images = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model.eval()(pixel_values=images).logits.numpy()


def shape_of(model):
    return resnet.shape(model.config.to_dict())


def shrunk(teacher, shape, **told):
    own = resnet.layers(shape, shape_of(teacher))
    return resnet.shrink(teacher, shape, **{"layers": own, "init": "teacher", "seed": 0, **told})


def test_a_student_of_all_blocks_and_channels_is_the_teacher(teacher):
    student, facts = shrunk(teacher, shape_of(teacher))
    assert not facts["fresh"] and not facts["sliced"]
    assert np.array_equal(outputs(student), outputs(teacher))


def test_dropping_channels_that_are_always_zero_changes_nothing(teacher):
    """The half with the smallest scales is silenced in the teacher: the student leaves it out."""
    draw = torch.Generator().manual_seed(0)
    stages = teacher.config.hidden_sizes
    silent = {
        width: torch.randperm(width, generator=draw)[: width // 2]
        for width in {*stages, *(one // 4 for one in stages), teacher.config.embedding_size}
    }
    with torch.no_grad():
        for module in teacher.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.copy_(torch.rand(len(module.weight), generator=draw) + 0.5)
                module.running_mean.copy_(torch.randn(len(module.weight), generator=draw))
                module.weight[silent[len(module.weight)]] = 0.0
    shape = shape_of(teacher)
    half = {name: value // 2 if "c" in name[:1] else value for name, value in shape.items()}
    half["embedding"] = shape["embedding"] // 2
    student, facts = shrunk(teacher, half)
    assert not facts["fresh"] and facts["sliced"]
    assert np.allclose(outputs(student), outputs(teacher), atol=1e-4)
    assert np.abs(outputs(teacher)).max() > 1e-3


def test_fewer_blocks_are_each_stages_first(teacher):
    shape = {**shape_of(teacher), "blocks": 2, "blocks.0": 1, "blocks.1": 1}
    assert resnet.layers(shape, shape_of(teacher)) == [0, 2]
    student, facts = shrunk(teacher, shape)
    assert not facts["fresh"] and not facts["sliced"]
    ours = student.state_dict()["resnet.encoder.stages.1.layers.0.layer.0.convolution.weight"]
    theirs = teacher.state_dict()["resnet.encoder.stages.1.layers.0.layer.0.convolution.weight"]
    assert torch.equal(ours, theirs)
    assert student.config.depths == [1, 1]


def test_a_stage_without_its_first_block_is_an_error(teacher):
    shape = {**shape_of(teacher), "blocks": 2, "blocks.0": 1, "blocks.1": 1}
    with pytest.raises(ModelError, match="stage 1"):
        shrunk(teacher, shape, layers=[0, 3])


def test_a_random_start_copies_nothing(teacher):
    student, facts = shrunk(teacher, shape_of(teacher), init="random", seed=3)
    assert not facts["copied"] and facts["fresh"]
    assert not np.array_equal(outputs(student), outputs(teacher))


def test_the_teacher_is_left_as_it_was(teacher):
    before = outputs(teacher)
    shrunk(teacher, {**shape_of(teacher), "blocks": 2, "blocks.0": 1, "blocks.1": 1})
    assert np.array_equal(outputs(teacher), before)


def test_shapes_are_read_and_written():
    assert (TEACHER["stages"], TEACHER["blocks"], TEACHER["channels"]) == (3, 12, 128)
    assert resnet.name(TEACHER) == "12x128"
    half = resnet.parse("3x64", TEACHER)
    assert [half[f"channels.{stage}"] for stage in range(3)] == [16, 32, 64]
    assert [half[f"blocks.{stage}"] for stage in range(3)] == [1, 1, 1]
    assert half["embedding"] == 16
    assert [resnet.parse("5", TEACHER)[f"blocks.{stage}"] for stage in range(3)] == [2, 2, 1]
    assert resnet.parse("same", TEACHER) == TEACHER
    assert family_of({"model_type": "resnet"}) == "resnet"


@pytest.mark.parametrize(
    ("text", "part"), [("2", r"3 \(one a stage\) to 12"), ("3x256", "8 to 128"), ("big", "4x256")]
)
def test_a_shape_that_can_not_be_says_what_can(text, part):
    with pytest.raises(ModelError, match=part):
        resnet.parse(text, TEACHER)


def test_defaults_are_smaller_and_the_smallest_comes_first():
    small, large = resnet.defaults(TEACHER)
    assert resnet.name(small) == "3x64" and resnet.name(large) == "6x128"


def test_a_student_whose_stem_is_as_wide_as_its_first_stage_has_no_shortcut_there(tmp_path):
    folder = tiny.model(tmp_path, "bottleneck")
    whole = weights.load(folder, plugins.find("tasks", TASK))
    shape = resnet.parse("2x16", shape_of(whole))
    assert shape["embedding"] == shape["channels.0"] == 8
    student, facts = shrunk(whole, shape)
    assert not any("stages.0.layers.0.shortcut" in name for name in student.state_dict())
    assert not facts["fresh"] and np.isfinite(outputs(student)).all()


def test_what_losses_read_lies_where_it_says(teacher):
    path = resnet.locate("hidden.2", teacher)
    assert path == "resnet.encoder.stages.1.layers.0"
    teacher.get_submodule(path)
    assert resnet.locate("feature.1", teacher) == "resnet.encoder.stages.1"
    for name in ("feature.3", "hidden.12", "hidden.x"):
        with pytest.raises(ModelError, match=name):
            resnet.locate(name, teacher)
    with pytest.raises(ModelError, match="attention"):
        resnet.locate("attention.0", teacher)


@pytest.mark.parametrize("kind", ["resnet", "bottleneck"])
def test_what_stages_give_is_what_transformers_calls_hidden_states(tmp_path, kind):
    model = weights.load(tiny.model(tmp_path, kind), plugins.find("tasks", tiny.task(kind)))
    taps = Taps(model, ["feature.0", "feature.1"], resnet)
    told = model(torch.randn(2, 1, 16, 16), output_hidden_states=True)
    caught = taps.take(None)
    for stage in range(2):
        assert torch.equal(caught[f"feature.{stage}"], told.hidden_states[stage + 1])


def test_a_config_without_a_dimension_names_it():
    with pytest.raises(ModelError, match="hidden_sizes"):
        resnet.shape({"depths": [1]})
