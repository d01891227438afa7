"""Run the command line in this process, as `edgedistill ARGUMENTS` would."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgedistill import cli


@dataclass(frozen=True)
class Said:
    """What a command left: its exit code, its two streams."""

    code: int
    out: str
    err: str

    def error(self) -> str:
        """Return the one error line: the last of stderr, and the only one of its kind."""
        lines = self.err.splitlines()
        ours = [line for line in lines if line.startswith("edgedistill: ")]
        assert "Traceback" not in self.err + self.out, self.err
        assert len(ours) == 1 and lines[-1] == ours[0], self.err
        return ours[0].removeprefix("edgedistill: ")


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Said]:
    """Run one command; temporary files go to `tmp_path / "scratch"`, the store beside it."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    monkeypatch.setenv("EDGEDISTILL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["edgedistill", *map(str, arguments)])
        before = signal.getsignal(signal.SIGTERM)
        capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as ended:
                cli.main()
        finally:
            signal.signal(signal.SIGTERM, before)
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int), "an exit code is a number"
        return Said(ended.value.code, said.out, said.err)

    return run
