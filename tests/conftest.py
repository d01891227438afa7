"""What tests of several folders share: one tiny job, built once by the real command."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path
from typing import Any

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell starts what it runs in the background; what tests start would ignore it too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def small() -> Any:
    """The tiny real job of tests/builder/small.py."""
    path = Path(__file__).parent / "builder" / "small.py"
    spec = importlib.util.spec_from_file_location("small", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_built(small: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names of a tiny job whose bundle lies in `out` (copy it before you change it)."""
    names = small.job(tmp_path_factory.mktemp("tiny_built"))
    done = small.run(small.command(names), env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    return names


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    import environments

    return environments.wheel(tmp_path_factory.mktemp("wheel"))
