"""Another processor, by emulation: whether answers are right there, never how fast they come.

qemu's user mode runs Python, onnxruntime and the probe as a processor of another model would: on
x86-64 this very Python, for arm64 the one of a system in a folder (see `arm64`).
"""

from __future__ import annotations

import contextlib
import difflib
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill.errors import ModelError, SurroundingsError, UsageError
from edgedistill.measure import arm64, host, sample
from edgedistill.measure.transport import Local, ProbeFailed
from edgedistill.progress import bar, silent
from edgedistill.records import Progress

QEMU = ("qemu-x86_64-static", "qemu-x86_64")
QEMU_ARM64 = ("qemu-aarch64-static", "qemu-aarch64")
PACKAGE = "apt install qemu-user-static"
PATIENCE_S = 60.0  # for one run of the model, which is some hundred times slower than here
START_S = 180.0  # for python and onnxruntime to load

# Which processor stands for an instruction set: the plainest that has it and nothing beyond.
STANDS_FOR: Mapping[str, str] = {
    "x86-64": "Nehalem",
    "x86-64+avx2": "Haswell",
    "arm64": "cortex-a53",
    "arm64+dotprod": "cortex-a76",
}
ARM64_MAX = "arm64-max"  # all that qemu knows: "max" alone is x86's
MAX = "max,sme=off"  # onnxruntime dies of the matrix extension as emulated
# What names numpy's kernels for this host is no word for another: it may lack their instructions.
UNSET = ("-U", "OPENBLAS_CORETYPE", "-U", "OPENBLAS_L2_SIZE")
OTHER_X86 = re.compile(r"(486|pentium[23]?|qemu32|kvm32|coreduo|n270|athlon|base)(-v\d+)?")
OTHER_ARM = re.compile(r"max|host|cortex-a(7|8|9|15)|(cortex-[mr]|arm|pxa|sa1|ti9)\d.*")
VERSION = re.compile(r"-(v\d+|IBRS|noTSX|IBPB)\b")

# What the processor says of itself, run there: Linux' capabilities and the main id on arm64 (two
# instructions, mrs x0, MIDR_EL1 and ret), what numpy found on x86-64. onnxruntime is not needed.
ASK = """
import json, platform
if platform.machine() == "aarch64":
    import ctypes, mmap
    libc = ctypes.CDLL(None)
    libc.getauxval.restype, libc.getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex("000038d5c0035fd6"))
    code = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    told = [libc.getauxval(16), libc.getauxval(26), code()]
else:
    try:
        from numpy._core._multiarray_umath import __cpu_features__ as found
    except ImportError:
        from numpy.core._multiarray_umath import __cpu_features__ as found
    told = [name for name in found if found[name]]
print(json.dumps(told))
"""


@dataclass(frozen=True)
class Cpu:
    """A processor that can be emulated here."""

    name: str  # as qemu spells it: "Haswell"
    qemu: str
    system: Path | None = None  # the arm64 system that it runs; None: this host's

    @property
    def instructions(self) -> str:
        """The int8 instruction set that onnxruntime finds there, as targets name processors."""
        return _asked(self)[0]


def find(name: str) -> Cpu:
    """Find a processor by its name, in any case.

    Raises `UsageError` for one that qemu does not know, `SurroundingsError` without qemu, and for
    an arm64 one without an arm64 system.
    """
    if not _emulates():
        raise SurroundingsError("emulating another processor needs Linux on x86-64")
    x86, arm = first(QEMU), first(QEMU_ARM64)
    known = {each: x86 for each in _known(x86)} if x86 else {}
    known |= {each: arm for each in _known(arm) if each not in known} if arm else {}
    for each, qemu in known.items():
        if each.lower() == name.lower():
            return Cpu(each, qemu, arm64.find(each) if qemu == arm else None)
    if x86 is None or arm is None:
        lacks = (QEMU_ARM64 if x86 else QEMU)[0]
        raise SurroundingsError(f"emulating {name} needs {lacks}, which is not there: {PACKAGE}")
    raise UsageError(f"--cpu: unknown processor '{name}': {_hint(name, known)}")


def _emulates() -> bool:
    """Say whether this is a system that we emulate on."""
    return platform.system() == "Linux" and platform.machine().lower() in ("x86_64", "amd64")


def standing_for(processor: str) -> Cpu:
    """Return the processor that is emulated for an instruction set, as targets name it.

    Raises `SurroundingsError` where none can be: the reason is one line, without places.
    """
    name = STANDS_FOR.get(processor)
    if name is None:
        raise SurroundingsError("qemu emulates no processor with these instructions")
    arm = processor.startswith("arm64")
    if _emulates() and first(QEMU_ARM64 if arm else QEMU) is None:
        raise SurroundingsError(f"qemu is not installed ({PACKAGE})")
    if _emulates() and arm and arm64.record(arm64.place()) is None:
        raise SurroundingsError(f"there is no arm64 system to run ({arm64.MAKER})")
    cpu = find(name)
    if cpu.instructions != processor:  # older qemus leave out what they can't: AVX2 before 7.2
        raise SurroundingsError(f"this qemu's {name} has the instructions of {cpu.instructions}")
    return cpu


def outputs(
    cpu: Cpu,
    model: Path,
    session: Mapping[str, Any],
    feeds: Iterable[Mapping[str, np.ndarray]],
    output: str | None = None,
    *,
    seconds: float | None = None,
    progress: Progress = silent,
) -> list[np.ndarray]:
    """Return what a model answers there to each feed (the graph's inputs by name), float32.

    Its first output, unless one is named. With `seconds` as many feeds as fit that time once the
    model is loaded, the first at least. Raises `ModelError` where
    the model can't be run there.
    """
    found: list[np.ndarray] = []
    with tempfile.TemporaryDirectory(prefix="edgedistill-") as folder, command(cpu) as line:
        rows = Path(folder) / "rows"
        count = sample.write(rows, feeds)
        probe = Local(command=line)
        try:
            probe.put(model, "model.onnx")
            probe.put(rows, "rows")
            probe.ask(
                "load", deadline=START_S, model="model.onnx", rows="rows", session=dict(session)
            )
            started = time.monotonic()
            for first in bar(range(count), progress, total=count):
                if found and seconds is not None and time.monotonic() - started > seconds:
                    break
                to = f"out{first}"
                told = probe.ask("run", deadline=PATIENCE_S, first=first, count=1, to=to)
                name = urllib.parse.quote(output or told["outputs"][0], safe="")
                file = probe.folder / to / name
                shape = np.load(f"{file}.shapes.npy")[0]
                found.append(np.load(f"{file}.npy").astype(np.float32).reshape(shape))
        except ProbeFailed as error:
            raise ModelError(f"as {cpu.name}: {error}") from None
        finally:
            probe.close()
    return found


@contextlib.contextmanager
def command(cpu: Cpu) -> Iterator[tuple[str, ...]]:
    """Yield the command that runs Python as that processor; what it needs is gone afterwards."""
    if cpu.system is None:
        yield _line(cpu)
        return
    with arm64.face(cpu.system, _asked(cpu)[1]) as folder:
        yield _arm64_line(cpu, folder)


def _line(cpu: Cpu) -> tuple[str, ...]:
    return (cpu.qemu, *UNSET, "-cpu", cpu.name, sys.executable)


def _arm64_line(cpu: Cpu, folder: Path) -> tuple[str, ...]:
    assert cpu.system is not None
    model = MAX if cpu.name == ARM64_MAX else cpu.name
    python = str(arm64.interpreter(cpu.system))
    return (cpu.qemu, *UNSET, "-L", str(folder), "-cpu", model, python)


@cache
def _asked(cpu: Cpu) -> tuple[str, str]:
    """Ask the processor what it is; returns its instruction set and its /proc/cpuinfo (arm64)."""
    if cpu.system is None:
        told = _ask(cpu, _line(cpu))
        return host.instructions(host.spelled(told), "x86_64"), ""
    with arm64.face(cpu.system) as folder:
        *capabilities, main_id = _ask(cpu, _arm64_line(cpu, folder))
    flags = arm64.features(capabilities)
    return host.instructions(frozenset(flags), "aarch64"), arm64.cpuinfo(flags, main_id)


def _ask(cpu: Cpu, line: tuple[str, ...]) -> Any:
    try:
        done = subprocess.run(
            [*line, "-I", "-c", ASK], capture_output=True, text=True, timeout=START_S, check=False
        )
        return json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        words = done.stderr.strip().splitlines() if "done" in locals() else [str(error)]
        last = words[-1][:200] if words else "it said nothing"
        raise SurroundingsError(f"python can't be run as {cpu.name} here: {last}") from None


@cache
def version(cpu: Cpu) -> str:
    """Return what emulates a processor: qemu's version, and that of onnxruntime there."""
    told = subprocess.run([cpu.qemu, "--version"], capture_output=True, text=True, check=False)
    qemu = (told.stdout.splitlines() or [""])[0].strip()
    if cpu.system is None:
        return f"{qemu}, onnxruntime {host.versions().get('onnxruntime')}"
    return f"{qemu}, onnxruntime {(arm64.record(cpu.system) or {}).get('onnxruntime')}"


def first(names: Iterable[str]) -> str | None:
    return next((found for each in names if (found := shutil.which(each))), None)


@cache
def _known(qemu: str) -> tuple[str, ...]:
    """List the processors of a qemu that can run what we run: none of 32 bit.

    Lines are "x86 NAME   about" (later qemus leave out the "x86"), or "  NAME" on arm64.
    """
    told = subprocess.run([qemu, "-cpu", "help"], capture_output=True, text=True, check=False)
    listed = told.stdout.partition("Recognized CPUID flags")[0]
    found = re.findall(r"^(?:x86 +| {2})(\S+)", listed, re.M)
    if Path(qemu).name not in QEMU_ARM64:
        return tuple(each for each in found if not OTHER_X86.fullmatch(each))
    return (*(each for each in found if not OTHER_ARM.fullmatch(each)), ARM64_MAX)


def _hint(name: str, known: Iterable[str]) -> str:
    """Return the nearest name; the list, without the versions of one model, where none is near."""
    lower = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    if close:
        return f"did you mean '{lower[close[0]]}'?"
    return "known: " + ", ".join(each for each in lower.values() if not VERSION.search(each))
