"""Stages: one file each. Folders in, one new folder out, facts back.

A stage knows neither the store, nor the target, nor its neighbours, and none imports another.
`run` writes into `out`, which exists and is empty but for `.resume` (checkpoints of an earlier,
killed run of the very same step; the store removes it after `run` returns).
Inputs are folders by indexed name ("train.0", "train.1"); `indexed` collects them in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from edgedistill.records import Progress


class Stage(Protocol):
    """What a file in stages/ offers, as module attributes."""

    Settings: type
    INPUTS: Mapping[str, str]  # {"teacher": "model", "train": "arrays"}: name -> kind
    OUTPUT: str  # "rows" | "arrays" | "model" | "graph"
    PACKAGES: tuple[str, ...]  # distributions whose version can change the result

    def plugins(self, settings: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """Name the plugins that a step with these settings uses: [("tasks", "..."), ...]."""

    def run(
        self, inputs: Mapping[str, Path], settings: Any, out: Path, progress: Progress
    ) -> Mapping[str, Any]:
        """Do the work; return facts (small JSON)."""

    # A stage that trains has the setting `processes`, and beside `run`:
    # follow(inputs, settings, resume)    train along as one of several processes; write nothing


def indexed(inputs: Mapping[str, Path], name: str) -> list[Path]:
    """Return the folders given as `name.0`, `name.1`, ... in order."""
    found = {key: path for key, path in inputs.items() if key.rpartition(".")[0] == name}
    return [found[f"{name}.{index}"] for index in range(len(found))]
