"""The other processes of torchrun or accelerate launch, which train beside the one that builds.

Process 0 runs the build. The others follow: they wait beside the store, and take part in each
training as process 0's worker names it. All see one file system.

    <store>/crew/<launch>/leader.lock    a kernel lock that process 0 holds while it builds
                          job.json       the training that is on: stage, inputs, settings, where
                          failed-3.json  what process 3 died of

A follower that has seen the lock held ends when it is free: so it ends with process 0, however that
ends. Each training is a group of its own, so nobody waits in a collective while process 0 exports
or measures.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgedistill import plugins
from edgedistill.errors import SurroundingsError, WorkerDied
from edgedistill.settings import coerce, plain

try:
    import fcntl
except ImportError:  # Windows has no shared locks
    fcntl = None  # type: ignore[assignment]

VARIABLE = "EDGEDISTILL_CREW"  # tells process 0's worker where the others look
POLL_S = 0.1
PATIENCE_S = 300.0  # for process 0 to take the lead
JOB = "job.json"


@dataclass(frozen=True)
class Place:
    """Which of how many processes this is, as the launcher's environment says."""

    rank: int
    world: int
    address: str  # of the host of process 0
    launch: str  # what all of them have in common


def place() -> Place | None:
    """Return this process's place; None where it runs alone."""
    told = {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR")}
    if not (told["RANK"].isdigit() and told["WORLD_SIZE"].isdigit() and told["MASTER_ADDR"]):
        return None
    if int(told["WORLD_SIZE"]) < 2:
        return None
    address, port = told["MASTER_ADDR"], os.environ.get("MASTER_PORT", "0")
    kept = "".join(each if each.isalnum() else "-" for each in f"{address}-{port}")
    return Place(int(told["RANK"]), int(told["WORLD_SIZE"]), address, kept)


def processes() -> int:
    """Return how many processes train together."""
    found = place()
    return found.world if found else 1


def follows() -> bool:
    """Say whether this process is one of those beside the one that builds."""
    found = place()
    return found is not None and found.rank > 0


@contextmanager
def leading(root: Path) -> Iterator[None]:
    """Hold the lead of the others while building; nothing where this process runs alone."""
    here = place()
    if here is None:
        yield
        return
    folder = _folder(root, here)
    (folder / JOB).unlink(missing_ok=True)  # of a launch that died: gone before the lock is held
    with _open(folder) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        os.environ[VARIABLE] = str(folder)
        try:
            yield
        finally:
            os.environ.pop(VARIABLE, None)


@contextmanager
def beside(stage: str, inputs: Mapping[str, Path], settings: Any, out: Path) -> Iterator[None]:
    """Have the others train along while a stage runs here, where its settings ask for that.

    Raises `WorkerDied`, naming the process and what it died of, where one is lost.
    """
    here, told = place(), os.environ.get(VARIABLE)
    if getattr(settings, "processes", 1) == 1 or here is None or told is None:
        yield
        return
    from edgedistill.train import parallel

    folder = Path(told)
    for old in folder.glob("failed-*.json"):
        old.unlink()
    store = parallel.host()
    job = {
        "token": secrets.token_hex(8),
        "address": here.address,
        "port": store.port,
        "stage": stage,
        "inputs": {name: str(path) for name, path in inputs.items()},
        "settings": plain(settings),
        "resume": str(out / ".resume"),
    }
    _write(folder / JOB, job)
    try:
        with parallel.joined(store, rank=0, world=here.world, device=settings.device):
            yield
    except WorkerDied as error:
        raise WorkerDied(_why(folder) or str(error)) from error
    finally:
        (folder / JOB).unlink(missing_ok=True)


def follow(root: Path) -> None:
    """Train along until process 0 ends. Raises `SurroundingsError` where there is none."""
    here = place()
    assert here is not None
    folder, begun, led, done = _folder(root, here), time.monotonic(), False, ""
    while True:
        if _is_led(folder):
            led = True
            job = _read(folder / JOB)
            if job and job["token"] != done:
                done = job["token"]
                _take_part(folder, here, job)
        elif led:
            return
        elif time.monotonic() - begun > PATIENCE_S:
            raise SurroundingsError(
                f"process {here.rank} of {here.world} sees no process 0 beside the store '{root}': "
                "all need one store, on one file system"
            )
        time.sleep(POLL_S)


def _take_part(folder: Path, here: Place, job: Mapping[str, Any]) -> None:
    from edgedistill.train import parallel

    # Whether a stranger's code may run was asked before the step was made.
    stage: Any = plugins.find("stages", job["stage"], allow_code=True)
    try:
        settings = coerce(stage.Settings, job["settings"], job["stage"])
        inputs = {name: Path(path) for name, path in job["inputs"].items()}
        store = parallel.guest(job["address"], job["port"])
        with parallel.joined(store, rank=here.rank, world=here.world, device=settings.device):
            stage.follow(inputs, settings, Path(job["resume"]))
    except WorkerDied:
        pass  # process 0, or another: process 0 says which
    except Exception as error:
        said = str(error) or type(error).__name__
        _write(folder / f"failed-{here.rank}.json", {"token": job["token"], "said": said})


def _why(folder: Path) -> str | None:
    """Return what a process that was lost has left as its last words."""
    for _ in range(10):  # it may be writing them
        for path in sorted(folder.glob("failed-*.json")):
            told = _read(path)
            if told:
                return f"training process {path.stem.rpartition('-')[2]} ended: {told['said']}"
        time.sleep(POLL_S)
    return None


def _folder(root: Path, here: Place) -> Path:
    if fcntl is None:
        raise SurroundingsError("training in several processes needs a system with shared locks")
    folder = root / "crew" / here.launch
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _open(folder: Path) -> IO[bytes]:
    return (folder / "leader.lock").open("ab")


def _is_led(folder: Path) -> bool:
    with _open(folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _write(path: Path, value: Mapping[str, Any]) -> None:
    aside = path.with_suffix(".partial")
    aside.write_text(json.dumps(value))
    aside.replace(path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
