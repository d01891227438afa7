"""Make the arm64 system in a folder that `eval --cpu cortex-a76` and builds for phones run.

    python -m edgedistill.measure.arm64_sysroot [FOLDER] [--sources FILE] [--again]

From this system's own package sources, as apt verifies them: Debian's Python for arm64 and what it
needs, unpacked into a folder; nothing is installed, and root is not needed. From the Python package
index, as pip verifies them: the arm64 wheels of numpy and onnxruntime in this environment's
versions. About 45 MB are fetched and 210 MB written. The folder is whole or not there.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgedistill.errors import EdgedistillError, SurroundingsError, UsageError, from_os_error
from edgedistill.measure import arm64, emulation

PACKAGES = ("python3", "libstdc++6")  # apt adds what they need
WHEELS = "usr/lib/python3/dist-packages"
PROOF = "cortex-a76"
UNUSED = ("usr/share", "usr/sbin", "var", "sbin")
OLDEST_GLIBC = 17  # of the manylinux tags: 2.17
TOOLS = ("apt-get", "dpkg-deb")

Say = Callable[[str, str], None]


def make(
    folder: Path, *, sources: Path | None = None, again: bool = False, say: Say
) -> dict[str, Any]:
    """Make the system in `folder` unless it is there already; returns its record.

    `sources` is a sources.list in place of this system's (where that has no arm64). Raises
    `UsageError` for a folder that holds something else, `SurroundingsError` for what lacks here.
    """
    folder = Path(os.path.abspath(folder.expanduser()))
    known = arm64.record(folder)
    if known is None and folder.exists() and any(folder.iterdir()):
        raise UsageError(f"'{folder}' is not empty and holds no arm64 system: name another folder")
    wanted = importlib.metadata.version("onnxruntime")
    if known is not None and known["onnxruntime"] == wanted and not again:
        say("there", f"{folder}: {_line(known)}; --again makes it anew")
        return known
    _tools()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".arm64-", dir=folder.parent) as scratch:
            made = _make(Path(scratch), wanted, sources, say)
            _exchange(Path(scratch), folder)
    except OSError as error:
        raise from_os_error(error, "writing the arm64 system") from error
    say("arm64", f"{folder}: {_line(made)}")
    return made


def _tools() -> None:
    for tool in TOOLS:
        if shutil.which(tool) is None:
            raise SurroundingsError(f"making an arm64 system needs {tool}: Debian or Ubuntu")
    _qemu()


def _qemu() -> str:
    found = emulation.first(emulation.QEMU_ARM64)
    if found is None:
        name = emulation.QEMU_ARM64[0]
        raise SurroundingsError(f"an arm64 system needs {name} to run it: {emulation.PACKAGE}")
    return found


def _make(scratch: Path, onnxruntime: str, sources: Path | None, say: Say) -> dict[str, Any]:
    """Fill scratch/system and prove it; returns the record, which lies in it."""
    system = scratch / "system"
    system.mkdir(mode=0o755)
    files = _packages(scratch, sources)
    fetched = sum(file.stat().st_size for file in files)
    say("packages", f"{len(files)} of Debian for arm64, {fetched / 1e6:.1f} MB")
    for file in files:
        _run(["dpkg-deb", "--extract", str(file), str(system)], f"unpacking {file.name}")
    for name in UNUSED:
        shutil.rmtree(system / name, ignore_errors=True)
    if not (system / "lib").exists():  # later releases hold all in usr
        (system / "lib").symlink_to("usr/lib")
    interpreter = _interpreter(system)
    wheels = system / WHEELS
    _wheels(wheels, interpreter, files, onnxruntime)
    versions = {each: _version(wheels, each) for each in ("numpy", "onnxruntime")}
    size = _bytes(wheels)
    say("wheels", f"{', '.join(f'{k} {v}' for k, v in versions.items())}, {size / 1e6:.0f} MB")
    record = {
        "format": arm64.FORMAT,
        "interpreter": str(interpreter.relative_to(system)),
        "python": interpreter.name.removeprefix("python"),
        **versions,
        "packages": sorted(file.name for file in files),
        "bytes": _bytes(system),
    }
    (system / arm64.RECORD).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    _prove(system, versions["onnxruntime"])
    return record


def _packages(scratch: Path, sources: Path | None) -> list[Path]:
    """Fetch the packages and what they need; apt holds them against its signed lists."""
    lists, archives = scratch / "lists", scratch / "cache" / "archives"
    for folder in (lists / "partial", archives / "partial"):
        folder.mkdir(parents=True)
    (scratch / "status").touch()  # nothing is installed there
    told = {
        "APT::Architecture": "arm64",
        "Dir::State": scratch,
        "Dir::State::status": scratch / "status",
        "Dir::State::lists": lists,
        "Dir::Cache": scratch / "cache",
        **({"Dir::Etc::sourcelist": sources.resolve(), "Dir::Etc::sourceparts": "-"}
           if sources else {}),
    }  # fmt: skip
    hooks = ("APT::Update", "DPkg")  # those of this system's own lists and packages
    lines = [f'{name} "{value}";' for name, value in told.items()]
    lines += ["#clear APT::Architectures;", 'APT::Architectures { "arm64"; };']
    lines += [f"#clear {each}::{when}-Invoke;" for each in hooks for when in ("Pre", "Post")]
    lines += ["#clear APT::Update::Post-Invoke-Success;", "#clear DPkg::Pre-Install-Pkgs;"]
    (scratch / "apt.conf").write_text("\n".join(lines) + "\n", "utf-8")
    apt = ["apt-get", "-c", str(scratch / "apt.conf"), "-q", "-y"]
    with_lists = subprocess.run([*apt, "update"], capture_output=True, text=True, check=False)
    doing = (
        "fetching Debian's packages for arm64 (where this system's sources have none: --sources)"
    )
    try:
        _run([*apt, "--download-only", "--no-install-recommends", "install", *PACKAGES], doing)
    except SurroundingsError:
        if with_lists.returncode:  # why there are none
            raise SurroundingsError(f"{doing}: {_last(with_lists)}") from None
        raise
    return sorted(archives.glob("*.deb"))


def _wheels(to: Path, interpreter: Path, files: Sequence[Path], onnxruntime: str) -> None:
    """Unpack the wheels for that Python; pip holds them against the index's hashes."""
    glibc = next(
        (int(told[1]) for file in files if (told := re.match(r"libc6_2\.(\d+)", file.name))), 28
    )
    tags = [f"manylinux_2_{minor}_aarch64" for minor in range(glibc, OLDEST_GLIBC - 1, -1)]
    line = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    line += ["--no-deps", "--only-binary=:all:", "--implementation", "cp"]
    line += ["--python-version", interpreter.name.removeprefix("python"), "--target", str(to)]
    line += [part for tag in (*tags, "manylinux2014_aarch64") for part in ("--platform", tag)]
    line += [f"onnxruntime=={onnxruntime}"]
    doing = "fetching the arm64 wheels of numpy and onnxruntime"
    try:
        _run([*line, f"numpy=={importlib.metadata.version('numpy')}"], doing)
    except SurroundingsError:  # that Python may be another than this one: what there is for it
        shutil.rmtree(to / "numpy", ignore_errors=True)
        _run([*line, "numpy"], doing)


def _prove(system: Path, version: str) -> None:
    """Load onnxruntime in the system, as a processor with dot product."""
    code = "import onnxruntime; print(onnxruntime.__version__)"
    with emulation.command(emulation.Cpu(PROOF, _qemu(), system)) as line:
        done = _run([*line, "-I", "-c", code], f"loading onnxruntime as {PROOF}")
    if done.split()[-1:] != [version]:
        raise SurroundingsError(f"onnxruntime as {PROOF}: expected {version}, got {done[:100]!r}")


def _exchange(scratch: Path, folder: Path) -> None:
    """Put the system in its place; what lay there goes."""
    if folder.exists():
        folder.rename(scratch / "before")
    (scratch / "system").rename(folder)


def _interpreter(system: Path) -> Path:
    found = [
        path
        for path in sorted((system / "usr" / "bin").iterdir())
        if re.fullmatch(r"python3\.\d+", path.name)
    ]
    if not found:
        raise SurroundingsError("Debian's package python3 for arm64 brought no interpreter")
    return found[-1]


def _version(wheels: Path, name: str) -> str:
    found = next(wheels.glob(f"{name}-*.dist-info"))
    return found.name.removesuffix(".dist-info").partition("-")[2]


def _bytes(folder: Path) -> int:
    return sum(
        file.lstat().st_size
        for file in folder.rglob("*")
        if file.is_file() and not file.is_symlink()
    )


def _line(record: dict[str, Any]) -> str:
    names = ("python", "numpy", "onnxruntime")
    return f"{', '.join(f'{n} {record[n]}' for n in names)}; {record['bytes'] / 1e6:.0f} MB"


def _run(line: Sequence[str], doing: str) -> str:
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SurroundingsError(f"{doing}: {_last(done)}")
    return done.stdout


def _last(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    errors = [line for line in lines if line.startswith(("E:", "ERROR:"))]
    return " ".join((errors or lines or [f"exit code {done.returncode}"])[-1].split())[:300]


def main(arguments: Sequence[str] | None = None) -> int:
    """Make it, and say so; returns the exit code."""
    parser = argparse.ArgumentParser(prog=arm64.MAKER, description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, help=f"default: {arm64.place()}")
    parser.add_argument("--sources", type=Path, help="a sources.list in place of this system's")
    parser.add_argument("--again", action="store_true", help="make it anew where it is there")
    told = parser.parse_args(arguments)

    def say(heading: str, text: str) -> None:
        print(f"{heading:<11}{text}", file=sys.stderr, flush=True)

    try:
        make(told.folder or arm64.place(), sources=told.sources, again=told.again, say=say)
    except EdgedistillError as error:
        say("error", str(error))
        return error.exit_code
    if told.folder and told.folder.resolve() != arm64.place().resolve():
        say("then", f"export {arm64.VARIABLE}={told.folder.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
