"""Progress is a stream of events: small mappings, each with a `kind`.

    {"kind": "start", "stage": s, "key": k, "about": one line}     a step begins
    {"kind": "bar", "done": n, "total": n, "unit": "steps", "note": "val 93.2"}
    {"kind": "note", "text": one line}                             something worth a line
    {"kind": "gone", "key": k, "text": one line}                   a step died; it is made again
    {"kind": "wait", "text": one line}                             another build makes this step
    {"kind": "line", "about": heading, "text": one line}           what a build tells of itself
    {"kind": "warning", "text": one line}                          what `-q` does not hide
    {"kind": "end", "stage": s, "key": k, "seconds": t, "cached": bool}

A stage sends only "bar" and "note"; the store and the driver send the rest.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from edgedistill.records import Progress

T = TypeVar("T")


def silent(event: Mapping[str, Any]) -> None:
    """Take every event and say nothing."""


def bar(items: Iterable[T], progress: Progress, *, total: int, unit: str = "rows") -> Iterator[T]:
    """Yield the items, sending a bar event about twice a second, and one at the end."""
    last = 0.0
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - last > 0.5:
            progress({"kind": "bar", "done": done, "total": total, "unit": unit})
            last = now
        yield item
    progress({"kind": "bar", "done": total, "total": total, "unit": unit})


def told(seconds: float) -> str:
    """Tell a time to people: <0.1 s, 4.2 s, 42 s, 3 min 05 s, 1 h 05 min."""
    if seconds < 0.05:
        return "<0.1 s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
