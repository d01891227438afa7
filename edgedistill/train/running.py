"""What changes while training runs: weights, optimizer, averages, the best; saved and restored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgedistill.train import checkpoint, pace
from edgedistill.train.signals import Taps

SAVED = ("loss", "best", "waited", "history")


@dataclass
class Running:
    """What changes while training runs, and what a checkpoint holds."""

    whole: Any  # ModuleDict: the student, and what losses learn
    optimizer: Any
    peaks: list[float]
    taps: Taps
    average: dict[str, Any]
    averaged: list[Any]  # the model's own tensors, in the order of `average`
    step: int = 0
    loss: float = 0.0  # summed since the last validation
    best: dict[str, Any] = field(default_factory=dict)
    best_weights: dict[str, Any] = field(default_factory=dict)
    waited: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def model(self) -> Any:
        return self.whole["model"]


def begin(model: Any, learned: Mapping[str, Any], taps: Taps, training: pace.Training) -> Running:
    """Make the state before the first step; `learned` are the parts of losses, by name."""
    import torch
    from torch import nn

    model.to(training.device)
    parts = nn.ModuleDict({name.replace(".", "_"): part for name, part in learned.items()})
    whole = nn.ModuleDict({"model": model, "learned": parts}).to(training.device)
    groups, peaks = _groups(whole, training)
    average = copy_of(model, floats=True) if training.average == "ema" else {}
    return Running(
        whole=whole,
        optimizer=torch.optim.AdamW(groups, lr=training.rate, fused=True),
        peaks=peaks,
        taps=taps,
        average=average,
        averaged=list(_floats(model).values()) if average else [],
    )


def save(run: Running, folder: Path) -> None:
    """Write a checkpoint."""
    tensors = {f"whole.{name}": tensor for name, tensor in run.whole.state_dict().items()}
    for index, state in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    tensors |= {f"average.{name}": tensor for name, tensor in run.average.items()}
    tensors |= {f"best.{name}": tensor for name, tensor in run.best_weights.items()}
    rest = {name: getattr(run, name) for name in SAVED}
    checkpoint.write(folder, run.step, tensors=tensors, rest=rest)


def resume(run: Running, folder: Path) -> bool:
    """Go on from the newest whole checkpoint; say whether there was one."""
    found = checkpoint.read(folder)
    if found is None:
        return False
    tensors, rest = found
    parts: dict[str, dict[str, Any]] = {"whole": {}, "optimizer": {}, "average": {}, "best": {}}
    for name, tensor in tensors.items():
        part, _, inner = name.partition(".")
        parts[part][inner] = tensor
    run.whole.load_state_dict(parts["whole"])
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in parts["optimizer"].items():
        index, _, inner = name.partition(".")
        state.setdefault(int(index), {})[inner] = tensor
    groups = run.optimizer.state_dict()["param_groups"]
    run.optimizer.load_state_dict({"state": state, "param_groups": groups})
    for name, tensor in run.average.items():
        tensor.copy_(parts["average"][name])  # stays where it lies: on a GPU, say
    run.best_weights = parts["best"]
    run.step = rest["step"]
    for name in SAVED:
        setattr(run, name, rest[name])
    return True


def copy_of(model: Any, *, floats: bool = False) -> dict[str, Any]:
    """Copy a model's weights, by name."""
    state = _floats(model) if floats else model.state_dict()
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def put(model: Any, weights: Mapping[str, Any]) -> None:
    """Write weights, by name, into a model."""
    import torch

    state = model.state_dict()
    with torch.no_grad():
        for name, tensor in weights.items():
            state[name].copy_(tensor)


def _groups(whole: Any, training: pace.Training) -> tuple[list[dict[str, Any]], list[float]]:
    """Split the parameters: embeddings at a part of the rate, no decay for norms and biases."""
    tables = {
        id(parameter)
        for name, module in whole.named_modules()
        if type(module).__name__ in ("Embedding", "Compact")
        for parameter in module.parameters(recurse=False)
    }
    parts: dict[str, list[Any]] = {"tables": [], "matrices": [], "rest": []}
    for parameter in whole.parameters():
        if parameter.requires_grad:
            kind = "matrices" if parameter.ndim > 1 else "rest"
            parts["tables" if id(parameter) in tables else kind].append(parameter)
    groups, peaks = [], []
    for kind, parameters in parts.items():
        if parameters:
            decay = training.weight_decay if kind == "matrices" else 0.0
            groups.append({"params": parameters, "weight_decay": decay})
            peaks.append(training.rate * (training.embedding_rate if kind == "tables" else 1.0))
    return groups, peaks


def _floats(model: Any) -> dict[str, Any]:
    return {name: one for name, one in model.state_dict().items() if one.is_floating_point()}
