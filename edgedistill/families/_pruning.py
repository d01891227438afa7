"""Pruned encoders: which feed-forward channels, heads and whole layers a model can do without.

A unit's importance is what a gate of 1 behind it would move the loss by, |dL/dgate|: the
first-order Taylor term of leaving it out (Molchanov et al., 2019; of heads: Michel et al., 2019).
Of a channel or a head the gate's gradient is the sum of gradient x weight over what reads it, so no
gate is needed; a whole layer gets one between what it is given and what it gives.

Every layer keeps as many heads and channels as the next, each its own best, so that a plain
config.json says all of the shape and `from_pretrained` loads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from edgedistill.errors import ModelError, nearest
from edgedistill.families import _width
from edgedistill.records import Shape

PRUNES = ("feed_forward", "heads", "layers")  # kinds of units, the usual one first
MULTIPLE = 8  # feed-forward channels are rounded to it: kernels compute them in such blocks
# Model types whose config.json can say how wide a head is; of the others a head is the hidden size
# over the number of heads, so that fewer heads would only be wider ones.
HEAD_SIZED = ("deit", "dinov2", "vit")


def pruned(shape: Shape, wish: Mapping[str, float], config: Mapping[str, Any]) -> Shape:
    """Return the shape that is left: of each kind that share (below 1), or so many.

    Raises `ModelError` for a kind that there is not, and for what the config can't say.
    """
    made = dict(shape)
    for kind, part in wish.items():
        kind = kind or PRUNES[0]
        if kind not in PRUNES:
            raise ModelError(f"encoders have no '{kind}' to prune: {nearest(kind, PRUNES)}")
        step = _step(kind, shape, config)
        whole = shape[kind]
        made[kind] = _share(whole, part, step) if part < 1 else int(part)
        stepped = made[kind] % step == 0 or made[kind] == whole
        if not 0 < made[kind] <= whole or not stepped:
            raise ModelError(
                f"{made[kind]} {kind.replace('_', ' ')} of {whole} can't be kept: expected "
                + (f"1 to {whole}" if step == 1 else f"a multiple of {step} up to {whole}")
            )
    if made["heads"] != shape["heads"]:
        _expressible(config, shape)
        made["head_size"] = head_size(shape)
    return made


def between(shape: Shape, target: Shape, part: float, config: Mapping[str, Any]) -> Shape:
    """Return the shape that lies that part of the way from one to another, as a config can say."""
    made = dict(target)
    for kind in PRUNES:
        if shape[kind] != target[kind]:
            step = _step(kind, shape, config)
            gone = (shape[kind] - target[kind]) * part
            made[kind] = max(target[kind], round((shape[kind] - gone) / step) * step)
    return made


def head_size(shape: Shape) -> int:
    """Return the width of a head."""
    return shape.get("head_size") or shape["hidden"] // shape["heads"]


def _step(kind: str, shape: Shape, config: Mapping[str, Any]) -> int:
    if kind != "feed_forward":
        return 1
    return shape["hidden"] if "mlp_ratio" in config else MULTIPLE


def _share(whole: int, share: float, step: int) -> int:
    return min(whole, max(step, round(whole * share / step) * step))


def _expressible(config: Mapping[str, Any], shape: Shape) -> None:
    kind = config.get("model_type")
    if kind not in HEAD_SIZED:
        narrower = shape["hidden"] * 2 // 3 // head_size(shape) * head_size(shape)
        raise ModelError(
            f"heads of a model of type '{kind}' can't be pruned alone: its config.json says that a "
            "head is the hidden size over the number of heads wide, so fewer would be wider ones; "
            f"prune feed_forward or layers, or name a narrower student (--student "
            f"{shape['layers']}x{narrower or shape['hidden']}), which has fewer heads"
        )


# ---------------------------------------------------------------- importance


@contextmanager
def gated(model: Any, stack: str, heads: int) -> Iterator[Callable[[], dict[str, Any]]]:
    """Yield what reads the gates' gradients after each backward pass, signed, by group.

    Groups: "layers", and of each layer from 0 "feed_forward.i" and "heads.i", one value a unit.
    All that has no part in them needs no gradient; afterwards it does again.
    """
    import torch

    layers = list(model.get_submodule(stack))
    reads = [(_reader(each, True), _reader(each, False)) for each in layers]
    gates = torch.ones(len(layers), device=model.device, requires_grad=True)
    was = {name: each.requires_grad for name, each in model.named_parameters()}
    hooks = [
        layer.register_forward_hook(_gate(gates, index), with_kwargs=True)
        for index, layer in enumerate(layers)
    ]
    model.requires_grad_(False)
    for pair in reads:
        for module in pair:
            module.weight.requires_grad_(True)

    def read() -> dict[str, Any]:
        assert gates.grad is not None
        found = {"layers": gates.grad.detach().clone()}
        for index, (heads_of, channels_of) in enumerate(reads):
            each = _products(heads_of)
            found[f"heads.{index}"] = each.view(heads, -1).sum(1)
            found[f"feed_forward.{index}"] = _products(channels_of)
        gates.grad = None
        model.zero_grad(set_to_none=True)
        return found

    try:
        yield read
    finally:
        for hook in hooks:
            hook.remove()
        for name, each in model.named_parameters():
            each.requires_grad_(was[name])


def _gate(gates: Any, index: int) -> Callable[..., Any]:
    """Return the hook that lays a gate between what a layer is given and what it gives."""

    def hook(module: Any, given: Any, named: Any, output: Any) -> Any:
        first = given[0] if given else named["hidden_states"]
        if isinstance(output, tuple):
            return (first + gates[index] * (output[0] - first), *output[1:])
        return first + gates[index] * (output - first)

    return hook


def _products(module: Any) -> Any:
    """Return the sum of gradient x weight over the outputs of a layer, one value an input."""
    return (module.weight.grad * module.weight).detach().sum(0)


def _reader(layer: Any, attention: bool) -> Any:
    """Return the module that reads the heads of a layer, or its feed-forward channels."""
    from torch import nn

    found = {}
    for path, module in layer.named_modules():
        if isinstance(module, nn.Linear):
            leaf = path.rpartition(".")[2]
            inside = leaf in _width.WRITERS or path.endswith("attention.output.dense")
            reads = leaf in _width.READERS
            found[path] = "attention" if inside else "" if reads else "feed_forward"
    wanted = "attention" if attention else "feed_forward"
    paths = [path for path, kind in found.items() if kind == wanted]
    if not paths:
        raise ModelError(f"no {wanted.replace('_', ' ')} is known in {type(layer).__name__}")
    return layer.get_submodule(paths[-1])  # of the feed-forward's layers the one that writes


# ---------------------------------------------------------------- what is kept


def keep(importance: Mapping[str, Any], shape: Shape, target: Shape) -> tuple[list[int], Any]:
    """Return the layers that stay, and of each the heads and channels, as `_width.cut` reads them.

    Of equal units the first stay.
    """
    layers = _best(importance["layers"], target["layers"])
    kept: dict[str, dict[str, Any]] = {"": {}}
    for index in layers:
        here = kept.setdefault(str(index), {})
        if target["heads"] != shape["heads"]:
            import torch

            heads = torch.tensor(_best(importance[f"heads.{index}"], target["heads"]))
            size = head_size(shape)
            here["channels"] = (heads[:, None] * size + torch.arange(size)).flatten()
        if target["feed_forward"] != shape["feed_forward"]:
            import torch

            best = _best(importance[f"feed_forward.{index}"], target["feed_forward"])
            here["feed_forward"] = torch.tensor(best)
    return layers, kept


def _best(values: Any, count: int) -> list[int]:
    return sorted(values.double().argsort(descending=True, stable=True)[:count].tolist())
