"""The list of an encoder's layers: where it is, what lies in it, and a config of some of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from edgedistill.errors import ModelError
from edgedistill.records import Shape

STAGE_NAMES = ("stage_names", "out_features", "out_indices")
ATTENTION = ("self", "attention", "attn")
PROJECTIONS = {
    "query": ("query", "q_lin", "q_proj", "q"),
    "key": ("key", "k_lin", "k_proj", "k"),
    "value": ("value", "v_lin", "v_proj", "v"),
}


def locate(name: str, model: Any) -> str:
    """Map "hidden.3", "attention.1", "query.0" or "embeddings" to the module that gives it.

    Layers from 0; attention is read after its softmax. Raises `ModelError` for what is not there.
    """
    kind, _, index = name.partition(".")
    whole = path(model)
    if name == "embeddings":  # as wide as the layers: ELECTRA's are brought to it afterwards
        body = whole.partition(".")[0]
        parts = [path for path, _ in model.get_submodule(body).named_children()]
        return f"{body}.{'embeddings_project' if 'embeddings_project' in parts else 'embeddings'}"
    depth = len(model.get_submodule(whole))
    if not (index.isdecimal() and int(index) < depth):
        raise ModelError(f"a loss reads '{name}' of a model of {depth} layers, 0 to {depth - 1}")
    place = f"{whole}.{index}"
    inner = {path for path, _ in model.get_submodule(place).named_modules()}
    if kind == "hidden":
        return place
    ends = ATTENTION if kind == "attention" else PROJECTIONS.get(kind, ())
    found = [path for path in sorted(inner, key=len) if path.split(".")[-1] in ends]
    if not found:
        raise ModelError(f"this family has no '{name}' to read")
    if kind == "attention":
        return f"{place}.{found[-1]}"
    return f"{place}.{found[0]}"


def path(model: Any) -> str:
    """Return the path of the list of the model's layers."""
    from torch import nn

    depth = model.config.num_hidden_layers
    found = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == depth
        and len({type(one) for one in module}) == 1
    ]
    if not found:
        raise ModelError(f"no list of {depth} layers in {type(model).__name__}: it can't be subset")
    return min(found, key=lambda path: path.count("."))


def config_of(config: Any, shape: Shape, layers: Sequence[int]) -> Any:
    """Return a copy of a config for some of its layers."""
    told = config.to_dict()
    if "stage_names" in told:  # DINOv2 names its layers in the config, and checks the names
        inner = {name: told[name] for name in told if name not in STAGE_NAMES}
        made = type(config).from_dict({**inner, "num_hidden_layers": shape["layers"]})
        made._attn_implementation = "eager"
    else:
        made = copy.deepcopy(config)
    made.num_hidden_layers = shape["layers"]
    kinds = getattr(config, "layer_types", None)
    if kinds:
        made.layer_types = [kinds[index] for index in layers]
    return made


def source_name(key: str, whole: str, layers: Sequence[int]) -> str:
    """Return the teacher's name of a student's parameter."""
    if not key.startswith(whole + "."):
        return key
    index, _, rest = key[len(whole) + 1 :].partition(".")
    return f"{whole}.{layers[int(index)]}.{rest}"
