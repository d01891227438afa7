"""Static int8, QDQ form: activations in ranges that training rows showed. For convolutions.

Standard operators alone: QuantizeLinear and DequantizeLinear stand around what is to be int8, and
the session makes its integer kernels of that (`_static` says what becomes int8). It serves encoders
too, but there the session leaves the biases to nodes of their own: `static_qoperator` is the faster
form of the same arithmetic.

On x86 without VNNI the product of u8 and s8 pairs is summed in 16 bits and saturates; weights of
seven bits never do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgedistill.schemes._shared import exact_on as exact_on
from edgedistill.schemes._shared import for_processors as for_processors
from edgedistill.schemes._static import Settings as Settings
from edgedistill.schemes._static import apply as apply
from edgedistill.schemes._static import milder as milder
from edgedistill.schemes._static import quantizable as quantizable
from edgedistill.schemes._static import valid as valid

PRECISION = "int8"
CALIBRATES = True
PACKAGES = ("onnx", "onnxruntime", "numpy")


def spared(facts: Mapping[str, Any], target: Any) -> str | None:
    """Return why `auto` leaves the scheme to be named, or None."""
    return None if facts.get("convolutional") else "static_qoperator is its faster form"


def word(facts: Mapping[str, Any]) -> str:
    """Return what rows of this scheme are called by."""
    return PRECISION if facts.get("convolutional") else f"{PRECISION} qdq"
