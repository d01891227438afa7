"""Model folders: read in float32, written so that the same weights give the same bytes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgedistill.errors import ModelError

TINY = 1e-30  # smaller weights are denormal before long, and those slow every kernel
NOT_CARRIED = {"config.json", "artifact.json", "source.json", "labels.json"}
NOT_WRITTEN = ("_name_or_path", "output_attentions", "torch_dtype", "transformers_version")
NUMBERED = re.compile(r"\.\d+\.")  # a layer, in a tensor's name
BODY = re.compile(r"\.\d+\.|embeddings\..*weight$")  # what no training makes anew
WEIGHTS = (".safetensors", ".bin", ".index.json", ".h5", ".msgpack")


def load(folder: Path, task: Any, *, dropout: float | None = None, **config: Any) -> Any:
    """Load a model with the head of its task, in float32 whatever its config says.

    Attention is computed eagerly: it is deterministic, and its weights can be read. `config`
    overrides the config's values. A folder that is a config alone gives random weights. Raises
    `ModelError`.
    """
    import torch
    from transformers import AutoConfig

    from edgedistill.families import _architectures

    _quiet()
    _architectures.register()
    try:
        settings = AutoConfig.from_pretrained(folder, **config)
        if dropout is not None:
            for name, value in settings.to_dict().items():
                if "dropout" in name and isinstance(value, int | float):
                    setattr(settings, name, float(dropout))
        if not has_weights(folder):
            made = task.model_class().from_config(settings, attn_implementation="eager")
            return made.float()
        model, loaded = task.model_class().from_pretrained(
            folder,
            config=settings,
            dtype=torch.float32,
            attn_implementation="eager",
            ignore_mismatched_sizes=True,  # a head of another number of labels is made new
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        line = str(error).strip().splitlines()
        raise ModelError(
            f"the model can't be loaded: {line[0] if line else type(error).__name__}"
        ) from error
    whole(model, loaded)
    for name, saved, made in loaded["mismatched_keys"]:
        if tuple(saved[1:]) != tuple(made[1:]) or made[0] != settings.num_labels:
            raise ModelError(
                "the model's weights have other shapes than its config.json says: "
                f"{name} is {list(saved)}, expected {list(made)}"
            )
    return model


def whole(model: Any, loaded: Mapping[str, Any], *, head: bool = False) -> None:
    """Refuse weights that lack a layer or table that the config asks for, or hold one more.

    transformers fills the one with random numbers and drops the other. A head or a pooler that is
    not there is made by training, unless the `head` must be there too. Raises `ModelError`.
    """
    body = f"{model.base_model_prefix}."
    parameters = {name for name, _ in model.named_parameters()}
    lacks = sorted(
        name
        for name in parameters & set(loaded["missing_keys"])
        if head or (name.startswith(body) and BODY.search(name))
    )
    if lacks:
        raise ModelError(
            f"the model's weights lack {len(lacks)} tensors that its config.json asks for, such as "
            f"{lacks[0]}: the checkpoint is damaged, or the config another model's"
        )
    names = {NUMBERED.sub(".0.", name) for name in model.state_dict()}
    names |= {name.removeprefix(body) for name in names}
    more = sorted(
        name
        for name in loaded["unexpected_keys"]
        if NUMBERED.search(name) and NUMBERED.sub(".0.", name) in names
    )
    if more:
        raise ModelError(
            f"the model's weights hold {len(more)} tensors of layers that its config.json does not "
            f"have, such as {more[0]}: the config is another model's"
        )


def has_weights(folder: Path) -> bool:
    """Say whether a model folder holds weights, or is a config alone."""
    return any(file.name.endswith((".safetensors", ".bin")) for file in folder.iterdir())


def labelled(labels: Sequence[str]) -> dict[str, Any]:
    """Return what a config says of labels, in the order of the outputs."""
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }


def labels_of(folder: Path) -> list[str] | None:
    """Return the labels of a model's head in their order; None where it has no known head."""
    path = folder / "labels.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def order_head(model: Any, was: Sequence[str], wanted: Sequence[str]) -> None:
    """Put the outputs of a head into another order of the same labels."""
    import torch

    body = f"{model.base_model_prefix}."
    layers = [
        module
        for name, module in model.named_modules()
        if not name.startswith(body) and getattr(module, "out_features", None) == len(wanted)
    ]
    places = torch.tensor([list(was).index(label) for label in wanted])
    with torch.no_grad():
        for tensor in layers[-1].parameters(recurse=False):
            tensor.copy_(tensor[places].clone())


def new_head(model: Any, *, seed: int) -> None:
    """Draw all weights anew that do not belong to the model's body."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = type(model)(model.config).float().state_dict()
    body = f"{model.base_model_prefix}."
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not name.startswith(body):
                tensor.copy_(fresh[name])


def save(model: Any, out: Path, *, beside: Path, labels: Sequence[str] | None = None) -> None:
    """Write a model folder: weights, config, and the encoder's files that lie in `beside`.

    Denormal weights become zero. Paths and versions leave the config. `labels` as given, else
    those of `beside`.
    """
    import torch

    out.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.masked_fill_(tensor.abs() < TINY, 0.0)
    _quiet()
    model.save_pretrained(out)
    path = out / "config.json"
    config = json.loads(path.read_text())
    for name in NOT_WRITTEN:
        config.pop(name, None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    (out / "generation_config.json").unlink(missing_ok=True)
    for file in sorted(beside.iterdir()):
        if file.is_file() and file.name not in NOT_CARRIED and not file.name.endswith(WEIGHTS):
            shutil.copyfile(file, out / file.name)
    if labels is not None:
        (out / "labels.json").write_text(json.dumps(list(labels), ensure_ascii=False) + "\n")
    elif (beside / "labels.json").is_file():
        shutil.copyfile(beside / "labels.json", out / "labels.json")


def _quiet() -> None:
    """Keep transformers' own bars and advice off the terminal: ours say what is done."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def parameters(model: Any) -> int:
    """Count the weights of a model."""
    return sum(parameter.numel() for parameter in model.parameters())


def config_of(folder: Path) -> Mapping[str, Any]:
    """Read a model folder's plain config."""
    try:
        return json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        raise ModelError(f"'{folder.name}' is no model folder: it has no config.json") from None
    except ValueError as error:
        raise ModelError(f"'{folder.name}/config.json' is not JSON: {error}") from None
