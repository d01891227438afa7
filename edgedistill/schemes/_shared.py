"""What the schemes of int8 share: settings, where the arithmetic is exact, what can be int8."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgedistill.graph.weights import FULL, SEVEN_BITS, Constants, attributes
from edgedistill.schemes import _tables
from edgedistill.settings import setting

# With SSE4.1 alone sums are made in 32 bits; AVX2 without VNNI has 16 of them between (emulated).
EXACT_AT_SEVEN_BITS = ("arm64", "arm64+dotprod", "x86-64", "x86-64+avx2", "x86-64+vnni")
EXACT_AT_FULL_RANGE = ("arm64", "arm64+dotprod", "x86-64", "x86-64+vnni")


@dataclass(frozen=True)
class Int8:
    """The settings that every scheme of int8 has."""

    reduce_range: bool = setting(
        False, "seven-bit weights: exact on x86 without VNNI, at nearly no cost in score"
    )
    embeddings: str = setting(
        _tables.PRECISIONS[0],
        "tables, one scale a row: int4 (large ones; others int8), int8, or as they are",
        choices=_tables.PRECISIONS,
    )
    floats: tuple[str, ...] = setting(
        (), "operators that stay in float, by the name of their result"
    )

    @property
    def tables(self) -> bool:
        """Say whether embedding tables are quantized."""
        return self.embeddings != "float32"

    @property
    def largest(self) -> int:
        """The largest |weight| as an int8."""
        return SEVEN_BITS if self.reduce_range else FULL


def unproven(processor: str) -> str | None:
    """Say that no file of ours is proven exact on a processor; None where one is."""
    if processor in EXACT_AT_SEVEN_BITS:
        return None
    known = ", ".join(EXACT_AT_SEVEN_BITS)
    return f"its arithmetic is not proven exact on '{processor}' (proven: {known})"


def for_processors(processors: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the settings under which the arithmetic is exact on all of these processors."""
    return {"reduce_range": not set(processors) <= set(EXACT_AT_FULL_RANGE)}


def exact_on(settings: Int8) -> tuple[str, ...]:
    """Name the processors on which a file made with these settings is exact."""
    return EXACT_AT_SEVEN_BITS if settings.reduce_range else EXACT_AT_FULL_RANGE


def milder(made: Any, settings: Int8) -> Sequence[Mapping[str, Any]]:
    """Return changes that may cost less of the score: tables in int8, which takes more bytes."""
    return [{"embeddings": "int8"}] if _tables.has_int4(made) else []


def is_product(constants: Constants, node: Any) -> bool:
    """Say whether a node is a MatMul or Gemm with constant weights, of an input that is none."""
    if node.op_type not in ("MatMul", "Gemm"):
        return False
    told = attributes(node)
    plain = told.get("alpha", 1.0) == told.get("beta", 1.0) == 1.0 and not told.get("transA")
    weights = constants.floats(node.input[1], rank=2)
    return plain and weights is not None and node.input[0] not in constants


def quantizable(
    model: Any, settings: Int8, product: Callable[[Constants, Any], bool] = is_product
) -> list[str]:
    """Name the results of the products and lookups that can be int8, in the graph's order."""
    constants = Constants(model.graph)
    return [
        node.output[0]
        for node in model.graph.node
        if product(constants, node) or (settings.tables and _tables.is_lookup(constants, node))
    ]
