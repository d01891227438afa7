"""The small parts of the page: escaped texts and tables.

Whatever comes from a user goes through `safe` or `user`, and how much of it is shown is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from edgedistill.report import words


def safe(text: Any, limit: int = 300) -> str:
    """Escape a text, in one line of bounded length, with control characters written out."""
    return escape(words.plain(text, limit))


def user(text: Any, limit: int = 120) -> str:
    """Escape a text that a user brought, and keep its direction to itself."""
    return f"<bdi>{safe(text, limit)}</bdi>"


def whole(text: Any, limit: int = 120) -> str:
    """Escape a text as `user` does; no line breaks inside a flag that it names."""
    kept = r'\1<span class="kept">\2</span>'
    return re.sub(r"(^|[\s(>])(--[a-z][a-z-]{1,24})\b", kept, user(text, limit))


def more(shown: int, count: int) -> str:
    """Say how many are not shown."""
    return (
        f'<p class="small">and {count - shown:,} more in report.json</p>' if count > shown else ""
    )


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], text: int = 0, layout: str = ""
) -> str:
    """Write a table whose first cell of a row names it; the next `text` cells hold text."""
    head = "".join(
        f'<th scope="col"{" style=text-align:left" if i <= text else ""}>{name}</th>'
        for i, name in enumerate(heads)
    )
    body = []
    for first, *rest in rows:
        cells = "".join(
            f'<td data-label="{heads[i + 1]}"{kind(cell, i < text)}>{cell}</td>'
            for i, cell in enumerate(rest)
        )
        body.append(f'<tr><th scope="row">{first}</th>{cells}</tr>\n')
    rows_text = "".join(body)
    return (
        f'<table class="stack {layout}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows_text}</tbody></table>"
    )


def kind(cell: str, text: bool) -> str:
    """Say how a cell is set; an empty one has no line on a phone."""
    classes = ["text"] * text + ["none"] * (cell in ("", "–", "<bdi></bdi>"))
    return f' class="{" ".join(classes)}"' if classes else ""
