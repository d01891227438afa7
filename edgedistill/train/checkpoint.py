"""Checkpoints: what a killed run goes on from.

    .resume/00001200/state.safetensors    tensors by name
    .resume/00001200/state.json           the rest, and the digest of the tensors; written last

Two are kept. One that is incomplete or damaged falls back to the one before.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEPT = 2
SECONDS = 60.0
SHARE = 0.03  # of the time that writing may cost
VARIABLE = "EDGEDISTILL_CHECKPOINT_SECONDS"  # for tests; it can't change a result, so no setting


def write(folder: Path, step: int, *, tensors: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
    """Write one checkpoint, whole or not at all, and drop those beyond the newest two."""
    from safetensors.torch import save_file

    place, partial = folder / f"{step:08d}", folder / f"{step:08d}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        partial / "state.safetensors",
    )
    state = {"step": step, "digest": _digest(partial / "state.safetensors"), **rest}
    (partial / "state.json").write_text(json.dumps(state, sort_keys=True))
    for path in (partial / "state.safetensors", partial / "state.json", partial):
        _sync(path)
    shutil.rmtree(place, ignore_errors=True)
    partial.rename(place)
    _sync(folder)
    for old in _all(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return the tensors and the rest of the newest whole checkpoint; None where there is none."""
    from safetensors.torch import load_file

    for partial in folder.glob("*.partial"):
        shutil.rmtree(partial, ignore_errors=True)
    for place in reversed(_all(folder)):
        try:
            rest = json.loads((place / "state.json").read_text())
            if rest["digest"] == _digest(place / "state.safetensors"):
                return load_file(place / "state.safetensors"), rest
        except (OSError, ValueError, KeyError):
            pass
        shutil.rmtree(place, ignore_errors=True)
    return None


@dataclass
class Clock:
    """Tells when the next checkpoint is due: each minute, less often where writing is slow."""

    last: float = field(default_factory=lambda: time.monotonic())
    cost: float = 0.0

    def due(self) -> bool:
        """Say whether a checkpoint is due now."""
        told = os.environ.get(VARIABLE)
        wait = float(told) if told else max(SECONDS, self.cost / SHARE)
        return time.monotonic() - self.last >= wait

    def wrote(self, seconds: float) -> None:
        """Note that one was just written, and what it took."""
        self.cost, self.last = seconds, time.monotonic()


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*") if path.name.isdigit())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
