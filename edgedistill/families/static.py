"""Static embeddings: the mean of a text's pieces, one layer, the labels. No attention at all.

For devices where even one attention layer is too much (after fastText, Joulin et al., 2016, and
model2vec, 2024). The table is the teacher's own, centred and turned onto its principal components;
the layer above it is made new, and what the teacher answers trains both. By trial (CLINC150, 3
epochs, validation) nothing was gained by running each piece through the whole teacher, by weighing
pieces by their rarity, by learned weights, or by a maximum beside the mean; a random table lost 3
points. 256 wide, as recipes train it: 94.4 on test (teacher 95.9) in less than a minute of one
thread. A shape is {"hidden" (the table's width), "feed_forward", "vocabulary"}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgedistill.errors import ModelError
from edgedistill.families import _architectures, encoder
from edgedistill.records import Shape

PACKAGES = ("torch", "transformers")
CONVOLUTIONAL = False  # which int8 schemes can serve
MODEL_TYPES = (_architectures.STATIC,)
STARTS_FROM = ("encoder",)  # families whose models can start one of these
WIDTH = 256  # of the table, unless told
SMALLEST = 8
TABLE = "static.embeddings.weight"
HEAD = ("classifier.bias", "classifier.weight")
INNER = 2  # times the width: the layer above the table
RATE = {"nothing": 8e-3, "whole": 8e-3}  # a step is cheap, and the layer above the table is new
TRAINING: Mapping[str, Any] = {"embedding_rate": 1.0, "batch": 128}  # over the recipe's


def covers(config: Mapping[str, Any]) -> bool:
    """Say whether a plain config.json is of this family."""
    return config.get("model_type") in MODEL_TYPES


def reads(text: str) -> bool:
    """Say whether a student's text is one of this family's, whatever its teacher's family is."""
    return text.strip().startswith("static")


def shape(config: Mapping[str, Any]) -> Shape:
    """Read the shape from a plain config.json. Raises `ModelError` for one that lacks it."""
    names = {"hidden": "hidden_size", "feed_forward": "intermediate_size"}
    names["vocabulary"] = "vocab_size"
    try:
        return {ours: int(config[theirs]) for ours, theirs in names.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"config.json of static embeddings says nothing of {error}") from None


def parse(text: str, teacher: Shape) -> Shape:
    """Read "static" (256 wide), "static128", "static128v6000" (pieces); "same" of a static teacher.

    Raises `ModelError`.
    """
    if "vocabulary" not in teacher:
        raise ModelError(
            f"student '{text}': static embeddings are for texts, this teacher has none"
        )
    if text == "same":
        return dict(teacher)
    match = re.fullmatch(r"static(\d+)?(?:v(\d+))?", text.strip())
    if not match:
        raise ModelError(
            f"'{text}' is no static student: expected static, static128, static128v6000"
        )
    most = teacher["hidden"]
    width = int(match[1] or min(WIDTH, most))
    if not min(SMALLEST, most) <= width <= most:
        raise ModelError(f"a table of width {width}: expected {SMALLEST} to the teacher's {most}")
    inner = INNER * width if "layers" in teacher else teacher["feed_forward"]
    whole = teacher["vocabulary"]
    pieces = int(match[2] or whole)
    if not 1 <= pieces <= whole:
        raise ModelError(f"a vocabulary of {pieces}: expected 1 to the teacher's {whole}")
    return {"hidden": width, "feed_forward": inner, "vocabulary": pieces}


def name(shape: Shape, teacher: Shape | None = None) -> str:
    """Write a shape for people: "static256", "static256v6000" of a teacher with more pieces."""
    made = f"static{shape['hidden']}"
    less = teacher is not None and shape["vocabulary"] != teacher["vocabulary"]
    return made + (f"v{shape['vocabulary']}" if less else "")


def defaults(teacher: Shape) -> Sequence[Shape]:
    """Return half the width of a static teacher; other teachers' families have their own."""
    half = teacher["hidden"] // 2
    return [parse(f"static{half}", teacher)] if half >= SMALLEST else []


def layers(shape: Shape, teacher: Shape) -> Sequence[int]:
    """Return no layer: a table is what starts it."""
    return ()


def shrink(
    teacher: Any, shape: Shape, *, layers: Sequence[int], init: str, seed: int
) -> tuple[Any, Mapping[str, Any]]:
    """Make a static student whose table holds the principal components of the teacher's.

    Of a static teacher the layers above come along, turned with the table. Facts: copied, sliced
    (turned) and fresh, parameters by name. `init` "random" copies nothing.
    """
    import torch

    build = _architectures.register()[_architectures.STATIC]
    config = _config(build.config_class, teacher.config, shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = build(config).float()
    target = student.state_dict()
    if init == "random":
        return student.eval(), {"copied": [], "sliced": [], "fresh": sorted(target)}
    source = teacher.state_dict() if covers(teacher.config.to_dict()) else {}
    if source and all(source[name].shape == target[name].shape for name in target):
        student.load_state_dict(source)
        return student.eval(), {"copied": sorted(target), "sliced": [], "fresh": []}
    words = teacher.get_input_embeddings().weight.detach().double()
    mean, turn, scale = _components(words, shape["hidden"])
    made = {TABLE: ((words - mean) @ turn) / scale}
    if source:
        dense = source["dense.weight"].double()
        made["dense.weight"] = dense @ turn * scale
        made["dense.bias"] = source["dense.bias"].double() + dense @ mean
    with torch.no_grad():
        for name, values in made.items():
            target[name].zero_()[..., : values.shape[-1]].copy_(values)
        for name in HEAD if source else ():
            target[name].copy_(source[name])
    copied = list(HEAD) if source else []
    fresh = sorted({*target} - {*made} - {*copied})
    return student.eval(), {"copied": copied, "sliced": sorted(made), "fresh": fresh}


fold = encoder.fold  # the table is the model's input embeddings here too


def locate(name: str, model: Any) -> str:
    """Refuse: this family has nothing inside that a loss could compare."""
    raise ModelError(f"static embeddings have no '{name}' to read: only logits can be compared")


# ---------------------------------------------------------------- the table


def _components(words: Any, width: int) -> tuple[Any, Any, Any]:
    """Return what turns a table onto its principal components: its mean, (dimensions, width), std.

    In falling order of variance, and of each the largest weight positive, so that every machine
    makes the same. There are fewer than `width` of a table that is narrower itself.
    """
    import torch

    mean = words.mean(0)
    centred = words - mean
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    vectors = vectors.flip(1)[:, :width]
    largest = vectors.abs().argmax(0, keepdim=True)
    vectors = vectors * vectors.gather(0, largest).sign()
    return mean, vectors, (centred @ vectors).std().clamp(min=1e-12)


def _config(kind: Any, teacher: Any, shape: Shape) -> Any:
    """Return the student's config: its sizes, and what the teacher's says of labels and pieces."""
    told = {
        name: getattr(teacher, name)
        for name in ("pad_token_id", "max_position_embeddings", "id2label", "label2id")
        if getattr(teacher, name, None) is not None
    }
    return kind(
        vocab_size=shape["vocabulary"],
        hidden_size=shape["hidden"],
        intermediate_size=shape["feed_forward"],
        **told,
    )
