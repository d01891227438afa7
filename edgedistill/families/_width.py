"""Narrower encoders: which of the teacher's dimensions, heads and neurons a student keeps.

Kept is what carries the most weight (squared norm): of the hidden dimensions over all matrices that
read or write them, one choice for the whole model, since the residual stream runs through it; of
the heads and feed-forward neurons in each layer by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgedistill.errors import ModelError
from edgedistill.records import Shape

READERS = ("query", "key", "value", "q_lin", "k_lin", "v_lin", "q_proj", "k_proj", "v_proj",
           "q", "k", "v")  # fmt: skip
WRITERS = ("out_lin", "o_proj", "o")  # and "dense" below "attention.output"
POSITIONS = "relative_attention_bias.weight"  # MPNet: (buckets, heads), one table for all layers

Kept = Mapping[str, Mapping[str, Any]]  # {"": {"hidden": indices}, "<layer>": {"channels": ...}}


def keep(pairs: Mapping[str, tuple[Any, Any]], stack: str, teacher: Shape, student: Shape) -> Kept:
    """Choose what is kept, as sorted indices: for the model ("") and for each of its layers.

    `pairs`: the teacher's name of a tensor -> (the teacher's, the student's); `stack`: the path of
    the teacher's layers.
    """
    import torch

    shared = any(name.endswith(POSITIONS) for name in pairs)  # then all layers keep the same heads
    weighed: dict[tuple[str, str], Any] = {}
    for name, (ours, small) in pairs.items():
        for axis, kind in enumerate(axes(name, ours, small, stack, teacher)):
            if kind in ("hidden", "channels", "feed_forward") and ours.any():
                others = [other for other in range(ours.ndim) if other != axis]
                squares = ours.double().square()
                each = squares.sum(dim=others) if others else squares
                whole = kind == "hidden" or (kind == "channels" and shared)
                place = "" if whole else layer(name, stack)
                share = each / each.sum()  # so that no large matrix decides alone
                weighed[place, kind] = weighed.get((place, kind), 0.0) + share
    found: dict[str, dict[str, Any]] = {"": {}}
    for (place, kind), share in weighed.items():
        here = found.setdefault(place, {})
        if kind == "channels":  # whole heads
            each = share.view(teacher["heads"], -1)
            here["heads"] = each.sum(1).topk(student["heads"]).indices.sort().values
            within = torch.arange(each.shape[1])
            here[kind] = (here["heads"][:, None] * each.shape[1] + within[None, :]).flatten()
        else:
            here[kind] = share.topk(student[kind]).indices.sort().values
    if "hidden" in found[""]:
        hidden = found[""]["hidden"]
        found[""]["twice"] = torch.cat([hidden, hidden + teacher["hidden"]])
    return found


def cut(name: str, ours: Any, small: Any, *, stack: str, teacher: Shape, kept: Kept) -> Any:
    """Return the part of a teacher's tensor that the student has; None where none fits."""
    for axis, kind in enumerate(axes(name, ours, small, stack, teacher)):
        if kind:
            chosen = kept[""].get(kind)
            if chosen is None:
                chosen = kept.get(layer(name, stack), {}).get(kind)
            if chosen is None:
                return None
            ours = ours.index_select(axis, chosen)
    return ours if ours.shape == small.shape else None


def configure(config: Any, student: Shape, teacher: Shape) -> None:
    """Write a student's width into its config. Raises `ModelError` where it can't be narrowed."""
    config.hidden_size = student["hidden"]
    config.num_attention_heads = student["heads"]
    if "head_size" in student or hasattr(config, "head_dim"):
        config.head_dim = student.get("head_size") or student["hidden"] // student["heads"]
    if hasattr(config, "mlp_ratio"):
        ratio, rest = divmod(student["feed_forward"], student["hidden"])
        if rest:
            raise ModelError(
                f"a feed-forward of {student['feed_forward']} is no multiple of the width "
                f"{student['hidden']}, as this model type wants it"
            )
        config.mlp_ratio = ratio
    elif hasattr(config, "hidden_dim"):
        config.hidden_dim = student["feed_forward"]
    else:
        config.intermediate_size = student["feed_forward"]
    if getattr(config, "embedding_size", None) == teacher["hidden"]:
        config.embedding_size = student["hidden"]  # ELECTRA without a projection between
    if hasattr(config, "pooler_output_size"):
        config.pooler_output_size = student["hidden"]


def layer(name: str, stack: str) -> str:
    """Return the number of the layer that a tensor belongs to, "" for none."""
    return name[len(stack) + 1 :].partition(".")[0] if name.startswith(stack + ".") else ""


def axes(name: str, ours: Any, small: Any, stack: str, teacher: Shape) -> list[str | None]:
    """Name what each axis that shrinks runs over; None for one that stays as it is.

    "channels" are the heads' dimensions, as many as the hidden ones; "twice" is the hidden size two
    times over: DINOv2's head reads what the class and the patches gave.
    """
    if ours.ndim != small.ndim:
        return [None] * ours.ndim
    module = name.rpartition(".")[0]
    leaf = module.rpartition(".")[2]
    inside = bool(layer(name, stack))
    writes = leaf in WRITERS or module.endswith("attention.output.dense")
    found: list[str | None] = []
    for axis, (length, less) in enumerate(zip(ours.shape, small.shape, strict=True)):
        if length == less:
            found.append(None)
        elif name.endswith(POSITIONS):
            found.append("heads")
        elif inside and ((leaf in READERS and axis == 0) or (writes and axis == 1)):
            found.append("channels")
        elif inside and length == teacher["feed_forward"]:
            found.append("feed_forward")
        elif not inside and length == 2 * teacher["hidden"]:
            found.append("twice")
        else:
            found.append("hidden" if length == teacher["hidden"] else None)
    return found
