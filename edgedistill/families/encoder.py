"""Transformers encoders whose layers can be subset: BERT and its like, ViT and its like.

A shape is {"layers", "hidden", "heads", "feed_forward"} and, for texts, {"vocabulary"}; where heads
were pruned, {"head_size"} too, which is else the hidden size over the heads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from edgedistill.errors import ModelError
from edgedistill.families import _first_token, _projection, _pruning, _stack, _width
from edgedistill.records import Shape

PACKAGES = ("torch", "transformers", "optimum")
CONVOLUTIONAL = False  # which int8 schemes can serve
# Each is proven by a test on a tiny model, through to a student that answers.
MODEL_TYPES = (
    "bert", "camembert", "deit", "dinov2", "distilbert", "electra", "mpnet", "roberta", "vit",
    "xlm-roberta",
)  # fmt: skip
REFUSED = {
    "albert": "its layers are one and the same, so there is nothing to leave out",
    "mobilebert": "its layers are bottlenecks of their own kind",
}
WIDTHS = ("family", "select", "pca")  # how a narrower student's dimensions are found
WIDTH = ("hidden", "heads", "feed_forward")
# Our name: optimum's name; then the names in a plain config.json, where optimum has none.
NORMALIZED = {
    "layers": "num_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "vocabulary": "vocab_size",
}
OWN = {
    "layers": ("num_hidden_layers", "n_layers"),
    "hidden": ("hidden_size", "dim"),
    "heads": ("num_attention_heads", "n_heads"),
    "feed_forward": ("intermediate_size", "hidden_dim"),
    "vocabulary": ("vocab_size",),
}
stack, locate = _stack.path, _stack.locate  # where the list of layers is, and what lies in it


def covers(config: Mapping[str, Any]) -> bool:
    """Say whether a plain config.json is of this family."""
    return config.get("model_type") in MODEL_TYPES


def refuses(config: Mapping[str, Any]) -> str | None:
    """Say why a model that looks like one of these can't be shrunk, where that is so."""
    return REFUSED.get(str(config.get("model_type")))


def shape(config: Mapping[str, Any]) -> Shape:
    """Read the shape from a plain config.json. Raises `ModelError` for one that lacks it."""
    found = {}
    for name in OWN:
        value = _read(config, name)
        if value is not None:
            found[name] = _count(value, OWN[name][0])
        elif name != "vocabulary":
            raise ModelError(f"config.json says nothing of '{OWN[name][0]}': expected a number")
    size = config.get("head_dim")
    if size is not None and _count(size, "head_dim") * found["heads"] != found["hidden"]:
        found["head_size"] = int(size)
    return found


def parse(text: str, teacher: Shape) -> Shape:
    """Read layers (2), layers x width (2x256), layers x width x feed-forward (2x256x512), same.

    Each may end in a number of heads (images: 2x256h4) and in the pieces of a smaller vocabulary
    (2x256v6000, 2v6000). Raises `ModelError`.
    """
    sizes = r"(?:same|(\d+)(?:x(\d+)(?:x(\d+))?)?)(?:h(\d+))?(?:v(\d+))?"
    match = re.fullmatch(sizes, text.strip())
    if not match:
        raise ModelError(
            f"'{text}' is no student: expected layers (2), layers x width (2x256), "
            "layers x width x feed-forward (2x256x512), same, static (texts); "
            "with a smaller vocabulary, 2x256v6000"
        )
    layers, hidden, feed_forward, heads, vocabulary = (
        int(one) if one else None for one in match.groups()
    )
    if layers is not None and not 1 <= layers <= teacher["layers"]:
        raise ModelError(f"a student of {layers} layers: expected 1 to {teacher['layers']}")
    made = dict(teacher)
    if layers is not None:
        width = teacher["hidden"] if hidden is None else hidden
        made |= {"layers": layers, **_scaled(width, teacher)}
    if feed_forward is not None:
        made["feed_forward"] = _ranged("a feed-forward", feed_forward, 8, teacher["feed_forward"])
    if heads is not None:
        if "vocabulary" in teacher:
            raise ModelError(f"'{text}': heads of a model of texts follow from its width")
        size = _pruning.head_size(made)
        made["heads"] = _ranged("heads", heads, 1, made["heads"])
        made |= {"head_size": size} if size * heads != made["hidden"] else {}
    if vocabulary is not None:
        if "vocabulary" not in teacher:
            raise ModelError(f"'{text}': a model of images has no vocabulary; expected 2 or 2x256")
        made["vocabulary"] = _ranged("a vocabulary", vocabulary, 1, teacher["vocabulary"])
    return made


def name(shape: Shape, teacher: Shape | None = None) -> str:
    """Write a shape for people: "2x384"; with its teacher's beside it, what else differs too."""
    made = f"{shape['layers']}x{shape['hidden']}"
    if teacher is None:
        return made
    if shape["feed_forward"] != _feed_forward(shape["hidden"], teacher):
        made += f"x{shape['feed_forward']}"
    if shape["heads"] != teacher["heads"] * shape["hidden"] // teacher["hidden"]:
        made += f"h{shape['heads']}"
    if shape.get("vocabulary") != teacher.get("vocabulary"):
        made += f"v{shape['vocabulary']}"
    return made


def defaults(teacher: Shape) -> Sequence[Shape]:
    """Return students of a third and of half the teacher's layers, the smallest first."""
    counts = sorted({max(1, round(teacher["layers"] * part)) for part in (1 / 3, 1 / 2)})
    return [{**teacher, "layers": count} for count in counts if count < teacher["layers"]]


def layers(shape: Shape, teacher: Shape) -> Sequence[int]:
    """Return the teacher's layers that start a student: the bottom ones, or every other one.

    Both win somewhere (sentence-transformers, TextBrewer, 2020): up to a third of the layers, the
    bottom ones, which follow one another as they were trained to; above, evenly spread.
    """
    count, whole = shape["layers"], teacher["layers"]
    if 3 * count <= whole:
        return list(range(count))
    return [index * whole // count for index in range(count)]


def starts(shape: Shape, teacher: Shape) -> Mapping[str, Sequence[int]]:
    """Return the layers that are worth a trial as a student's start, what `layers` says first."""
    count, whole = shape["layers"], teacher["layers"]
    tried = {
        "first": list(range(count)),
        "uniform": [index * whole // count for index in range(count)],
        "ends": [round(index * (whole - 1) / max(count - 1, 1)) for index in range(count)],
        "last": list(range(whole - count, whole)),
    }
    habit = layers(shape, teacher)
    found: dict[str, Sequence[int]] = {}
    for name in sorted(tried, key=lambda name: tried[name] != habit):
        if tried[name] not in found.values():
            found[name] = tried[name]
    return found


def shrink(
    teacher: Any,
    shape: Shape,
    *,
    layers: Sequence[int],
    init: str,
    seed: int,
    width: str = "family",
) -> tuple[Any, Mapping[str, Any]]:
    """Make a student from some of the teacher's layers; its embeddings and head come along.

    A narrower one keeps the heads and neurons that carry the most weight, and of the dimensions
    either those too (`width` "select") or the principal components ("pca"; what "family" means for
    texts, by trial, see benchmarks/README.md). Facts: copied, sliced (or turned) and fresh,
    parameters by name. `init` "random" copies nothing.
    """
    import torch

    whole = stack(teacher)
    depth = len(teacher.get_submodule(whole))
    if len(layers) != shape["layers"] or not all(0 <= index < depth for index in layers):
        raise ModelError(f"layers {list(layers)}: expected {shape['layers']} of 0 to {depth - 1}")
    whole_shape = _shape_of(teacher)
    config = _stack.config_of(teacher.config, shape, layers)
    if any(shape[name] != whole_shape[name] for name in WIDTH):
        _width.configure(config, shape, whole_shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = type(teacher)(config).float()
    source, target = teacher.state_dict(), student.state_dict()
    if init == "random":
        return student.eval(), {"copied": [], "sliced": [], "fresh": sorted(target)}
    names = {key: _stack.source_name(key, whole, layers) for key in target}
    pairs = {name: (source[name], target[key]) for key, name in names.items() if name in source}
    table = _table(teacher)
    cut = _cutter(width, pairs, whole, whole_shape, shape, table)
    return student.eval(), _copied(source, target, names, cut)


def _copied(
    source: Mapping[str, Any],
    target: Mapping[str, Any],
    names: Mapping[str, str],
    cut: Callable[[str, Any, Any], Any],
) -> dict[str, list[str]]:
    """Fill a student's tensors from the teacher's; return which were copied, sliced and fresh."""
    import torch

    facts: dict[str, list[str]] = {"copied": [], "sliced": [], "fresh": []}
    with torch.no_grad():
        for key, tensor in target.items():
            values = source.get(names[key])
            if values is not None:
                values = cut(names[key], values, tensor)
            if values is None:
                facts["fresh"].append(key)
                continue
            tensor.copy_(values)
            same = values.shape == source[names[key]].shape
            facts["copied" if same else "sliced"].append(key)
    return facts


def _cutter(
    width: str,
    pairs: _projection.Pairs,
    stack: str,
    teacher: Shape,
    student: Shape,
    table: str | None,
) -> Callable[[str, Any, Any], Any]:
    """Return what narrows a tensor of the teacher's: (its name, its values, ours) -> values."""
    if width == "family":
        width = "pca" if "vocabulary" in teacher else "select"
    if width == "pca" and student["hidden"] < teacher["hidden"]:
        return _projection.Projection(pairs, stack, teacher, student, table=table).cut
    kept = _width.keep(pairs, stack, teacher, student)
    return partial(_width.cut, stack=stack, teacher=teacher, kept=kept)


def _table(model: Any) -> str | None:
    """Return the name of a model's table of embeddings; None for images."""
    table = getattr(model.get_input_embeddings(), "weight", None)
    if "vocabulary" not in _shape_of(model):
        return None
    return next((name for name, each in model.named_parameters() if each is table), None)


def fold(model: Any, kept: Sequence[int]) -> None:
    """Keep the embeddings of those ids alone, each at its new id, and say so in the config."""
    import torch

    table, config = model.get_input_embeddings(), model.config
    if not all(0 <= old < len(table.weight) for old in kept):
        raise ModelError(
            f"the tokenizer has pieces up to {max(kept):,}, the model embeddings for "
            f"{len(table.weight):,}"
        )
    with torch.no_grad():
        rows = table.weight[torch.tensor(list(kept))].clone()
    model.set_input_embeddings(
        torch.nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=table.padding_idx)
    )
    config.vocab_size = len(kept)
    new = {old: index for index, old in enumerate(kept)}
    for key, value in config.to_dict().items():
        # the padding's id stays as it is: some types count positions from it
        if key.endswith("_token_id") and key != "pad_token_id" and isinstance(value, int):
            setattr(config, key, new.get(value))


@contextmanager
def only_logits(model: Any, answer: Callable[[], Any]) -> Iterator[None]:
    """Compute the last layer for the first token alone, where `answer` reads no other row of it."""
    last = model.config.num_hidden_layers - 1
    names = ("hidden", "query", "key", "value")
    layer, query, *read = (model.get_submodule(locate(f"{each}.{last}", model)) for each in names)
    if not _first_token.alone(model, layer, answer):
        yield
        return
    with _first_token.narrowed(layer, query, read):
        yield


# ---------------------------------------------------------------- pruning

PRUNES = _pruning.PRUNES
pruned, between = _pruning.pruned, _pruning.between


def gated(model: Any) -> Any:
    """Open the gates of a model's heads, feed-forward channels and layers: see `_pruning.gated`."""
    return _pruning.gated(model, stack(model), _shape_of(model)["heads"])


def prune(model: Any, shape: Shape, importance: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """Return the model that is left of the most important units, and which layers those are.

    `importance`: what `gated` reads, averaged over batches, one value a unit.
    """
    whole, whole_shape = stack(model), _shape_of(model)
    layers, kept = _pruning.keep(importance, whole_shape, shape)
    config = _stack.config_of(model.config, shape, layers)
    _width.configure(config, shape, whole_shape)
    student = type(model)(config).float()
    source, target = model.state_dict(), student.state_dict()
    names = {key: _stack.source_name(key, whole, layers) for key in target}
    cut = partial(_width.cut, stack=whole, teacher=whole_shape, kept=kept)
    fresh = _copied(source, target, names, cut)["fresh"]
    if fresh:
        raise ModelError(f"'{fresh[0]}' of {type(model).__name__} can't be pruned")
    return student.eval(), {"layers": layers}


def _shape_of(model: Any) -> Shape:
    return shape(model.config.to_dict())


def _read(config: Mapping[str, Any], name: str) -> Any:
    """Read one dimension by optimum's name for it, else by the names in config.json."""
    from types import SimpleNamespace

    from optimum.utils import NormalizedConfigManager

    if name in NORMALIZED:
        try:
            kind = NormalizedConfigManager.get_normalized_config_class(config["model_type"])
            return getattr(kind(SimpleNamespace(**config)), NORMALIZED[name])
        except (KeyError, AttributeError):
            pass  # not known to optimum, or a raw config of other names
    if name == "feed_forward" and "mlp_ratio" in config:  # DINOv2
        return config["hidden_size"] * config["mlp_ratio"]
    return next((config[own] for own in OWN[name] if config.get(own) is not None), None)


def _count(value: Any, name: str) -> int:
    whole = isinstance(value, (int, float)) and value >= 1 and value == value // 1
    if not whole or isinstance(value, bool):
        raise ModelError(f"config.json: '{name}' is {value!r}: expected a whole number, 1 or more")
    return int(value)


def _scaled(hidden: int, teacher: Shape) -> dict[str, int]:
    """Scale heads and feed-forward with the width; heads keep their size."""
    if hidden == teacher["hidden"]:
        return {name: teacher[name] for name in WIDTH}
    size = teacher["hidden"] // teacher["heads"]
    if hidden % size or not size <= hidden <= teacher["hidden"]:
        near = min(max(size, round(hidden / size) * size), teacher["hidden"])
        raise ModelError(
            f"a width of {hidden}: expected a multiple of the teacher's head size, {size}, "
            f"up to {teacher['hidden']}, such as {near}"
        )
    feed_forward = _feed_forward(hidden, teacher)
    return {"hidden": hidden, "heads": hidden // size, "feed_forward": feed_forward}


def _feed_forward(hidden: int, teacher: Shape) -> int:
    """Return the feed-forward of a width where nothing else is said."""
    if hidden == teacher["hidden"]:
        return teacher["feed_forward"]
    return round(teacher["feed_forward"] * hidden / teacher["hidden"] / 8) * 8


def _ranged(what: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise ModelError(f"{what} of {value:,}: expected {low:,} to {high:,} (the teacher's)")
    return value
