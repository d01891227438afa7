"""The last layer of an encoder for the first token alone, where the answer reads no other row.

A classifier on the first token leaves the other rows of the last layer unread. What they add to
keys and values has to be computed; their queries, output projection and feed-forward have not, and
these are ten twelfths of a layer's products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def narrowed(layer: Any, query: Any, read: Sequence[Any]) -> Iterator[None]:
    """Let a layer multiply the first row alone, but for the modules in `read`: keys and values.

    The query is handed on once for every row, for the layer's own code counts on that; so the other
    rows that the layer gives are finite, and wrong.
    """
    from torch import nn

    lengths: list[int] = []

    def first(module: Any, given: Any) -> Any:
        return (given[0][:, :1].contiguous(),)  # as it lies, a product takes three times as long

    def counted(module: Any, given: Any) -> Any:
        lengths.append(given[0].shape[1])
        return first(module, given)

    def repeated(module: Any, given: Any, output: Any) -> Any:
        return output.expand(-1, lengths.pop(), -1)

    hooks = [query.register_forward_pre_hook(counted), query.register_forward_hook(repeated)]
    for module in layer.modules():
        if isinstance(module, nn.Linear) and module is not query and module not in read:
            hooks.append(module.register_forward_pre_hook(first))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def alone(model: Any, layer: Any, answer: Callable[[], Any]) -> bool:
    """Say whether answers have no gradient by any row of a layer's output but the first.

    `answer` gives the model's logits of a few rows. Tried, for a model type does not tell: one may
    pool by the first token, by the mean, or by both.
    """
    import torch

    caught: list[Any] = []

    def catch(module: Any, given: Any, output: Any) -> None:
        caught.append(output[0] if isinstance(output, tuple) else output)

    was = model.training
    hook = layer.register_forward_hook(catch)
    model.eval()
    try:
        with torch.enable_grad():
            logits = answer()
            weights = torch.linspace(1, 2, logits.shape[-1], device=logits.device)
            found = torch.autograd.grad((logits * weights).sum(), caught, allow_unused=True)
    finally:
        hook.remove()
        model.train(was)
    read = [each for each in found if each is not None]
    return bool(read) and all(by[:, 0].any() and not by[:, 1:].any() for by in read)
