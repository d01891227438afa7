"""A small real job: rows that can be learned, a headless tiny BERT, a target without haste."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent.parent
SETTINGS = {
    "finetune.steps": 120,
    "finetune.rate": 2e-3,
    "distill.steps": 80,
    "distill.rate": 2e-3,
    "measure.seconds": 0.5,
    "measure.rounds": 3,
    "measure.runs": 20,
    "run.threads": 1,
    "run.emulate": "never",  # some ten seconds a processor
    "run.objective": "size",  # on models this small latencies differ by noise alone
}
TARGET = """
name = "roomy"
about = "a target that nearly anything fits"
[runtime]
onnxruntime = "1.17"
[processors]
names = ["arm64", "arm64+dotprod"]
[device]
int8_gops = 100
fp32_gflops = 34
[limits]
max_drop_points = 40
latency_p90_ms = 1000
size_mb = 50
"""


def tiny() -> Any:
    """Import tests/tiny.py, whichever way pytest imports tests."""
    spec = importlib.util.spec_from_file_location("tiny", HERE / "tiny.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def job(folder: Path, *, kind: str = "bert", head: bool = False) -> dict[str, Any]:
    """Write model, rows and target into a folder; returns the names that build them."""
    made = tiny()
    folder.mkdir(parents=True, exist_ok=True)
    made.model(folder / "model", kind, labels=made.LABELS if head else None)
    rows(folder / "rows")
    (folder / "roomy.toml").write_text(TARGET)
    return {
        "model": str(folder / "model"),
        "data": str(folder / "rows"),
        "target": str(folder / "roomy.toml"),
        "student": "1",
        "out": str(folder / "out"),
        "store": str(folder / "store"),
        "settings": dict(SETTINGS),
    }


def rows(folder: Path, *, seed: int = 0) -> None:
    """Write three CSV files of rows whose label is told by a word."""
    made = tiny()
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    for name, count in {"train": 240, "validation": 90, "test": 90}.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["text", "label"])
            for index in range(count):
                out.writerow([made.text(index % 3, draw), made.LABELS[index % 3]])


def command(names: dict[str, Any], verb: str = "build", *more: str) -> list[str]:
    """Return the command line of a job's names."""
    line = [sys.executable, "-m", "edgedistill", verb]
    for name, value in names.items():
        if name == "settings":
            for key, told in value.items():
                line += ["--set", f"{key}={told}"]
        else:
            line += [f"--{name}", str(value)]
    return [*line, *more]


def run(line: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would, without a terminal."""
    return subprocess.run(line, capture_output=True, text=True, timeout=600, **more)


def payload(out: Path) -> dict[str, str]:
    """Return the hashes of what ships of a bundle: model, tokenizer, labels, golden vectors."""
    manifest = json.loads((out / "manifest.json").read_text())
    names = ["model.onnx", "tokenizer.json", "labels.json", "golden.json"]
    found = {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names}
    return {**found, "payload": manifest["payload"]}


def environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1"}
