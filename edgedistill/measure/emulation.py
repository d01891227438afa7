"""Another processor, by emulation: whether answers are right there, never how fast they come.

qemu's user mode runs this Python, onnxruntime and the probe as a processor of another model would.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill.errors import ModelError, SurroundingsError, UsageError, nearest
from edgedistill.measure import sample
from edgedistill.measure.transport import Local, ProbeFailed
from edgedistill.progress import bar, silent
from edgedistill.records import Progress

QEMU = ("qemu-x86_64-static", "qemu-x86_64")
PATIENCE_S = 60.0  # for one run of the model, which is some hundred times slower than here
START_S = 180.0  # for python and onnxruntime to load


@dataclass(frozen=True)
class Cpu:
    """A processor that can be emulated here."""

    name: str  # as qemu spells it: "Haswell"
    qemu: str


def find(name: str) -> Cpu:
    """Find a processor by its name, in any case.

    Raises `UsageError` for one that qemu does not know, `SurroundingsError` without qemu.
    """
    if platform.system() != "Linux" or platform.machine().lower() not in ("x86_64", "amd64"):
        raise SurroundingsError("emulating another processor needs Linux on x86-64")
    qemu = next((found for each in QEMU if (found := shutil.which(each))), None)
    if qemu is None:
        raise SurroundingsError(
            f"emulating {name} needs {QEMU[0]}, which is not there: apt install qemu-user-static"
        )
    known = _known(qemu)
    for each in known:
        if each.lower() == name.lower():
            return Cpu(each, qemu)
    raise UsageError(f"--cpu: unknown processor '{name}': {nearest(name, known)}")


def _known(qemu: str) -> list[str]:
    told = subprocess.run([qemu, "-cpu", "help"], capture_output=True, text=True, check=False)
    return re.findall(r"^x86 (\S+)", told.stdout, re.M)


def outputs(
    cpu: Cpu,
    model: Path,
    session: Mapping[str, Any],
    feeds: Iterable[Mapping[str, np.ndarray]],
    output: str,
    *,
    progress: Progress = silent,
) -> list[np.ndarray]:
    """Return what a model answers there to each feed (the graph's inputs by name), float32.

    Raises `ModelError` where the model can't be run there.
    """
    found: list[np.ndarray] = []
    with tempfile.TemporaryDirectory(prefix="edgedistill-") as folder:
        rows = Path(folder) / "rows"
        count = sample.write(rows, feeds)
        probe = Local(command=(cpu.qemu, "-cpu", cpu.name, sys.executable))
        try:
            probe.put(model, "model.onnx")
            probe.put(rows, "rows")
            probe.ask(
                "load", deadline=START_S, model="model.onnx", rows="rows", session=dict(session)
            )
            for first in bar(range(count), progress, total=count):
                to = f"out{first}"
                probe.ask("run", deadline=PATIENCE_S, first=first, count=1, to=to)
                file = probe.folder / to / urllib.parse.quote(output, safe="")
                shape = np.load(f"{file}.shapes.npy")[0]
                found.append(np.load(f"{file}.npy").astype(np.float32).reshape(shape))
        except ProbeFailed as error:
            raise ModelError(f"as {cpu.name}: {error}") from None
        finally:
            probe.close()
    return found
