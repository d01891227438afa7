"""What losses read of a model: its logits, and what modules inside it give, tapped by hooks.

The loop can't tell cached logits from a live teacher: it calls `read(indices, inputs)` of either.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgedistill.errors import ModelError
from edgedistill.train.batches import Examples


class Taps:
    """The outputs of some modules of a model, caught at each forward pass while this lives."""

    def __init__(self, model: Any, needs: Sequence[str], family: Any) -> None:
        self.caught: dict[str, Any] = {}
        if any(need.startswith("attention.") for need in needs):
            model.config.output_attentions = True  # some models keep them only when told to
        for need in needs:
            if need != "logits":
                module = _module(model, family.locate(need, model), need)
                handle = module.register_forward_hook(self._hook(need))
                weakref.finalize(self, handle.remove)
                if need.startswith("attention."):
                    _attend_to_all(module)

    def _hook(self, need: str) -> Callable[[Any, Any, Any], None]:
        # Modules give several things, in an order that differs by model and by release.
        ranks = 4 if need.startswith("attention.") else 3
        caught = self.caught  # not `self`, which the module would keep alive

        def catch(module: Any, inputs: Any, output: Any) -> None:
            if isinstance(output, tuple):
                output = next(one for one in output if one is not None and one.ndim == ranks)
            caught[need] = output

        return catch

    def take(self, logits: Any) -> dict[str, Any]:
        """Return what the last forward pass gave, by need."""
        found = {"logits": logits, **self.caught}
        self.caught.clear()
        return found


def _module(model: Any, path: str, need: str) -> Any:
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise ModelError(f"a loss reads '{need}' of a model that has no {path}") from None


def _attend_to_all(module: Any) -> None:
    """Take the dropout out of an attention that is read: else a tenth of what it gives is zeros."""
    from torch import nn

    if isinstance(getattr(module, "dropout", None), nn.Dropout):
        module.dropout.p = 0.0
    for name in ("attention_dropout", "dropout_prob"):  # what DeiT and its like call it
        if isinstance(getattr(module, name, None), float):
            setattr(module, name, 0.0)


@dataclass(frozen=True)
class Cached:
    """A teacher whose logits were computed once, by the stage `label`."""

    examples: Examples
    device: str

    def read(self, indices: np.ndarray, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the teacher's logits of some rows."""
        import torch

        return {"logits": torch.from_numpy(self.examples.logits(indices)).to(self.device)}


@dataclass(frozen=True)
class Live:
    """A teacher that runs beside the student, for losses that read more than logits."""

    model: Any
    taps: Taps
    forward: Callable[[Any, Mapping[str, Any]], Any]

    def read(self, indices: np.ndarray, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return all that is needed of the teacher for these inputs."""
        import torch

        with torch.no_grad():
            return self.taps.take(self.forward(self.model, inputs).logits)


@dataclass(frozen=True)
class Both:
    """A live teacher whose logits are nevertheless the cached ones (of several teachers, say)."""

    live: Live
    cached: Cached | Zeros

    def read(self, indices: np.ndarray, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return all that is needed of the teacher for these inputs.

        It runs when something other than logits is first looked up, so losses that have faded out
        cost nothing.
        """
        return _Late(self.cached.read(indices, inputs), lambda: self.live.read(indices, inputs))


class _Late(dict[str, Any]):
    """A mapping whose unknown names are read, all at once, when one is looked up."""

    def __init__(self, known: Mapping[str, Any], read: Callable[[], dict[str, Any]]) -> None:
        super().__init__(known)
        self.read = read

    def __missing__(self, name: str) -> Any:
        found = self.read()
        value = found[name]  # a KeyError where it is none of them
        self.update({**found, **self})
        return value


@dataclass(frozen=True)
class Zeros:
    """Logits that only have the right shape: stands in while the time of a step is taken."""

    labels: int
    device: str

    def read(self, indices: np.ndarray, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return zeros, (rows, labels)."""
        import torch

        return {"logits": torch.zeros(len(indices), self.labels, device=self.device)}


def absent(indices: np.ndarray, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Answer for no teacher: nothing."""
    return {}
