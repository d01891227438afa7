"""Families: one file each. A family knows the shapes of its model types, and how to shrink them.

`covers`, `shape`, `parse`, `name` and `defaults` read plain dicts and import nothing heavy.
A shape is an open map: {"layers": 2, "hidden": 384, "heads": 12, "feed_forward": 1536,
"vocabulary": 30522} for encoders, {"blocks": ..., "channels": ...} for convolutional networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from edgedistill.records import Shape


class Family(Protocol):
    """What a file in families/ offers, as module attributes.

    It may also offer `RATE` (learning rates, see `train.pace.rate`), `TRAINING` (settings of
    distill over the recipe's), and, where its students can start from models of other families,
    those in `STARTS_FROM`, with `reads(text)`: whether a student's text is one of its own. And
    `starts(shape, teacher)`: the sets of layers, by name, that are worth a trial as a start. And
    `only_logits(model, answer)`: a context in which a model computes no more than its logits take,
    told by `answer()`, those of a few rows; what losses read inside it may be wrong there.

    One whose models can be pruned has, all together: `PRUNES`, the kinds of units that can go, the
    usual one first; `pruned(shape, wish, config)`, the shape that is left, where `wish` says by
    kind ("": the usual one) a share below 1 or a number; `between(shape, target, part, config)`,
    one on the way there; `gated(model)`, a context that gives what reads the gates' gradients after
    a backward pass, {group: one value a unit}; and `prune(model, shape, importance)` -> (model,
    facts), which keeps the units of the largest importance.
    """

    MODEL_TYPES: tuple[str, ...]
    PACKAGES: tuple[str, ...]
    CONVOLUTIONAL: bool  # whether its products are convolutions: decides the int8 schemes

    def covers(self, config: Mapping[str, Any]) -> bool:
        """Say whether a plain config.json is of this family."""

    def refuses(self, config: Mapping[str, Any]) -> str | None:
        """Say why a model that looks like one of these can't be shrunk (may be left out)."""

    def shape(self, config: Mapping[str, Any]) -> Shape:
        """Read the shape from a plain config.json."""

    def parse(self, text: str, teacher: Shape) -> Shape:
        """Read "2", "2x256" or "same" as a student's shape. Raises `ModelError`."""

    def name(self, shape: Shape, teacher: Shape | None = None) -> str:
        """Write a shape for people: "2x384"; of a teacher's student, so that `parse` reads it."""

    def defaults(self, teacher: Shape) -> Sequence[Shape]:
        """Return the shapes to try without being told, the smallest first."""

    def layers(self, shape: Shape, teacher: Shape) -> Sequence[int]:
        """Return which of the teacher's layers start a student of that shape."""

    def shrink(
        self, teacher: Any, shape: Shape, *, layers: Sequence[int], init: str, seed: int
    ) -> tuple[Any, Mapping[str, Any]]:
        """Make the student: a torch model, and facts {"copied": [...], "fresh": [...]}.

        `init` is "teacher" (from the teacher's own layers) or "random".
        """

    def fold(self, model: Any, kept: Sequence[int]) -> None:
        """Keep the embeddings of those ids alone, each at its new id (texts; may be left out)."""

    def locate(self, name: str, model: Any) -> str:
        """Map a loss's need ("hidden.3", "attention.1") to a module path of the model."""


GRAPH = "exported, it can be quantized as it is: --model net.onnx"


def family_of(config: Mapping[str, Any]) -> str:
    """Return the name of the family that covers a config. Raises `ModelError` naming which can."""
    from edgedistill import plugins
    from edgedistill.errors import ModelError

    types = []
    for name in plugins.names("families"):
        family = plugins.find("families", name)
        if family.covers(config):
            return name
        reason = getattr(family, "refuses", lambda config: None)(config)
        if reason:
            raise ModelError(
                f"a model of type '{config.get('model_type')}' can't be shrunk: {reason}; {GRAPH}"
            )
        types += family.MODEL_TYPES
    raise ModelError(
        f"a model of type '{config.get('model_type')}' can't be shrunk; "
        f"these can: {', '.join(sorted(types))}; {GRAPH}"
    )


def student_family(text: str, teacher: str) -> str:
    """Return the family that reads a student's text: the teacher's, unless another takes it.

    Such a one ("static") starts from that teacher's family, by `STARTS_FROM`, and `reads` the text.
    """
    from edgedistill import plugins

    for name in plugins.names("families"):
        found: Any = plugins.find("families", name)
        if teacher in getattr(found, "STARTS_FROM", ()) and found.reads(text):
            return name
    return teacher
