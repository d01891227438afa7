"""The licence of the model that a bundle was made from, as its folder tells it."""

from __future__ import annotations

import re
from pathlib import Path

from edgedistill.bundle.untrusted import printable

MOST_BYTES = 200_000  # the GPL holds 35,000
NAMES = re.compile(r"(licen[cs]e|copying)([._-].*)?", re.IGNORECASE)
CARD = "README.md"
KEYS = {"license": "licence", "license_name": "name", "license_link": "text"}


def licence_of(folder: Path) -> str | None:
    """Return the text of a model folder's LICENSE file, else what its model card says of it.

    None where neither says anything: a file that is too large, or no UTF-8 text, says nothing.
    """
    try:
        files = sorted(path for path in folder.iterdir() if NAMES.fullmatch(path.name))
    except OSError:
        return None
    texts = [text for text in map(_text, files) if text]
    if texts:
        return "\n\n".join(texts) + "\n"
    said = _card(_text(folder / CARD) or "")
    if "license" not in said:
        return None
    lines = [f"{about}: {said[key]}" for key, about in KEYS.items() if key in said]
    return "\n".join(["As the model's card (README.md) says:", *lines]) + "\n"


def _text(path: Path) -> str | None:
    """Return a text file's content, None where it is none."""
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return None
        text = path.read_text("utf-8-sig").strip()
    except (OSError, ValueError):
        return None
    odd = any(not char.isprintable() and char not in "\n\r\t\f\xa0" for char in text)
    return None if odd or not text else text


def _card(text: str) -> dict[str, str]:
    """Read the licence's keys out of a card's front matter: the YAML between two lines of ---.

    One value a key, or a list of them: in brackets, or a dash a line.
    """
    lines = text.splitlines()
    if not lines or lines[0].rstrip() != "---":
        return {}
    said: dict[str, list[str]] = {}
    key = ""
    for line in lines[1:]:
        if line.rstrip() in ("---", "..."):
            return {name: ", ".join(values) for name, values in said.items() if values}
        item = re.match(r"\s*-\s+(.+)", line)
        pair = re.match(r"([\w-]+):(.*)", line)
        if pair:
            key = pair[1]
        if key in KEYS and (pair or item):
            value = (pair[2] if pair else item[1]).strip()  # type: ignore[index]
            said.setdefault(key, []).extend(_values(value))
    return {}  # no second line of ---: no front matter


def _values(text: str) -> list[str]:
    text = re.sub(r"(^|\s)#.*", "", text).strip()
    parts = text[1:-1].split(",") if text.startswith("[") and text.endswith("]") else [text]
    bare = (part.strip().strip("\"'").strip() for part in parts)
    return [printable(part) for part in bare if part]
