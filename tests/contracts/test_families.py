"""Every family keeps the contract: shapes from a plain config, names that read back, students."""

from __future__ import annotations

import json

import pytest
import tiny

from edgedistill import plugins
from edgedistill.errors import ModelError
from edgedistill.families import family_of
from edgedistill.train import weights

NAMES = plugins.names("families")
KINDS = [kind for kind in tiny.KINDS if kind != "albert"]


@pytest.fixture(params=NAMES)
def family(request):
    return plugins.find("families", request.param)


@pytest.fixture(params=KINDS)
def teacher(request, tmp_path):
    """A tiny model of each kind: its family, its plain config, the model."""
    folder = tiny.model(tmp_path, request.param)
    config = json.loads((folder / "config.json").read_text())
    task = plugins.find("tasks", tiny.task(request.param))
    return plugins.find("families", family_of(config)), config, weights.load(folder, task)


def test_every_model_type_has_a_tiny_model_that_proves_it(family):
    types = {told.get("model_type", kind) for kind, told in tiny.KINDS.items()}
    assert set(family.MODEL_TYPES) <= types


def test_each_type_is_covered_once():
    types = [kind for name in NAMES for kind in plugins.find("families", name).MODEL_TYPES]
    assert len(types) == len(set(types))
    for kind in types:
        covering = [n for n in NAMES if plugins.find("families", n).covers({"model_type": kind})]
        assert len(covering) == 1


def test_it_covers_nothing_that_it_does_not_name(family):
    assert not family.covers({"model_type": "unheard-of"}) and not family.covers({})


def test_shapes_are_whole_numbers_and_names_read_back(teacher):
    family, config, _ = teacher
    shape = family.shape(config)
    assert all(type(value) is int and value > 0 for value in shape.values())
    assert family.parse("same", shape) == shape
    for student in (*family.defaults(shape), shape):
        assert set(student) == set(shape)
        assert family.parse(family.name(student), shape) == student
        assert family.parse(family.name(student, shape), shape) == student


def test_defaults_are_smaller_the_smallest_first(teacher):
    family, config, _ = teacher
    shape = family.shape(config)
    found = family.defaults(shape)
    assert found and all(student != shape for student in found)
    sizes = [sum(student.values()) for student in found]
    assert sizes == sorted(sizes) and sizes[-1] < sum(shape.values())


def test_defaults_can_be_made_and_have_the_shape_they_say(teacher):
    family, config, model = teacher
    whole = family.shape(config)
    for shape in family.defaults(whole):
        layers = family.layers(shape, whole)
        student, facts = family.shrink(model, shape, layers=layers, init="teacher", seed=0)
        assert family.shape(student.config.to_dict()) == shape
        assert weights.parameters(student) < weights.parameters(model)
        named = [name for kind in ("copied", "sliced", "fresh") for name in facts.get(kind, ())]
        assert sorted(named) == sorted(student.state_dict())
        assert not facts["fresh"]


def test_what_pruning_leaves_can_be_made_untrained_and_has_the_shape_it_says(teacher):
    family, config, model = teacher
    whole = family.shape(config)
    made = 0
    for kind in getattr(family, "PRUNES", ()):
        try:
            shape = family.pruned(whole, {kind: 0.5}, config)
        except ModelError as error:
            assert kind == "heads" and "\n" not in str(error)
            continue
        assert shape != whole and family.between(whole, shape, 1.0, config) == shape
        layers = family.layers(shape, whole)
        student, facts = family.shrink(model, shape, layers=layers, init="teacher", seed=0)
        assert family.shape(student.config.to_dict()) == shape and not facts["fresh"]
        assert weights.parameters(student) < weights.parameters(model)
        made += 1
    assert made >= 2 or not hasattr(family, "PRUNES")
    if made:
        with pytest.raises(ModelError, match=r"known|did you mean"):
            family.pruned(whole, {"x": 0.5}, config)


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "10000", "2x", "1x99999"])
def test_a_shape_that_can_not_be_is_a_clear_error(teacher, text):
    family, config, _ = teacher
    with pytest.raises(ModelError):
        family.parse(text, family.shape(config))


def test_it_says_what_it_is(family):
    assert family.__doc__ and family.MODEL_TYPES and family.PACKAGES
