"""Fresh environments for slow tests: a venv, what pip installs there, and how to run in it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent
OFFLINE = ("Failed to establish a new connection", "Network is unreachable", "name resolution")


def clean() -> dict[str, str]:
    """Return the environment without what would let a venv see this checkout."""
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "EDGEDISTILL_STORE")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "HF_HUB_OFFLINE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def run(line: list[str | Path], **more: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a clean environment."""
    return subprocess.run(
        [str(each) for each in line],
        capture_output=True, text=True, check=False, env=clean(), **more,
    )  # fmt: skip


def pip(python: Path | str, *arguments: str | Path) -> None:
    """Run pip; skips the test where no index can be reached, fails it for all else."""
    done = run([python, "-m", "pip", *arguments])
    if done.returncode and any(words in done.stderr for words in OFFLINE):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr[-3000:]


def fresh(folder: Path, *wanted: str | Path, sees_ours: bool = False) -> Path:
    """Make a venv with what is wanted; returns its python.

    With `sees_ours` the packages that the tests run with can be imported there too, but not this
    checkout: a line of a .pth file reads no other .pth files.
    """
    done = run([sys.executable, "-m", "venv", folder])
    assert done.returncode == 0, done.stderr
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if sees_ours:
        asked = run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
        place = Path(asked.stdout.strip())
        places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (place / "ours.pth").write_text("\n".join(sorted(places)))
    if wanted:
        pip(python, "install", "-q", "--no-compile", *wanted)
    return python


def wheel(folder: Path) -> Path:
    """Build the wheel of this checkout into a folder."""
    pip(sys.executable, "wheel", "-q", "--no-deps", "-w", folder, HOUSE)
    (made,) = folder.glob("edgedistill-*.whl")
    return made
