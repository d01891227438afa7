"""Residual networks (He et al., 2015): fewer blocks a stage, narrower channels.

A shape is {"stages", "blocks" (all together), "channels" (the last stage's), "embedding" (the
stem's)}, and for each stage from 0 "blocks.i" and "channels.i".
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgedistill.errors import ModelError, nearest
from edgedistill.families import _channels
from edgedistill.records import Shape

PACKAGES = ("torch", "transformers")
CONVOLUTIONAL = True  # which int8 schemes can serve
MODEL_TYPES = ("resnet",)
RATE = {"nothing": 3e-3, "whole": 1e-3}  # of batch-normalised convolutions, by AdamW
MULTIPLE = 8  # channels are rounded to it: kernels compute them in such blocks


def covers(config: Mapping[str, Any]) -> bool:
    """Say whether a plain config.json is of this family."""
    return config.get("model_type") in MODEL_TYPES


def shape(config: Mapping[str, Any]) -> Shape:
    """Read the shape from a plain config.json. Raises `ModelError` for one that lacks it."""
    try:
        blocks = [int(count) for count in config["depths"]]
        channels = [int(count) for count in config["hidden_sizes"]]
        embedding = int(config["embedding_size"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"config.json of a ResNet says nothing of {error}") from None
    if not blocks or len(blocks) != len(channels) or min(*blocks, *channels, embedding) < 1:
        raise ModelError(
            f"config.json: depths {blocks}, hidden_sizes {channels}: expected as many of both, "
            "each 1 or more"
        )
    return _shape(blocks, channels, embedding)


def parse(text: str, teacher: Shape) -> Shape:
    """Read "4" (blocks), "4x256" (blocks x channels of the last stage) or "same".

    Raises `ModelError`.
    """
    if text == "same":
        return dict(teacher)
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip())
    if not match:
        raise ModelError(
            f"'{text}' is no student: expected blocks (4), blocks x channels (4x256), same"
        )
    blocks, channels = int(match[1]), int(match[2] or teacher["channels"])
    if not teacher["stages"] <= blocks <= teacher["blocks"]:
        raise ModelError(
            f"a student of {blocks} blocks: expected {teacher['stages']} (one a stage) "
            f"to {teacher['blocks']}"
        )
    if not MULTIPLE <= channels <= teacher["channels"]:
        raise ModelError(f"{channels} channels: expected {MULTIPLE} to {teacher['channels']}")
    return _scaled(teacher, _spread(blocks, teacher), channels / teacher["channels"])


def name(shape: Shape, teacher: Shape | None = None) -> str:
    """Write a shape for people: blocks x channels of the last stage, "4x256"."""
    return f"{shape['blocks']}x{shape['channels']}"


def defaults(teacher: Shape) -> Sequence[Shape]:
    """Return one block a stage at half the channels, and half the blocks at all of them."""
    one = [1] * teacher["stages"]
    half = [max(1, _blocks(teacher)[stage] // 2) for stage in range(teacher["stages"])]
    found = [_scaled(teacher, one, 0.5), _scaled(teacher, half, 1.0)]
    return [shape for shape in found if shape != teacher]


def layers(shape: Shape, teacher: Shape) -> Sequence[int]:
    """Return the teacher's blocks, counted through, that start a student: each stage's first."""
    chosen, start = [], 0
    for kept, whole in zip(_blocks(shape), _blocks(teacher), strict=True):
        chosen += [start + index for index in range(kept)]
        start += whole
    return chosen


def shrink(
    teacher: Any, shape: Shape, *, layers: Sequence[int], init: str, seed: int
) -> tuple[Any, Mapping[str, Any]]:
    """Make a student of some of the teacher's blocks, and of each the channels that weigh most.

    What weighs is the scale that a channel has in its normalisations (Liu et al., 2017). Facts:
    copied, sliced and fresh, parameters by name. `init` "random" copies nothing.
    """
    import torch

    config = copy.deepcopy(teacher.config)
    config.depths, config.embedding_size = _blocks(shape), shape["embedding"]
    config.hidden_sizes = _channels_of(shape)
    _check(layers, shape, teacher.config.depths)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = type(teacher)(config).float()
    facts: dict[str, list[str]] = {"copied": [], "sliced": [], "fresh": []}
    if init == "random":
        return student.eval(), {**facts, "fresh": sorted(student.state_dict())}
    with torch.no_grad():
        target = student.state_dict()
        for key, (values, whole) in _slices(teacher, student, layers).items():
            if key in target:  # where stem and first stage have shrunk alike, no shortcut remains
                target[key].copy_(values)
                facts["copied" if whole else "sliced"].append(key)
    facts["fresh"] = sorted(set(student.state_dict()) - {*facts["copied"], *facts["sliced"]})
    return student.eval(), facts


def locate(name: str, model: Any) -> str:
    """Map "feature.1" to a stage, "hidden.2" to a block, counted from 0 through all stages.

    Raises `ModelError` for what is not there.
    """
    kind, _, index = name.partition(".")
    blocks = _places(model)
    known = {"hidden": blocks, "feature": list(dict.fromkeys(map(_stage, blocks)))}
    places = known.get(kind, [])
    if not (index.isdecimal() and int(index) < len(places)):
        raise ModelError(
            f"a loss reads '{name}' of a ResNet: it has feature.0 to "
            f"feature.{len(known['feature']) - 1} and hidden.0 to hidden.{len(blocks) - 1}"
        )
    return places[int(index)]


# ---------------------------------------------------------------- pruning

PRUNES = ("channels", "layers")  # kinds of units, the usual one first


def pruned(shape: Shape, wish: Mapping[str, float], config: Mapping[str, Any]) -> Shape:
    """Return the shape that is left: of channels that share (or so many in the last stage), and of
    blocks that share, or so many.

    Raises `ModelError` for a kind that there is not, `MissingPackage` without Torch-Pruning.
    """
    widths, blocks = _channels_of(shape), _blocks(shape)
    embedding = shape["embedding"]
    for kind, part in wish.items():
        kind = kind or PRUNES[0]
        if kind not in PRUNES:
            raise ModelError(
                f"residual networks have no '{kind}' to prune: {nearest(kind, PRUNES)}"
            )
        whole = shape["channels" if kind == "channels" else "blocks"]
        share = part if part < 1 else part / whole
        least = 1 if kind == "channels" else len(blocks)
        if share > 1 or (part >= 1 and part < least):
            raise ModelError(
                f"{part:g} {kind} of {whole} can't be kept: expected {least} to {whole}"
            )
        if kind == "layers":
            blocks = _spread(max(len(blocks), round(whole * share)), shape)
            continue
        _channels.check_installed()
        step = _multiple(config)
        widths = [_rounded(each, each * share, step) for each in widths]
        alike = embedding == shape["channels.0"]  # then they are added up
        embedding = widths[0] if alike else _rounded(embedding, embedding * share, MULTIPLE)
        if not alike and embedding == widths[0]:  # the shortcut between them would go
            embedding = shape["embedding"]
    return _shape(blocks, widths, embedding)


def between(shape: Shape, target: Shape, part: float, config: Mapping[str, Any]) -> Shape:
    """Return the shape that lies that part of the way from one to another, as a config can say."""

    def reached(name: str, step: int) -> int:
        wanted = shape[name] - (shape[name] - target[name]) * part
        return max(target[name], _rounded(shape[name], wanted, step))

    stages, step = range(shape["stages"]), _multiple(config)
    widths = [reached(f"channels.{stage}", step) for stage in stages]
    alike = shape["embedding"] == shape["channels.0"]
    embedding = widths[0] if alike else reached("embedding", MULTIPLE)
    if not alike and embedding == widths[0]:
        embedding = target["embedding"]
    return _shape([reached(f"blocks.{stage}", 1) for stage in stages], widths, embedding)


def gated(model: Any) -> Any:
    """Open the gates of a model's channels and blocks: see `_channels.gated`."""
    return _channels.gated(model, _places(model))


def prune(model: Any, shape: Shape, importance: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """Return the model that is left of the most important units, and which blocks those are.

    `importance`: what `gated` reads, averaged over batches, one value a unit.
    """
    config = copy.deepcopy(model.config)
    config.embedding_size, config.hidden_sizes = shape["embedding"], _channels_of(shape)
    narrow = _channels.shrink(model, config, importance)
    layers = _best_blocks(importance["layers"].tolist(), model.config.depths, _blocks(shape))
    config = copy.deepcopy(config)
    config.depths = _blocks(shape)
    student = type(model)(config).float()
    source, target = narrow.state_dict(), student.state_dict()
    taken = dict(zip(_places(student), (_places(model)[index] for index in layers), strict=True))
    for key, tensor in target.items():
        place = next((each for each in taken if key.startswith(each + ".")), None)
        tensor.copy_(source[taken[place] + key[len(place) :] if place else key])
    return student.eval(), {"layers": layers}


def _best_blocks(values: Sequence[float], depths: Sequence[int], kept: Sequence[int]) -> list[int]:
    """Return the blocks that stay, counted through: each stage's first, and its best."""
    chosen, start = [], 0
    for depth, count in zip(depths, kept, strict=True):
        rest = sorted(range(start + 1, start + depth), key=lambda index: -values[index])
        chosen += sorted([start, *rest[: count - 1]])
        start += depth
    return chosen


def _multiple(config: Mapping[str, Any]) -> int:
    """Return what channels are rounded to: those inside a bottleneck are a fourth of them."""
    return MULTIPLE * (4 if config.get("layer_type", "bottleneck") == "bottleneck" else 1)


def _rounded(whole: int, wanted: float, step: int) -> int:
    return min(whole, max(step, round(wanted / step) * step))


# ---------------------------------------------------------------- shapes


def _shape(blocks: Sequence[int], channels: Sequence[int], embedding: int) -> dict[str, int]:
    each = {f"blocks.{stage}": count for stage, count in enumerate(blocks)}
    each |= {f"channels.{stage}": count for stage, count in enumerate(channels)}
    whole = {"stages": len(blocks), "blocks": sum(blocks), "channels": channels[-1]}
    return {**whole, "embedding": embedding, **each}


def _blocks(shape: Shape) -> list[int]:
    return [shape[f"blocks.{stage}"] for stage in range(shape["stages"])]


def _channels_of(shape: Shape) -> list[int]:
    return [shape[f"channels.{stage}"] for stage in range(shape["stages"])]


def _spread(blocks: int, teacher: Shape) -> list[int]:
    """Give each stage a block, then the next one to the stage that has kept the least."""
    kept = [1] * teacher["stages"]
    whole = _blocks(teacher)
    while sum(kept) < blocks:
        room = [stage for stage in range(len(kept)) if kept[stage] < whole[stage]]
        kept[min(room, key=lambda stage: kept[stage] / whole[stage])] += 1
    return kept


def _scaled(teacher: Shape, blocks: Sequence[int], factor: float) -> dict[str, int]:
    def scaled(channels: int) -> int:
        return min(channels, max(MULTIPLE, round(channels * factor / MULTIPLE) * MULTIPLE))

    widths = [scaled(teacher[f"channels.{stage}"]) for stage in range(teacher["stages"])]
    return _shape(blocks, widths, scaled(teacher["embedding"]))


def _check(layers: Sequence[int], shape: Shape, depths: Sequence[int]) -> None:
    start = 0
    for stage, (kept, whole) in enumerate(zip(_blocks(shape), depths, strict=True)):
        inside = [index for index in layers if start <= index < start + whole]
        if len(inside) != kept or inside[:1] != [start]:
            raise ModelError(
                f"blocks {list(layers)}: expected {kept} of stage {stage} ({start} to "
                f"{start + whole - 1}), the first among them: it changes the channels"
            )
        start += whole


# ---------------------------------------------------------------- channels


def _places(model: Any) -> list[str]:
    """Return the module paths of all blocks, counted through the stages."""
    root = f"{model.base_model_prefix}." if hasattr(model, model.base_model_prefix) else ""
    return [
        f"{root}encoder.stages.{stage}.layers.{block}"
        for stage, depth in enumerate(model.config.depths)
        for block in range(depth)
    ]


def _stage(place: str) -> str:
    """Return the module path of the stage that a block lies in."""
    return place.rpartition(".layers.")[0]


def _slices(teacher: Any, student: Any, layers: Sequence[int]) -> dict[str, tuple[Any, bool]]:
    """Return for each of the student's tensors its values in the teacher, and if they are all."""
    weight = dict(teacher.named_parameters())
    sources, targets = _places(teacher), _places(student)
    stem = targets[0].partition("encoder.")[0] + "embedder.embedder"
    stages = [_stage(place) for place in targets]
    firsts = [
        index for index, stage in enumerate(stages) if index == 0 or stage != stages[index - 1]
    ]
    made: dict[str, tuple[Any, bool]] = {}

    def best(gammas: Sequence[Any], count: int) -> Any:
        weighed = sum(gamma.detach().abs() for gamma in gammas)
        return weighed.topk(count).indices.sort().values

    def layer(target: str, source: str, out: Any, inner: Any) -> None:
        for part, values in teacher.get_submodule(source).state_dict().items():
            if values.ndim == 4:
                taken = values[out] if inner is None else values[out][:, inner]
            else:
                taken = values[out] if values.ndim else values
            made[f"{target}.{part}"] = (taken, taken.shape == values.shape)

    def outputs(stage: str) -> list[Any]:
        """The scales of all that is added up in a stage: its blocks' last layers, its shortcut."""
        found = []
        for place in sources:
            if place.startswith(stage + "."):
                last = len(teacher.get_submodule(f"{place}.layer")) - 1
                found.append(weight[f"{place}.layer.{last}.normalization.weight"])
                found += [
                    weight[key]
                    for key in [f"{place}.shortcut.normalization.weight"]
                    if key in weight
                ]
        return found

    sizes = student.config.hidden_sizes
    gammas = [weight[f"{stem}.normalization.weight"]]
    shortcut = f"{sources[0]}.shortcut.normalization.weight" in weight
    if not shortcut:  # what the stem gives is added to what the first stage gives
        gammas += outputs(stages[0])
    came = best(gammas, student.config.embedding_size)
    layer(stem, stem, came, None)
    gone = came
    for position, (target, index) in enumerate(zip(targets, layers, strict=True)):
        source = sources[index]
        if position in firsts:
            came = gone
            if position or shortcut:
                gone = best(outputs(stages[position]), sizes[firsts.index(position)])
        else:
            came = gone
        inside = came
        depth = len(teacher.get_submodule(f"{source}.layer"))
        for number in range(depth):
            here = f"layer.{number}"
            if number == depth - 1:
                out = gone
            else:
                gamma = weight[f"{source}.{here}.normalization.weight"]
                count = student.get_submodule(f"{target}.{here}.convolution").out_channels
                out = best([gamma], count)
            layer(f"{target}.{here}", f"{source}.{here}", out, inside)
            inside = out
        if f"{source}.shortcut.normalization.weight" in weight:
            layer(f"{target}.shortcut", f"{source}.shortcut", gone, came)
    for key, values in teacher.state_dict().items():
        if key.startswith("classifier") and values.ndim == 2:
            made[key] = (values[:, gone], len(gone) == values.shape[1])
        elif key.startswith("classifier"):
            made[key] = (values, True)
    return made
