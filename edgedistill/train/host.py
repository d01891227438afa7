"""What this host computes fastest: whether bfloat16 pays is timed, not assumed.

Imports nothing heavy: torch runs in a process of its own, and only where the processor claims to
have bfloat16 at all. Emulated it is up to a hundred times slower than float32.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

PAYS = 1.2  # times as fast as float32, or it is not worth its rounding
CLAIMS = ("avx512_bf16", "amx_bf16", "bf16", "asimdbf16", "svebf16")  # in /proc/cpuinfo
PROBE = """
import sys, time, torch
torch.set_num_threads(1)
device = sys.argv[1]
def best(dtype):
    left, right = (torch.randn(*s).to(device, dtype) for s in ((1024, 384), (384, 1536)))
    times = []
    for _ in range(7):
        started = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
        if times[-1] > 0.5:
            break
    return min(times)
print(best(torch.float32) / best(torch.bfloat16))
"""
SEES = "import sys, torch; print(getattr(torch, sys.argv[1]).is_available())"


def host_dtype(memory: Path | None = None, *, probe: bool = True, device: str = "cpu") -> str:
    """Return "bfloat16" where training is faster in it on this host, else "float32".

    The sizes are those of a small encoder's batch (1,024 tokens, 384 wide), on one thread.
    `memory`: a JSON file that remembers the answer for this processor (or GPU) and torch, so that
    plans stay the same and quick. Without `probe` an answer that is not there is the processor's
    word, and float32 for a GPU.
    """
    processor, flags = _processor() if device == "cpu" else (_gpu(), set())
    if device == "cpu" and flags is not None and not flags & set(CLAIMS):
        return "float32"
    name = f"{processor} · torch {metadata.version('torch')}"
    known = _recall(memory)
    if name not in known and not probe:
        return "bfloat16" if flags else "float32"
    if name not in known:
        ratio = _ratio(device)
        if ratio is None:  # no answer to remember
            return "float32"
        known[name] = "bfloat16" if ratio >= PAYS else "float32"
        _remember(memory, known)
    return known[name]


def sees(device: str) -> bool:
    """Say whether torch here can use a device: "cuda" or "mps"."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", SEES, device], capture_output=True, text=True, timeout=300
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.stdout.strip() == "True"


def _ratio(device: str = "cpu") -> float | None:
    """Return how many times as fast as in float32 a matrix product in bfloat16 is."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", PROBE, device],
            capture_output=True,
            text=True,
            timeout=300,  # of a first import from a cold disk
            check=True,
        )
        return float(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _processor() -> tuple[str, set[str] | None]:
    """Return the processor's name and flags; no flags (None) where the system does not say."""
    name, flags = platform.processor() or platform.machine(), None
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return name, None
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() in ("flags", "Features") and flags is None:
            flags = set(value.split())
    return name, flags


def _gpu() -> str:
    """Return the names of the GPUs, as their driver tells them."""
    models = set()
    for about in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        lines = about.read_text(errors="replace").splitlines()
        models |= {line.partition(":")[2].strip() for line in lines if line.startswith("Model:")}
    return " + ".join(sorted(models)) or "cuda"


def _recall(memory: Path | None) -> dict[str, str]:
    try:
        known = json.loads(memory.read_text()) if memory else {}
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in known.items() if v in ("float32", "bfloat16")}


def _remember(memory: Path | None, known: dict[str, str]) -> None:
    if memory is None:
        return
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        partial = memory.with_name(f"{memory.name}.{os.getpid()}")
        partial.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        partial.replace(memory)
    except OSError:
        pass  # a read-only place: it is timed again the next time
