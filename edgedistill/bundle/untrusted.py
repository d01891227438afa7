"""Read files that a stranger may have written.

A bundle comes by mail, from a share, out of a CI: its manifest says which files to read and how
large they are, so every name and size is checked before a byte is read, and JSON is taken only in
the form that every language reads the same way (no NaN, no doubled key, no endless nesting).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgedistill.errors import BundleError, SurroundingsError, from_os_error

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
JSON_BYTES = 64_000_000  # golden.json of large images is the largest that we write ourselves
FILE_BYTES = 2_147_483_647  # what an ONNX file can hold at most
_CHUNK = 1 << 20


def printable(text: object, limit: int = 200) -> str:
    """Return a text fit for a terminal: control and direction characters escaped, cut to length."""
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def is_number(value: object) -> bool:
    """Say whether a JSON value is a number that a float holds (JSON's integers have no end)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= sys.float_info.max  # false for NaN too


@contextlib.contextmanager
def blamed(what: object) -> Iterator[None]:
    """Turn what a library raises over a file of the bundle into a `BundleError` that names it.

    Parsers meet what their authors never thought of: a field of another type, a number out of
    range. Our own `BundleError` and errors of the surroundings pass as they are.
    """
    try:
        yield
    except (BundleError, SurroundingsError, MemoryError):
        raise
    except Exception as error:  # tokenizers raises plain Exceptions
        raise BundleError(f"{printable(what)} is unsound: {printable(error)}") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # tokenizers' Rust, which gives up so
            raise
        raise BundleError(f"{printable(what)} is unsound: {printable(error)}") from None


def plain_name(name: object) -> str:
    """Return the name when it is that of a file in the bundle's own folder.

    Raises `BundleError` for paths, "..", hidden names, and names that some system reads otherwise.
    """
    if not isinstance(name, str) or not PLAIN_NAME.fullmatch(name) or name.endswith("."):
        raise BundleError(
            f"the manifest names the file '{printable(name)}': expected the plain name of a file "
            "in the bundle's folder"
        )
    return name


def size_of(folder: Path, name: str) -> int:
    """Return the size in bytes of a file of the bundle, which must be a regular file, no link."""
    path = folder / plain_name(name)
    try:
        found = path.lstat()
    except FileNotFoundError:
        raise BundleError(f"'{printable(path)}' is missing from the bundle") from None
    except OSError as error:
        raise from_os_error(error, f"reading the bundle's {name}") from None
    if not stat.S_ISREG(found.st_mode):
        raise BundleError(f"'{printable(path)}' is no regular file: a bundle holds no links")
    return found.st_size


def _chunks(folder: Path, name: str, most: int) -> Iterator[bytes]:
    size = size_of(folder, name)
    if size > most:
        raise BundleError(
            f"'{printable(folder / name)}' holds {size:,} bytes: expected at most {most:,}"
        )
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(folder / name, flags), "rb") as file:
            left = size  # what grows meanwhile is not read
            while left and (chunk := file.read(min(left, _CHUNK))):
                left -= len(chunk)
                yield chunk
    except OSError as error:
        raise from_os_error(error, f"reading the bundle's {name}") from None


def read(folder: Path, name: str, *, most: int = JSON_BYTES) -> bytes:
    """Read a whole file of the bundle, refused unread above `most` bytes."""
    return b"".join(_chunks(folder, name, most))


def digest(folder: Path, name: str, *, most: int = FILE_BYTES) -> str:
    """Return the SHA-256 of a file of the bundle as hex, in constant memory."""
    summed = hashlib.sha256()
    for chunk in _chunks(folder, name, most):
        summed.update(chunk)
    return summed.hexdigest()


def read_json(folder: Path, name: str, *, most: int = JSON_BYTES) -> Any:
    """Read a JSON file strictly. Raises `BundleError` naming the file and what is wrong in it."""
    data = read(folder, name, most=most)
    try:
        return parse_json(data)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else printable(error)
        raise BundleError(f"'{printable(folder / name)}' is not sound JSON: {reason}") from None


def parse_json(data: bytes) -> Any:
    """Parse JSON strictly. Raises `ValueError` for NaN, infinities, doubled keys, no UTF-8."""
    return json.loads(
        data.decode("utf-8"),
        parse_constant=_no_constant,
        parse_float=_finite,
        object_pairs_hook=_distinct,
    )


def _no_constant(text: str) -> Any:
    raise ValueError(f"it holds {text}")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is out of range")
    return number


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("an object names the same key twice")
    return made
