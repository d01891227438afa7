"""Reach a probe: put files in its folder, ask, take the answer. Local now; ssh can come beside it.

A transport has `put`, `ask`, `seconds` and `close`; `Local` is the one for this host.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from edgedistill.errors import from_os_error
from edgedistill.measure import host

PROBE = Path(__file__).with_name("probe.py")
PREFIX = "edgedistill-probe-"  # of a probe's folder; then the process that made it
WORDS = 300  # characters of a dead probe's last words


class ProbeFailed(Exception):
    """The probe answered an error, died, or missed its deadline; the text says which.

    `refused` is true where the probe is alive and said no: the file or the request is at fault.
    """

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


def sweep() -> None:
    """Remove the folders of probes whose build was killed; called under the measuring lock."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        maker = folder.name.removeprefix(PREFIX).partition("-")[0]
        if maker.isdecimal() and not host.lives(int(maker)):
            shutil.rmtree(folder, ignore_errors=True)


class Transport(Protocol):
    """One probe, wherever it runs; its files are named relative to its folder."""

    def put(self, source: Path, name: str) -> None:
        """Copy a file or a folder into the probe's folder."""

    def ask(self, op: str, *, deadline: float, **arguments: Any) -> dict[str, Any]:
        """Send one request and return its answer; raises `ProbeFailed`. `deadline` in seconds."""

    def seconds(self) -> float:
        """Return the processor seconds that the probe has spent, 0 where none tells."""

    def close(self) -> None:
        """End the probe and remove its folder."""


class Local:
    """A probe on this host: a process of its own in a folder of its own.

    `command` runs a Python; an emulator's stands before it.
    """

    def __init__(self, command: Sequence[str] = (sys.executable,)) -> None:
        try:
            self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
            shutil.copyfile(PROBE, self.folder / "probe.py")
            self._words = (self.folder / "stderr.txt").open("wb")
        except OSError as error:
            raise from_os_error(error, "starting a probe") from error
        self._process = subprocess.Popen(
            [*command, "-I", "probe.py"],
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            start_new_session=True,  # Ctrl-C is ours; the probe ends when its stdin does
        )
        self._spent = 0.0  # the last known: a dead process has no figure
        self._lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def pid(self) -> int:
        """The probe's process id."""
        return self._process.pid

    def put(self, source: Path, name: str) -> None:
        """Copy a file or a folder into the probe's folder (a link would leave it)."""
        try:
            if source.is_dir():
                shutil.copytree(source, self.folder / name)
            else:
                shutil.copyfile(source, self.folder / name)
        except OSError as error:
            raise from_os_error(error, "copying a model for its probe") from error

    def ask(self, op: str, *, deadline: float, **arguments: Any) -> dict[str, Any]:
        """Send one request and return its answer; raises `ProbeFailed`. `deadline` in seconds."""
        request = json.dumps({"op": op, **arguments}) + "\n"
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(request.encode())
            self._process.stdin.flush()
        except OSError:  # it is dead already; its last words say more than a broken pipe
            raise ProbeFailed(self._epitaph(op)) from None
        try:
            line = self._lines.get(timeout=deadline)
        except queue.Empty:
            self._process.kill()
            raise ProbeFailed(f"no answer to '{op}' within {deadline:.0f} s") from None
        if not line.endswith(b"\n"):  # nothing, or half an answer: it is dead
            raise ProbeFailed(self._epitaph(op))
        answer = json.loads(line)
        if "error" in answer:
            raise ProbeFailed(str(answer["error"]), refused=True)
        return answer

    def seconds(self) -> float:
        """Return the processor seconds that the probe has spent, 0 where none tells."""
        self._spent = host.process_seconds(self.pid) or self._spent
        return self._spent

    def close(self) -> None:
        """End the probe and remove its folder; never raises."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._words.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def _epitaph(self, op: str) -> str:
        """Say how the probe ended: by which signal, with which last words."""
        code = self._process.wait()
        ended = f"exit code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                ended = signal.Signals(-code).name
            if -code == getattr(signal, "SIGKILL", 0):
                ended += ", most often for memory"
        self._words.flush()
        text = (self.folder / "stderr.txt").read_text(errors="replace").strip()
        last = " ".join(text.splitlines()[-3:])[-WORDS:]
        return f"the probe died in '{op}' ({ended})" + (f": {last}" if last else "")
