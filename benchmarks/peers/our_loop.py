"""Our loop over the same student and rows, with the labels that were cached once.

Started by benchmarks/speed.py; trains as many steps as each line of stdin says, and answers with
one line of JSON. Two other words: "validate" times one pass of validation, "matmul" measures the
rate of large matrix products with as many threads.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgedistill import plugins
from edgedistill.progress import silent
from edgedistill.settings import coerce
from edgedistill.stages import _lesson
from edgedistill.train import loop

SIDE = 2048  # of the matrices
PRODUCTS = 8


class Gate:
    """Reads the teacher, once a step: trains no further than was told."""

    def __init__(self, read: Any, model: Any, work: Any) -> None:
        self.read, self.model, self.work = read, model, work
        self.left, self.steps, self.begun = 0, 0, 0.0

    def __call__(self, indices: np.ndarray, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if self.left == 0:
            if self.steps:
                _say({"seconds": time.perf_counter() - self.begun, "steps": self.steps})
            self.left = self.steps = self._told()
            self.begun = time.perf_counter()
        self.left -= 1
        return self.read(indices, inputs)

    def _told(self) -> int:
        while word := sys.stdin.readline().strip():
            if word.isdigit():
                return int(word)
            _say(_rates() if word == "matmul" else self._validation())
        os._exit(0)

    def _validation(self) -> dict[str, float]:
        begun = time.perf_counter()
        loop.score(self.model, self.work.validation, self.work)
        self.model.train()
        return {"seconds": time.perf_counter() - begun}


def main(told: dict[str, Any]) -> None:
    """Train on command; `told` holds what a step `distill` has: its inputs and settings."""
    settings = coerce(plugins.find("stages", "distill").Settings, told["settings"], "distill")
    inputs = {name: Path(path) for name, path in told["inputs"].items()}
    with tempfile.TemporaryDirectory() as folder:
        model = _lesson.student(inputs, settings)
        work = _lesson.work(inputs, settings, Path(folder) / ".resume", silent)
        loop.fit(model, dataclasses.replace(work, teacher=Gate(work.teacher, model, work)))


def _rates() -> dict[str, float]:
    """Return the GFLOP/s of large matrix products, the best of some, by arithmetic."""
    made = {}
    for dtype in (torch.bfloat16, torch.float32):
        one = torch.randn(SIDE, SIDE).to(dtype)
        spent = []
        for _ in range(PRODUCTS):
            begun = time.perf_counter()
            with torch.autocast("cpu", enabled=False):  # it is a step that asks
                torch.mm(one, one)
            spent.append(time.perf_counter() - begun)
        made[str(dtype).removeprefix("torch.")] = 2 * SIDE**3 / min(spent) / 1e9
    return made


def _say(answer: dict[str, float]) -> None:
    print(json.dumps(answer), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
