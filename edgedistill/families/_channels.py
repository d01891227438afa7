"""Pruned convolutional networks: which channels and which residual blocks one can do without.

A channel's importance is what a gate of 1 behind its normalisations would move the loss by,
|dL/dgate|, its first-order Taylor term (Molchanov et al., 2019): scale x its gradient + shift x its
gradient. Channels that residual additions couple share one gate. Which convolutions those are, and
what shrinks with them, is Torch-Pruning's to know (Fang et al., 2023), from a trace of the model.

All blocks of a stage keep as many channels, as config.json says them; a stage's first block stays.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from edgedistill.errors import MissingPackage, ModelError

SIDE = 64  # pixels of the image that the trace is made with


class Group(NamedTuple):
    """Channels that only go together."""

    root: str  # the path of a convolution that gives them
    norms: tuple[str, ...]  # the paths of their normalisations


def check_installed() -> None:
    """Raise `MissingPackage` where Torch-Pruning is not there."""
    from importlib.util import find_spec

    if find_spec("torch_pruning") is None:
        raise MissingPackage("torch-pruning", "pruning channels", "edgedistill[prune]")


def trace(model: Any) -> tuple[Any, dict[str, Group]]:
    """Return Torch-Pruning's graph of a model, and its groups of channels by name.

    Raises `ModelError` where a channel of one layer is not the same channel of the next.
    """
    check_installed()
    import torch
    import torch_pruning
    from torch import nn

    image = torch.zeros(1, model.config.num_channels, SIDE, SIDE, device=model.device)
    with torch.enable_grad():  # the trace reads what autograd records
        graph = torch_pruning.DependencyGraph().build_dependency(
            model, example_inputs={"pixel_values": image}, output_transform=lambda made: made.logits
        )
    paths = {module: path for path, module in model.named_modules()}
    found = {}
    for group in graph.get_all_groups(root_module_types=[nn.Conv2d]):
        if any(list(item.idxs) != list(group[0].idxs) for item in group):
            raise ModelError(f"channels of {type(model).__name__} are regrouped: can't be pruned")
        modules = [item.dep.target.module for item in group]
        norms = sorted(paths[each] for each in modules if isinstance(each, nn.BatchNorm2d))
        found[norms[0]] = Group(paths[group[0].dep.target.module], tuple(norms))
    return graph, dict(sorted(found.items()))


@contextmanager
def gated(model: Any, blocks: Sequence[str]) -> Iterator[Callable[[], dict[str, Any]]]:
    """Yield what reads the gates' gradients after each backward pass, signed, by group.

    "layers" holds one value a block (`blocks`: their paths), the others one a channel. All that has
    no part in them needs no gradient; afterwards it does again. The model must be in `eval`, so
    that a normalisation is a scale and a shift.
    """
    from torch import nn

    _, groups = trace(model)
    was = {name: each.requires_grad for name, each in model.named_parameters()}
    norms = {path: each for path, each in model.named_modules() if isinstance(each, nn.BatchNorm2d)}
    model.requires_grad_(False)
    for norm in norms.values():
        norm.requires_grad_(True)

    def read() -> dict[str, Any]:
        import torch

        terms = {path: _term(norm) for path, norm in norms.items()}
        found = {name: sum(terms[path] for path in group.norms) for name, group in groups.items()}
        found["layers"] = torch.stack([terms[_last(model, path)].sum() for path in blocks])
        model.zero_grad(set_to_none=True)
        return found

    try:
        yield read
    finally:
        for name, each in model.named_parameters():
            each.requires_grad_(was[name])


def _term(norm: Any) -> Any:
    weight, bias = norm.weight, norm.bias
    return (weight.grad * weight + bias.grad * bias).detach()


def _last(model: Any, block: str) -> str:
    """Return the path of the normalisation that a block's own branch ends in."""
    return f"{block}.layer.{len(model.get_submodule(block).layer) - 1}.normalization"


def shrink(model: Any, config: Any, importance: Mapping[str, Any]) -> Any:
    """Return a copy with as many channels as a config of the same blocks says: the best of each.

    Of equal channels the first stay.
    """
    import torch
    import torch_pruning

    skeleton = type(model)(config)
    small = copy.deepcopy(model).requires_grad_(True)
    graph, groups = trace(small)
    for name, group in groups.items():
        conv = small.get_submodule(group.root)
        count = skeleton.get_submodule(group.root).out_channels
        order = importance[name].double().argsort(descending=True, stable=True)
        gone = sorted(order[count:].tolist())
        if gone:
            function = torch_pruning.prune_conv_out_channels
            graph.get_pruning_group(conv, function, idxs=gone).prune()
    pruned = small.state_dict()
    for key, tensor in skeleton.state_dict().items():
        if key not in pruned or pruned[key].shape != tensor.shape:
            raise ModelError(f"'{key}' of {type(model).__name__} can't be pruned to its shape")
    with torch.no_grad():
        skeleton.load_state_dict({key: pruned[key] for key in skeleton.state_dict()})
    return skeleton
