"""Show progress on stderr: one line a step, a bar with an ETA on long work.

On a terminal the bar lives on its own line; elsewhere only the lines are printed. `-q` says
nothing but warnings, `-v` adds keys and cached steps.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from edgedistill.progress import told

WIDTH = 24


class Printer:
    """Takes progress events (see `edgedistill.progress`) and prints them."""

    def __init__(self, *, quiet: bool = False, verbose: int = 0) -> None:
        self.quiet, self.verbose = quiet, verbose
        self.terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.steps: dict[str, tuple[str, float]] = {}  # under way, by key: its line, when it began
        self.begun = time.monotonic()  # of a bar that is no step's
        self.bar_shown = False

    def __enter__(self) -> Printer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clear()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Print one event."""
        show = {
            "start": self._start,
            "end": self._end,
            "bar": self._bar,
            "note": self._note,
            "gone": self._gone,
            "wait": self._note,
            "line": self._line,
            "warning": self._warning,
        }.get(event["kind"])
        if show is not None:
            show(event)

    def _start(self, event: Mapping[str, Any]) -> None:
        line = f"{event['stage']:<11}{event.get('about', '')}"
        self.steps[event["key"]] = line, time.monotonic()
        if self.terminal and not self.quiet and len(self.steps) == 1:
            self._draw(line)

    def _end(self, event: Mapping[str, Any]) -> None:
        self.steps.pop(event["key"], None)
        if event["cached"] and not self.verbose:
            return
        took = "in the store" if event["cached"] else told(event["seconds"])
        key = f"  {event['key'][:12]}" if self.verbose else ""
        about = event.get("about") or event["stage"]
        note = f"  {event['note']}" if event.get("note") else ""
        self._print(f"{event['stage']:<11}{about}{note} · {took}{key}")

    def _bar(self, event: Mapping[str, Any]) -> None:
        key = event.get("key", "")
        if not self.terminal or self.quiet or key not in [*self.steps, ""][:1]:
            return  # of two steps at once the first is shown
        if not event["done"]:
            self.begun = time.monotonic()
        current, begun = self.steps.get(key, ("", self.begun))
        done, total = event["done"], max(1, event["total"])
        full = int(WIDTH * done / total)
        spent = time.monotonic() - begun
        left = f"{told(spent * (total - done) / done)} left" if done else ""
        line = f"{'█' * full}{'░' * (WIDTH - full)} {done}/{total} {event.get('unit', '')} {left}"
        self._draw("  ".join(filter(None, (current, line, event.get("note", "")))))

    def _note(self, event: Mapping[str, Any]) -> None:
        self._print(f"{'':<11}{event['text']}")

    def _gone(self, event: Mapping[str, Any]) -> None:
        self.steps.pop(event["key"], None)
        self._note(event)

    def _line(self, event: Mapping[str, Any]) -> None:
        self._print(f"{event['about']:<11}{event['text']}")

    def _warning(self, event: Mapping[str, Any]) -> None:
        self._clear()
        sys.stderr.write(f"{'warning':<11}{plainly(event['text'])}\n")

    def _print(self, text: str) -> None:
        if self.quiet:
            return
        self._clear()
        sys.stderr.write(plainly(text).rstrip() + "\n")
        sys.stderr.flush()

    def _draw(self, text: str) -> None:
        import shutil

        width = shutil.get_terminal_size((100, 24)).columns - 1
        sys.stderr.write("\r\x1b[2K" + plainly(text)[:width])
        sys.stderr.flush()
        self.bar_shown = True

    def _clear(self) -> None:
        if self.bar_shown:
            sys.stderr.write("\r\x1b[2K")
            self.bar_shown = False


def plainly(text: str) -> str:
    """Escape control characters: labels and file names are not ours."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
