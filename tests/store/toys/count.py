"""Count up from what the inputs hold, one checkpoint a tick: a stage for tests.

The environment may ask for trouble, which no key knows of: TOY_LOG names a file that every start
and tick is written to, TOY_TROUBLE is what happens at the end.
"""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from edgedistill.errors import DataError, MissingPackage
from edgedistill.settings import setting

INPUTS = {"from": "arrays"}
OUTPUT = "arrays"
PACKAGES = ("numpy",)


@dataclass(frozen=True)
class Settings:
    add: int = setting(1, "what is added in a tick")
    ticks: int = setting(1, "how often", low=1)
    rest_s: float = setting(0.0, "how long a tick takes")
    loss: str = setting("", "a plugin")


def plugins(settings):
    return [("losses", settings["loss"])] if settings["loss"] else []


def estimate(inputs, settings, scratch):
    (scratch / "tried").write_text("once")
    return settings.ticks * settings.rest_s


def run(inputs, settings, out, progress):
    print("a library that prints to stdout")
    os.write(1, b"and one that writes past Python\n")
    state = out / ".resume" / "state"
    if state.exists():
        tick, total = map(int, state.read_text().split())
    else:
        tick, total = 0, sum(int((each / "total").read_text()) for each in inputs.values())
    log(f"start {settings.add} at {tick}")
    (out / "half").write_text("what a killed run leaves")
    while tick < settings.ticks:
        time.sleep(settings.rest_s)
        total, tick = total + settings.add, tick + 1
        state.parent.mkdir(exist_ok=True)
        aside = state.with_name("aside")
        aside.write_text(f"{tick} {total}")
        os.replace(aside, state)
        progress({"kind": "bar", "done": tick, "total": settings.ticks, "unit": "ticks"})
    trouble(os.environ.get("TOY_TROUBLE", ""), out, settings)
    (out / "half").unlink()
    (out / "total").write_text(str(total))
    (out / "deep").mkdir()
    (out / "deep" / "flat.bin").write_bytes(bytes(range(64)))
    return {"total": total, "nothing": None}


def log(line):
    if "TOY_LOG" in os.environ:
        with Path(os.environ["TOY_LOG"]).open("a") as file:
            file.write(line + "\n")


def trouble(kind, out, settings):
    if kind == "full":
        (out / "full").symlink_to("/dev/full")
        with (out / "full").open("w") as file:
            file.write("x" * 100_000)
    elif kind == "link":
        (out / "link").symlink_to(out / "half")
    elif kind == f"killed once {settings.add}":
        once = out / ".resume" / "killed"
        if not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    elif kind == f"user in {settings.add}":
        raise DataError("row 3 is empty")
    elif kind == f"no memory once {settings.add}":
        once = out / ".resume" / "tried"
        if not once.exists():
            once.touch()
            raise MemoryError
    elif kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "memory":
        raise MemoryError
    elif kind == "said full":
        raise RuntimeError("SafetensorError: I/O error: No space left on device (os error 28)")
    elif kind == "user":
        raise DataError("row 3 is empty")
    elif kind == "package":
        raise MissingPackage("toys", "counting")
    elif kind == "ours":
        raise ZeroDivisionError("a fault of ours")
