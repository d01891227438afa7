"""The worker process: takes steps as lines of JSON, claims, executes and commits them.

    host -> worker   {"op": "hello", "root": folder, "owner": who, "allow_code": bool}
                     {"op": "run" | "estimate", "step": a packed step}
    worker -> host   {"event": a progress event}
                     {"answer": an artifact | seconds | null}
                     {"error": {"type", "message", "traceback"}}

It lives no longer than its host: when stdin ends it ends at once, wherever it is, as by SIGKILL.
What stages print goes to stderr.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import queue
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from edgedistill import errors
from edgedistill.errors import EdgedistillError, InternalError
from edgedistill.records import Progress, Source, Step
from edgedistill.store import Store, keys

Say = Callable[[Mapping[str, Any]], None]


def main() -> None:
    """Serve one host until its end of the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the host's to answer
    say = _mouth()
    orders: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    hello = orders.get()
    store = Store(hello["root"], owner=hello["owner"])
    known: dict[str, Step | Source] = {}

    def progress(event: Mapping[str, Any]) -> None:
        say({"event": dict(event)})

    while True:
        order = orders.get()
        try:
            step = keys.unpack(order["step"], known)
            if not hello["allow_code"]:
                keys.refuse_strangers([step])
            if order["op"] == "run":
                artifact = dataclasses.asdict(store.run(step, progress))
                say({"answer": {**artifact, "path": str(artifact["path"])}})
            else:
                say({"answer": _estimate(store, step, progress)})
        except BaseException as error:
            say({"error": _told(error)})


def _estimate(store: Store, step: Step, progress: Progress) -> float | None:
    """Ask a stage how many seconds a step would take; None where it does not say."""
    module = keys.stage_of(step)
    if not hasattr(module, "estimate"):
        return None
    scratch = store.root / "work" / f"estimate-{os.getpid()}"
    names = [keys.key(step), *map(keys.key, step.inputs.values())]
    with store.reading([*names, scratch.name]):
        needed = keys.estimate_inputs(step)
        for each in needed.values():
            if isinstance(each, Step):
                store.run(each, progress)
        folders = {name: store.path(each) for name, each in needed.items()}
        shutil.rmtree(scratch, ignore_errors=True)  # of a killed worker that had our number
        scratch.mkdir(mode=0o700)
        try:
            return float(module.estimate(folders, keys.settings_of(step), scratch))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _mouth() -> Say:
    """Keep stdout for the protocol; whatever a library prints goes to stderr."""
    sys.stdout.flush()
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a process that is killed flushes nothing
        sys.stdout.reconfigure(line_buffering=True)
    lock = threading.Lock()

    def say(message: Mapping[str, Any]) -> None:
        line = json.dumps(message, default=str) + "\n"
        with lock:
            try:
                pipe.write(line)
                pipe.flush()
            except OSError:  # the host is gone
                os._exit(1)

    return say


def _listen(orders: queue.Queue[dict[str, Any]]) -> None:
    """Queue what the host says; its silence for good is our end, in the middle of anything."""
    try:
        for line in sys.stdin:
            orders.put(json.loads(line))
    finally:
        if os.getpgrp() == os.getpid():  # the session is ours: what stages started ends too
            os.killpg(0, signal.SIGKILL)
        os._exit(0)


def _told(error: BaseException) -> dict[str, str]:
    text = "".join(traceback.format_exception(error))
    if isinstance(error, MemoryError):
        error = errors.NoMemory("not enough memory: close other programs")
    kind, message = type(error).__name__, str(error)
    if not isinstance(error, EdgedistillError):
        kind, message = InternalError.__name__, f"{kind}: {message}"
    return {"type": kind, "message": message, "traceback": text}


if __name__ == "__main__":
    main()
