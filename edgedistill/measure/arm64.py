"""An arm64 system in a folder: what qemu runs Python and onnxruntime from, as an arm64 processor.

`python -m edgedistill.measure.arm64_sysroot` makes one. It lies at EDGEDISTILL_ARM64_SYSROOT, else
beside the store. onnxruntime reads /proc/cpuinfo as it loads, and dies of this host's or of one
whose features are not the emulated processor's: so each run gets a face of the system of its own,
links to its folders and a cpuinfo that says what the processor itself says.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgedistill.errors import SurroundingsError
from edgedistill.store.shelf import default_root

VARIABLE = "EDGEDISTILL_ARM64_SYSROOT"
MAKER = "python -m edgedistill.measure.arm64_sysroot"
RECORD = "sysroot.json"
FORMAT = 1
NEOVERSE_V1 = 0x411FD401  # a main id of ARM's own: of a core with SVE and int8 matrix products

# Linux' names of the bits of AT_HWCAP and AT_HWCAP2, the lowest first (arch/arm64 hwcap.h).
HWCAP = re.findall(
    r"\w+",
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma "
    "lrcpc dcpop sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg",
)
HWCAP2 = re.findall(
    r"\w+",
    "dcpodp sve2 sveaes svepmull svebitperm svesha3 svesm4 flagm2 frint svei8mm svef32mm svef64mm "
    "svebf16 i8mm bf16 dgh rng bti mte ecv afp rpres mte3 sme smei16i64 smef64f64 smei8i32 "
    "smef16f32 smeb16f32 smef32f32 smefa64 wfxt ebf16",
)


def place() -> Path:
    """Return where the system lies: EDGEDISTILL_ARM64_SYSROOT, else beside the store."""
    told = os.environ.get(VARIABLE)
    return Path(told).expanduser() if told else default_root() / "arm64"


def record(folder: Path) -> dict[str, Any] | None:
    """Return what a system says of itself (sysroot.json), None where there is none."""
    try:
        found = json.loads((folder / RECORD).read_text("utf-8"))
        return found if found["format"] == FORMAT and found["interpreter"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find(cpu: str) -> Path:
    """Return the folder of the system. Raises `SurroundingsError` where there is none."""
    folder = place()
    if record(folder) is None:
        raise SurroundingsError(
            f"emulating {cpu} needs an arm64 system in a folder, and '{folder}' holds none: {MAKER}"
        )
    return folder


def interpreter(folder: Path) -> Path:
    """Return the Python of a system."""
    return folder / str((record(folder) or {})["interpreter"])


def features(capabilities: Sequence[int]) -> list[str]:
    """Name the features of AT_HWCAP and AT_HWCAP2 as Linux does."""
    return [
        name
        for bits, names in zip(capabilities, (HWCAP, HWCAP2), strict=True)
        for place, name in enumerate(names)
        if bits >> place & 1
    ]


def cpuinfo(flags: Sequence[str], main_id: int) -> str:
    """Write /proc/cpuinfo as Linux would on one such core; `main_id` is its MIDR_EL1.

    A processor of no maker (qemu's "max") is told as a core of ARM's: onnxruntime dies of others.
    """
    main_id = main_id if main_id >> 24 else NEOVERSE_V1
    return (
        "processor\t: 0\nBogoMIPS\t: 50.00\n"
        f"Features\t: {' '.join(flags)}\n"
        f"CPU implementer\t: {main_id >> 24 & 0xFF:#04x}\n"
        "CPU architecture: 8\n"
        f"CPU variant\t: {main_id >> 20 & 0xF:#x}\n"
        f"CPU part\t: {main_id >> 4 & 0xFFF:#05x}\n"
        f"CPU revision\t: {main_id & 0xF}\n\n"
    )


@contextmanager
def face(system: Path, told: str | None = None) -> Iterator[Path]:
    """Yield a folder that looks like the system to a processor, gone afterwards.

    `told` is its /proc/cpuinfo; without one there is none, and onnxruntime can't be loaded.
    """
    with tempfile.TemporaryDirectory(prefix="edgedistill-arm64-") as made:
        folder = Path(made)
        for each in sorted(system.iterdir()):
            if each.is_dir():
                (folder / each.name).symlink_to(each.resolve())
        if told is not None:
            (folder / "proc").mkdir()
            (folder / "proc" / "cpuinfo").write_text(told)
        yield folder
