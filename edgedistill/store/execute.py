"""Execute one stage: folders in, one new folder out, facts back."""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgedistill.errors import InternalError, NoMemory, SurroundingsError, from_os_error
from edgedistill.records import Progress, Step
from edgedistill.store import crew, keys

SURROUNDINGS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE)
FULL = ("no space left on device", "os error 28", "disk quota exceeded")
MEMORY = ("not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")


def stage(step: Step, inputs: Mapping[str, Path], out: Path, progress: Progress) -> dict[str, Any]:
    """Run a step's stage into `out`; returns its facts as plain JSON.

    Raises `SurroundingsError` for a full disk, a missing permission or no memory, however the
    library that met it says so; other faults of the stage pass as they are.
    """
    name = keys.stage_name(step)
    try:
        settings = keys.settings_of(step)
        with crew.beside(step.stage, inputs, settings, out):
            facts = keys.stage_of(step).run(inputs, settings, out, progress)
    except OSError as error:
        if error.errno in SURROUNDINGS:
            raise from_os_error(error, f"running the step {name}") from error
        raise InternalError(f"the step {name} failed: {error}") from error
    except MemoryError as error:
        raise _memory(name) from error
    except Exception as error:
        said = str(error).lower()
        if any(words in said for words in FULL):
            raise SurroundingsError(
                f"the disk is full while running the step {name}: free some space"
            ) from error
        if any(words in said for words in MEMORY):
            raise _memory(name) from error
        raise
    return plain(facts or {})


def plain(value: Any) -> Any:
    """Return facts as JSON values; numbers of numpy become numbers, NaN and infinities None."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if hasattr(value, "tolist"):  # numpy
        return plain(value.tolist())
    raise InternalError(f"facts must be plain JSON: {type(value).__name__} is not")


def _memory(name: str) -> NoMemory:
    return NoMemory(
        f"not enough memory for the step {name}: close other programs, or take a smaller batch"
    )
