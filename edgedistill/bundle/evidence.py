"""The evidence beside a bundle, never shipped: what the baseline answered to each test row.

`<out>.evidence.npz` holds no row, only digests of rows; with it `check --data` pairs a later
bundle with the same baseline.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill.bundle.contents import Evidence
from edgedistill.bundle.untrusted import printable
from edgedistill.errors import BundleError, InternalError, from_os_error

MOST_BYTES = 2_000_000_000


def beside(out: Path) -> Path:
    """Return the evidence file's place for a bundle."""
    return out.with_name(out.name + ".evidence.npz")


def digest(example: Mapping[str, Any]) -> str:
    """Digest one example (without its truth): equal examples anywhere have equal digests."""
    summed = hashlib.sha256()
    for name, value in sorted(example.items()):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        summed.update(f"{name} {len(data)} ".encode() + data)
    return summed.hexdigest()


def write(path: Path, evidence: Evidence, labels: Sequence[str], payload: str) -> None:
    """Write the evidence of a bundle, complete or not at all."""
    rows = len(evidence.digests)
    for table in (evidence.truth, evidence.baseline, evidence.chosen):
        if len(table) != rows:
            raise InternalError(f"the evidence has {rows} digests and {len(table)} outputs")
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("wb") as file:
            np.savez_compressed(
                file,
                digests=np.array(list(evidence.digests), dtype="S64"),
                truth=np.asarray(evidence.truth, np.int32),
                baseline=np.asarray(evidence.baseline, np.float32),
                chosen=np.asarray(evidence.chosen, np.float32),
                labels=np.frombuffer(json.dumps(list(labels)).encode(), np.uint8),
                payload=np.array(payload.encode(), dtype="S64"),
            )
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise from_os_error(error, "writing the evidence") from error
    finally:
        new.unlink(missing_ok=True)


@dataclass(frozen=True)
class Kept:
    """Evidence read back: outputs by the digest of a row."""

    index: Mapping[str, int]
    truth: np.ndarray
    baseline: np.ndarray
    chosen: np.ndarray
    payload: str  # of the bundle beside which it was written

    def of(self, digests: Sequence[str]) -> np.ndarray | None:
        """Return the baseline's outputs of these rows, in order; None when one is lacking."""
        if not all(one in self.index for one in digests):
            return None
        return self.baseline[[self.index[one] for one in digests]]


def read(path: Path, labels: Sequence[str]) -> Kept | None:
    """Read the evidence beside a bundle; None where there is none.

    Raises `BundleError` when the file is damaged or tells of other labels.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BundleError(f"'{printable(path)}' is too large for evidence")
        with np.load(path, allow_pickle=False) as held:
            said = json.loads(held["labels"].tobytes())
            digests = [one.decode() for one in held["digests"]]
            tables = [held[name] for name in ("truth", "baseline", "chosen")]
            payload = held["payload"].item().decode()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise from_os_error(error, "reading the evidence") from None
    except (ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise BundleError(f"'{printable(path)}' is damaged: {printable(error)}") from None
    truth, baseline, chosen = tables
    shape = (len(digests), len(labels))
    if truth.shape != shape[:1] or baseline.shape != shape or chosen.shape != shape:
        raise BundleError(f"'{printable(path)}' is damaged: its tables differ in length")
    if said != list(labels):
        raise BundleError(f"'{printable(path)}' tells of other labels than the bundle's")
    index: dict[str, int] = {}
    for place, one in enumerate(digests):
        index.setdefault(one, place)
    return Kept(index, truth, baseline, chosen, payload)
