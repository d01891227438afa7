"""Quantization schemes: one file each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

Calibration = Callable[[], Iterator[Mapping[str, np.ndarray]]]  # fresh pass over training batches


class Scheme(Protocol):
    """What a file in schemes/ offers, as module attributes."""

    Settings: type  # with `floats`, as `_shared.Int8` has it, where operators can stay in float
    PRECISION: str  # "int8" | "fp16"
    CALIBRATES: bool  # whether `apply` reads calibration rows
    PACKAGES: tuple[str, ...]

    def valid(self, facts: Mapping[str, Any], target: Any, processor: str) -> str | None:
        """Return why the scheme can't serve, or None. Asked before and again after the export;
        `facts`: {"family", "convolutional": bool, "operators": {...} once exported}."""

    def spared(self, facts: Mapping[str, Any], target: Any) -> str | None:
        """Return why `auto` leaves the scheme to be named, though it could serve, or None."""

    def word(self, facts: Mapping[str, Any]) -> str:
        """Return what rows of this scheme are called by: the usual one's "int8", "int8 static".

        Rows of a file that is given by its path are called by its precision and its name.
        """

    def for_processors(self, processors: tuple[str, ...]) -> Mapping[str, Any]:
        """Return the settings under which the arithmetic is exact on all of these processors."""

    def exact_on(self, settings: Any) -> tuple[str, ...]:
        """Name the processors on which a file made with these settings is exact."""

    def milder(self, made: Any, settings: Any) -> Sequence[Mapping[str, Any]]:
        """Return changes of settings that may cost less of the score, in the order to try them.

        `made` is the graph of these settings. Where it costs too much, and Settings has `floats`,
        each is tried on top of those that were kept, before an operator returns to float.
        """

    def quantizable(self, model: Any, settings: Any) -> list[str]:
        """Name the results of the operators that can be int8, in the graph's order.

        `apply` leaves those in float that the setting `floats` names.
        """

    def apply(self, model: Any, calibration: Calibration | None, settings: Any) -> Any:
        """Return the quantized `onnx.ModelProto`; `model` is not changed."""


def lacks(plugin: Any) -> list[str]:
    """Name what a file lacks of the contract."""
    return [
        name
        for name in (*Scheme.__annotations__, *vars(Scheme))
        if not name.startswith("_") and not hasattr(plugin, name)
    ]
