"""Pruning: importance by hand, and that what is left computes what the masked model computes."""

from __future__ import annotations

import copy
import json

import pytest
import tiny
import torch
from torch import nn

from edgedistill import plugins
from edgedistill.errors import MissingPackage, ModelError
from edgedistill.families import _channels, _pruning, encoder, resnet
from edgedistill.train import weights

BERT = {"model_type": "bert"}
SHAPE = {"layers": 6, "hidden": 384, "heads": 12, "feed_forward": 1536, "vocabulary": 30522}
RESNET = {"depths": [2, 3], "hidden_sizes": [64, 128], "embedding_size": 64, "layer_type": "basic"}


# ---------------------------------------------------------------- importance


class Layer(nn.Module):
    """Two heads of two channels, and four channels of feed-forward; all it gives is added."""

    def __init__(self):
        super().__init__()
        self.attention = nn.ModuleDict({"output": nn.ModuleDict({"dense": nn.Linear(4, 4)})})
        self.intermediate, self.output = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, hidden_states):
        ours = self.attention["output"]["dense"](hidden_states)
        return (hidden_states + ours + self.output(self.intermediate(hidden_states).relu()),)


class Toy(nn.Module):
    device = torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Layer()])
        with torch.no_grad():
            for one in self.parameters():
                one.zero_()
            layer = self.layers[0]
            layer.attention["output"]["dense"].weight.copy_(
                torch.diag(torch.tensor([1.0, 1.0, 0.5, -2.0]))
            )
            layer.intermediate.weight.copy_(torch.eye(4))
            layer.output.weight.copy_(torch.diag(torch.tensor([1.0, -1.0, 0.0, 2.0])))


def test_importance_is_what_a_hand_computes():
    """Of x = 1, 2, 3, 4 and the loss sum(y): heads 1 + 2 and 1.5 - 8, channels 1, -2, 0, 8."""
    toy = Toy()
    with _pruning.gated(toy, "layers", heads=2) as read:
        toy.layers[0](torch.tensor([[1.0, 2.0, 3.0, 4.0]]))[0].sum().backward()
        found = read()
    assert found["heads.0"].tolist() == [3.0, -6.5]
    assert found["feed_forward.0"].tolist() == [1.0, -2.0, 0.0, 8.0]
    assert found["layers"].tolist() == [-3.5 + 7.0]
    assert all(each.requires_grad for each in toy.parameters())
    assert not toy.layers[0]._forward_hooks


def loaded(folder, kind):
    return weights.load(folder, plugins.find("tasks", tiny.task(kind))).eval()


def inputs(kind):
    draw = torch.Generator().manual_seed(0)
    if kind in tiny.IMAGES:
        channels = 1 if kind in ("resnet", "bottleneck") else 3
        return {"pixel_values": torch.rand(3, channels, 16, 16, generator=draw)}
    ids = torch.randint(5, 45, (3, 9), generator=draw)
    mask = torch.ones_like(ids)
    ids[1, 6:], mask[1, 6:] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


def answers(model, kind):
    with torch.no_grad():
        return model.eval()(**inputs(kind)).logits


def family_of(kind):
    return resnet if kind in ("resnet", "bottleneck") else encoder


def test_the_gates_gradient_is_that_of_real_gates(tmp_path):
    """A head's and a channel's, by gates that are really there."""
    model = loaded(tiny.model(tmp_path, "bert"), "bert")
    with encoder.gated(model) as read:
        model(**inputs("bert")).logits.square().sum().backward()
        found = read()
    layer = model.bert.encoder.layer[1]
    heads, channels = torch.ones(4, requires_grad=True), torch.ones(64, requires_grad=True)
    layer.attention.output.dense.register_forward_pre_hook(
        lambda _, given: (given[0] * heads.repeat_interleave(8),)
    )
    layer.output.dense.register_forward_pre_hook(lambda _, given: (given[0] * channels,))
    model(**inputs("bert")).logits.square().sum().backward()
    assert torch.allclose(found["heads.1"], heads.grad, rtol=1e-3, atol=1e-4)
    assert torch.allclose(found["feed_forward.1"], channels.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["resnet", "bottleneck"])
def test_the_channels_gates_are_those_behind_the_normalisations(tmp_path, kind):
    model = spread(loaded(tiny.model(tmp_path, kind), kind))
    with resnet.gated(model) as read:
        model(**inputs(kind)).logits.square().sum().backward()
        found = read()
    path = next(name for name in found if "layers.1.layer.0" in name)
    gates = torch.ones(len(found[path]), requires_grad=True)
    norm = model.get_submodule(path)
    norm.register_forward_hook(lambda *told: told[2] * gates[:, None, None])
    model(**inputs(kind)).logits.square().sum().backward()
    assert torch.allclose(found[path], gates.grad, rtol=1e-3, atol=1e-4)
    assert len(found["layers"]) == sum(model.config.depths)


# ---------------------------------------------------------------- what is left


def spread(model):
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(torch.rand(len(module.weight), generator=draw) + 0.5)
                module.bias.copy_(torch.randn(len(module.bias), generator=draw) * 0.1)
                module.running_mean.copy_(torch.randn(len(module.weight), generator=draw) * 0.1)
    return model


def worth(model, kind):
    draw = torch.Generator().manual_seed(2)
    with family_of(kind).gated(model) as read:
        model(**inputs(kind)).logits.sum().backward()
        return {name: torch.rand(each.shape, generator=draw) for name, each in read().items()}


def skip(_, given, named, output):
    first = given[0] if given else named["hidden_states"]
    return (first, *output[1:]) if isinstance(output, tuple) else first


def silence_encoder(model, importance, shape, target):
    """Zero what reads the units that go; a layer that goes gives back what it is given."""
    layers, kept = _pruning.keep(importance, shape, target)
    stack = model.get_submodule(encoder.stack(model))
    with torch.no_grad():
        for index, layer in enumerate(stack):
            if index not in layers:
                layer.register_forward_hook(skip, with_kwargs=True)
                continue
            for name, attention in (("channels", True), ("feed_forward", False)):
                if name in kept[str(index)]:
                    weight = _pruning._reader(layer, attention).weight
                    gone = torch.ones(weight.shape[1], dtype=torch.bool)
                    gone[kept[str(index)][name]] = False
                    weight[:, gone] = 0.0


def silence_resnet(model, importance, shape, target):
    """Zero scale and shift of the channels that go, and of the last norm of a block that goes."""
    config = copy.deepcopy(model.config)
    config.embedding_size, config.hidden_sizes = target["embedding"], resnet._channels_of(target)
    skeleton = type(model)(config)
    blocks = resnet._best_blocks(
        importance["layers"].tolist(), model.config.depths, resnet._blocks(target)
    )
    with torch.no_grad():
        for name, group in _channels.trace(model)[1].items():
            count = skeleton.get_submodule(group.root).out_channels
            gone = importance[name].argsort(descending=True, stable=True)[count:]
            for path in group.norms:
                model.get_submodule(path).weight[gone] = 0.0
                model.get_submodule(path).bias[gone] = 0.0
        for index, place in enumerate(resnet._places(model)):
            if index not in blocks:
                norm = model.get_submodule(_channels._last(model, place))
                norm.weight.zero_()
                norm.bias.zero_()


@pytest.mark.parametrize(
    ("kind", "wish"),
    [
        ("bert", {"feed_forward": 0.5, "layers": 3}),
        ("distilbert", {"": 24}),
        ("mpnet", {"layers": 0.5, "": 0.25}),
        ("vit", {"heads": 0.5, "feed_forward": 0.5, "layers": 3}),
        ("dinov2", {"heads": 3, "feed_forward": 0.5}),
        ("resnet", {"channels": 0.5, "layers": 3}),
        ("bottleneck", {"": 0.5, "layers": 0.8}),
    ],
)
def test_what_is_left_answers_as_the_masked_model_and_loads_again(tmp_path, kind, wish):
    """Exact but for rounding; and plain transformers loads it, which knows nothing of us."""
    from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

    family, folder = family_of(kind), tiny.model(tmp_path / "whole", kind)
    model = spread(loaded(folder, kind))
    config = json.loads((folder / "config.json").read_text())
    shape = family.shape(config)
    target = family.pruned(shape, wish, config)
    importance = worth(model, kind)
    before = answers(model, kind)
    small, facts = family.prune(model, target, importance)
    assert torch.equal(answers(model, kind), before), "the model itself is left as it was"
    silence = silence_resnet if family is resnet else silence_encoder
    silence(model, importance, shape, target)
    assert torch.allclose(answers(small, kind), answers(model, kind), atol=1e-4)
    assert not torch.allclose(answers(small, kind), before, atol=1e-2)
    assert family.shape(small.config.to_dict()) == target
    assert len(facts["layers"]) == target["layers" if "layers" in target else "blocks"]
    weights.save(small, tmp_path / "small", beside=folder)
    images = kind in tiny.IMAGES
    auto = AutoModelForImageClassification if images else AutoModelForSequenceClassification
    again = auto.from_pretrained(tmp_path / "small", attn_implementation="eager")
    assert torch.allclose(answers(again, kind), answers(small, kind), atol=1e-6)
    assert weights.parameters(again) == weights.parameters(small) < weights.parameters(model)


def test_the_most_important_units_stay_of_equals_the_first(tmp_path):
    model = loaded(tiny.model(tmp_path, "bert"), "bert")
    shape = encoder.shape(model.config.to_dict())
    importance = {name: torch.zeros_like(each) for name, each in worth(model, "bert").items()}
    importance["feed_forward.2"][50] = 1.0
    importance["layers"][[1, 2]] = 1.0
    target = {**shape, "layers": 3, "feed_forward": 8}
    layers, kept = _pruning.keep(importance, shape, target)
    assert layers == [0, 1, 2]
    assert kept["2"]["feed_forward"].tolist() == [0, 1, 2, 3, 4, 5, 6, 50]
    assert kept["1"]["feed_forward"].tolist() == [*range(8)]
    small, _ = encoder.prune(model, target, importance)
    theirs = model.bert.encoder.layer[2].intermediate.dense.weight[50]
    assert torch.equal(small.bert.encoder.layer[2].intermediate.dense.weight[7], theirs)


# ---------------------------------------------------------------- shapes


@pytest.mark.parametrize(
    ("wish", "changed"),
    [
        ({"": 0.5}, {"feed_forward": 768}),
        ({"feed_forward": 0.33}, {"feed_forward": 504}),
        ({"feed_forward": 512, "layers": 2}, {"feed_forward": 512, "layers": 2}),
        ({"layers": 0.5}, {"layers": 3}),
        ({"": 0.001}, {"feed_forward": 8}),
    ],
)
def test_what_is_left_is_rounded_to_8(wish, changed):
    assert encoder.pruned(SHAPE, wish, BERT) == {**SHAPE, **changed}


def test_heads_keep_their_size_where_the_config_can_say_it():
    images = {name: each for name, each in SHAPE.items() if name != "vocabulary"}
    found = encoder.pruned(images, {"heads": 0.5}, {"model_type": "vit"})
    assert found == {**images, "heads": 6, "head_size": 32}
    assert encoder.name(found, images) == "6x384h6"
    assert encoder.parse("6x384h6", images) == found
    assert encoder.parse(encoder.name(found, found), found) == found
    with pytest.raises(ModelError, match=r"type 'bert' can't be pruned alone.*--student 6x256"):
        encoder.pruned(SHAPE, {"heads": 0.5}, BERT)


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"head": 0.5}, "did you mean 'heads'"),
        ({"channels": 0.5}, "known: feed_forward, heads, layers"),
        ({"layers": 7}, "7 layers of 6 can't be kept: expected 1 to 6"),
        ({"feed_forward": 500}, "a multiple of 8 up to 1536"),
        ({"feed_forward": 9999}, "9999 feed forward of 1536"),
    ],
)
def test_what_can_not_be_kept_is_one_line(wish, says):
    with pytest.raises(ModelError, match=says) as error:
        encoder.pruned(SHAPE, wish, BERT)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"chanels": 0.5}, "did you mean 'channels'"),
        ({"layers": 1}, "1 layers of 5 can't be kept: expected 2 to 5"),
        ({"channels": 999}, "999 channels of 128"),
    ],
)
def test_what_a_residual_network_can_not_keep_is_one_line(wish, says):
    with pytest.raises(ModelError, match=says):
        resnet.pruned(resnet.shape(RESNET), wish, RESNET)


def test_channels_of_a_stage_shrink_with_what_they_are_added_to():
    shape = resnet.shape(RESNET)
    found = resnet.pruned(shape, {"": 0.4}, RESNET)
    assert (found["channels.0"], found["channels.1"], found["embedding"]) == (24, 48, 24)
    narrow = {**RESNET, "layer_type": "bottleneck", "embedding_size": 32}
    found = resnet.pruned(resnet.shape(narrow), {"": 0.5}, narrow)
    assert (found["channels.0"], found["channels.1"]) == (32, 64), "inside of them a fourth"
    assert found["embedding"] == 16


def test_the_way_there_only_falls_and_ends_where_it_should():
    target = encoder.pruned(SHAPE, {"": 0.3, "layers": 2}, BERT)
    way = [encoder.between(SHAPE, target, part, BERT) for part in (1 / 3, 2 / 3, 1.0)]
    assert [one["feed_forward"] for one in way] == [1176, 824, target["feed_forward"]]
    assert [one["layers"] for one in way] == [5, 3, 2] and way[-1] == target
    whole = resnet.shape(RESNET)
    target = resnet.pruned(whole, {"": 0.25, "layers": 2}, RESNET)
    way = [resnet.between(whole, target, part, RESNET) for part in (0.5, 1.0)]
    assert way[0]["channels.1"] == 80 and way[0]["embedding"] == way[0]["channels.0"]
    assert way[1] == target


def test_without_torch_pruning_it_says_what_to_install(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=r"pip install edgedistill\[prune\]"):
        resnet.pruned(resnet.shape(RESNET), {"": 0.5}, RESNET)
