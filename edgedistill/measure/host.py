"""This host: its processor, what int8 runs on, versions, memory, and how busy it is."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from edgedistill.measure import probe
from edgedistill.records import Progress

PACKAGES = ("edgedistill", "onnxruntime", "numpy", "tokenizers", "onnx", "torch", "transformers")
FLAGS = {  # as numpy names features: as Linux names flags
    "AVX2": "avx2",
    "FMA3": "fma",
    "AVX512F": "avx512f",
    "AVX512BW": "avx512bw",
    "AVX512DQ": "avx512dq",
    "AVX512VL": "avx512vl",
    "AVX512VNNI": "avx512_vnni",
    "ASIMDDP": "asimddp",
}


@cache
def processor() -> Mapping[str, Any]:
    """Return {"name", "flags", "cores", "machine", "system"} of this host."""
    return probe.processor()


def instructions(flags: frozenset[str] | None = None, machine: str | None = None) -> str:
    """Name the int8 instruction set that onnxruntime uses here, as targets name processors.

    Without arguments of this host; `flags` as in Linux' /proc/cpuinfo, `machine` as in uname.
    """
    if flags is None:
        flags = frozenset(processor()["flags"]) or _flags_of_numpy()
    machine = (machine or platform.machine()).lower()
    if machine in ("aarch64", "arm64"):
        return "arm64+dotprod" if "asimddp" in flags else "arm64"
    if machine in ("x86_64", "amd64", "x64"):
        # onnxruntime takes its AVX512 int8 kernels only where AVX512's core set is whole.
        whole = {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags
        if "avx_vnni" in flags or ("avx512_vnni" in flags and whole):
            return "x86-64+vnni"
        return "x86-64+avx2" if {"avx2", "fma"} <= flags else "x86-64"
    return machine


def _flags_of_numpy() -> frozenset[str]:
    """Return what numpy found out about the processor, where the system has no list (Windows)."""
    try:
        from numpy._core._multiarray_umath import __cpu_features__ as found
    except ImportError:
        return frozenset()
    return spelled(name for name, there in found.items() if there)


def spelled(features: Iterable[str]) -> frozenset[str]:
    """Spell the features that numpy found as Linux' /proc/cpuinfo does, those that count here."""
    return frozenset(FLAGS[name] for name in features if name in FLAGS)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that are installed here."""
    found = {"python": platform.python_version(), "system": platform.system()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Any]:
    """Return what a report says of the host: processor, flags, cores, instructions, versions."""
    found = processor()
    return {
        "processor": found["name"],
        "flags": list(found["flags"]),
        "cores": found["cores"],
        "instructions": instructions(),
        "versions": versions(),
    }


def busy_seconds() -> float | None:
    """Return the processor seconds that all of this host has spent, or None where none tells."""
    try:
        line = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        user, nice, system, _, _, irq, softirq, steal = (int(each) for each in line[1:9])
        return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None


def process_seconds(pid: int) -> float | None:
    """Return the processor seconds of one process, or None where none tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def lives(pid: int) -> bool:
    """Say whether a process of that id runs here; in doubt, yes."""
    if os.name != "posix":  # elsewhere signal 0 is no question
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


@contextlib.contextmanager
def alone(progress: Progress, path: Path | None = None) -> Iterator[None]:
    """Hold the host's measuring lock: one build measures at a time, the others wait and say so.

    `path` is for tests. A lock file that belongs to another user and can't be opened is said, and
    the measuring goes on: its load shows in the figures.
    """
    import filelock

    path = path or _shared_folder() / "edgedistill-measure.lock"
    lock = filelock.FileLock(path, mode=0o666)
    try:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            progress({"kind": "wait", "text": "another build is measuring on this host: waiting"})
            lock.acquire()
    except OSError as error:
        text = f"the measuring lock '{path}' can't be taken ({error.strerror}): not waiting"
        progress({"kind": "note", "text": text})
        yield
        return
    with contextlib.suppress(OSError):  # whoever made it: other users must be able to take it
        path.chmod(0o666)
    try:
        yield
    finally:
        lock.release()


def _shared_folder() -> Path:
    """Return the folder that all users of the host share: TMPDIR may differ by user or job."""
    shared = Path("/tmp")
    return shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())
