"""Smaller vocabularies: which pieces of a tokenizer stay, and the tokenizer.json that has them.

Kept are, in this order: special and added tokens, and all that a text can be cut down to (single
characters, bytes), so that an unseen word falls back to smaller pieces; the pieces that the
training rows use, the most used first; pieces of general use, as the tokenizer itself ranks them
(WordPiece: by id, which follows frequency; BPE: by merge; Unigram: by probability). The piece at
a new id has the embedding of its old one. (Abdaoui et al., 2020, cut multilingual models so.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from edgedistill.errors import ModelError

UNUSED = re.compile(r"[\[<]unused_?\d+[\]>]|madeupword\d+")  # rows that no text ever reaches
BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
KINDS = ("WordPiece", "BPE", "Unigram")

Closure = Callable[[str], Collection[str]]  # the pieces without which one can't be reached


def least(file: Mapping[str, Any]) -> int:
    """Return how many pieces a tokenizer has to keep at least. Raises `ModelError`."""
    return len(_Pieces(file).needed)


def size(file: Mapping[str, Any]) -> int:
    """Return how many pieces a tokenizer has. Raises `ModelError`."""
    return len(_Pieces(file).ids)


def choose(
    file: Mapping[str, Any], used: Mapping[int, int], count: int, *, pad: int = 0
) -> list[int]:
    """Choose `count` pieces of a tokenizer.json; returns their ids, each at its new id.

    `used`: how often the training rows hold an id; `pad`: the id that fills batches, which keeps
    its number. Raises `ModelError` where `count` can't be had, with what can.
    """
    pieces = _Pieces(file)
    whole = len(pieces.ids)
    if not len(pieces.needed) <= count <= whole:
        raise ModelError(
            f"a vocabulary of {count:,}: expected {len(pieces.needed):,} (special tokens and "
            f"single characters, which stay) to {whole:,}"
        )
    if pad >= count:
        raise ModelError(
            f"a vocabulary of {count:,}: the padding token has the id {pad}, and keeps it: "
            f"expected {pad + 1:,} or more"
        )
    kept = set(pieces.needed)
    for piece in pieces.ranked(used):
        if len(kept) == count:
            break
        more = pieces.closure(piece) - kept
        if len(kept) + len(more) <= count:
            kept |= more
    order = sorted(pieces.ids[piece] for piece in kept)
    if pad in order:
        order.remove(pad)
        order.insert(pad, pad)
    return order


def rewrite(file: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """Return tokenizer.json with the pieces of those ids alone, each at its place in `kept`."""
    new = {old: index for index, old in enumerate(kept)}
    model, pieces = dict(file["model"]), _Pieces(file)
    named = {piece: new[old] for piece, old in pieces.ids.items() if old in new}
    if pieces.kind == "Unigram":
        listed = model["vocab"]
        model["vocab"] = [listed[old] for old in kept if old < len(listed)]
        if model.get("unk_id") is not None:
            model["unk_id"] = new[model["unk_id"]]
    else:
        inside = {piece: named[piece] for piece in model["vocab"] if piece in named}
        model["vocab"] = dict(sorted(inside.items(), key=lambda item: item[1]))
    if pieces.kind == "BPE":
        model["merges"] = [
            given
            for given, (left, right) in zip(model["merges"], pieces.merges, strict=True)
            if {left, right, pieces.merged(left, right)} <= named.keys()
        ]
    added = [
        {**token, "id": new[int(token["id"])]}
        for token in file.get("added_tokens") or ()
        if int(token["id"]) in new
    ]
    made = {
        **file,
        "added_tokens": sorted(added, key=lambda token: token["id"]),
        "post_processor": _processor(file.get("post_processor"), new, named),
        "model": model,
    }
    if file.get("padding"):
        told = file["padding"]
        made["padding"] = {**told, "pad_id": new.get(told.get("pad_id"), 0)}
    return made


def _processor(told: Any, new: Mapping[int, int], named: Mapping[str, int]) -> Any:
    """Write the new ids of special tokens into a post-processor, however deep they stand."""
    if isinstance(told, list):
        return [_processor(each, new, named) for each in told]
    if not isinstance(told, Mapping):
        return told
    made = {key: _processor(each, new, named) for key, each in told.items()}
    if isinstance(told.get("ids"), list):  # TemplateProcessing
        made["ids"] = [new[old] for old in told["ids"]]
    for end in ("sep", "cls"):  # BertProcessing, RobertaProcessing: ["[SEP]", 102]
        if isinstance(told.get(end), list):
            made[end] = [told[end][0], new[told[end][1]]]
    return made


class _Pieces:
    """The pieces of a tokenizer.json, which of them must stay, and how the others are ranked."""

    def __init__(self, file: Mapping[str, Any]) -> None:
        model = file["model"]
        self.kind = str(model.get("type") or _guessed(model))
        if self.kind not in KINDS:
            raise ModelError(
                f"the vocabulary of a {self.kind} tokenizer can't be made smaller: an unseen word "
                f"has no smaller pieces to fall back to; expected {', '.join(KINDS)}"
            )
        vocabulary = model["vocab"]
        if self.kind == "Unigram":
            self.scores = {piece: float(score) for piece, score in vocabulary}
            self.ids = {piece: index for index, (piece, _) in enumerate(vocabulary)}
        else:
            self.ids = {piece: int(index) for piece, index in vocabulary.items()}
        self.prefix = str(model.get("continuing_subword_prefix") or "")
        self.suffix = str(model.get("end_of_word_suffix") or "")
        self.merges = [_pair(merge) for merge in model.get("merges") or ()]
        self.made: dict[str, tuple[str, str]] = {}  # a piece: the first merge that gives it
        for left, right in self.merges:
            self.made.setdefault(self.merged(left, right), (left, right))
        added = {
            str(token["content"]): int(token["id"]) for token in file.get("added_tokens") or ()
        }
        self.ids |= added
        special = {*added, str(model.get("unk_token"))} | {
            piece for piece, index in self.ids.items() if index == model.get("unk_id")
        }
        self.needed = {piece for piece in self.ids if piece in special or self._stays(piece)}

    def merged(self, left: str, right: str) -> str:
        """Return what a merge gives."""
        return left + right.removeprefix(self.prefix)

    def _stays(self, piece: str) -> bool:
        """Say whether a piece is what others are cut down to, or can't be cut down itself."""
        if UNUSED.fullmatch(piece):
            return False
        if BYTE.fullmatch(piece) or self._bare(piece) <= 1:
            return True
        if self.kind == "BPE":
            return piece not in self.made
        if self.kind == "Unigram":
            return not all(one in self.ids for one in piece)
        inside = piece.removeprefix(self.prefix)
        parts = {self.prefix + one for one in (inside if inside != piece else piece[1:])}
        return not (parts | ({piece[0]} if inside == piece else set()) <= self.ids.keys())

    def _bare(self, piece: str) -> int:
        """Return the length of a piece without the marks of where it stands in a word."""
        return len(piece.removeprefix(self.prefix).removesuffix(self.suffix))

    def ranked(self, used: Mapping[int, int]) -> Iterator[str]:
        """Yield all pieces: those used by how often, then the others, at last what no text has."""
        general = {piece: rank for rank, piece in enumerate(self._general())}
        yield from sorted(
            general, key=lambda piece: (-used.get(self.ids[piece], 0), general[piece])
        )
        yield from (piece for piece in self.ids if piece not in general)

    def _general(self) -> list[str]:
        reachable = [piece for piece in self.ids if not UNUSED.fullmatch(piece)]
        if self.kind == "Unigram":
            return sorted(reachable, key=lambda p: (-self.scores.get(p, 0.0), self.ids[p]))
        if self.kind == "BPE":
            rank = {piece: index for index, piece in enumerate(self.made)}
            return sorted(reachable, key=lambda p: (rank.get(p, -1), self.ids[p]))
        return sorted(reachable, key=lambda p: self.ids[p])

    def closure(self, piece: str) -> set[str]:
        """Return a piece with those that its merges go through."""
        found: set[str] = set()
        todo = [piece]
        while todo:
            one = todo.pop()
            if one not in found:
                found.add(one)
                todo += self.made.get(one, ()) if one not in self.needed else ()
        return found


def _pair(merge: Any) -> tuple[str, str]:
    """Return the two pieces of a merge, which older files write as one text."""
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return str(left), str(right)


def _guessed(model: Mapping[str, Any]) -> str:
    """Return the kind of a model of an old file, which does not say its type."""
    if "merges" in model:
        return "BPE"
    if isinstance(model["vocab"], list):
        return "Unigram"
    return "WordPiece" if model.get("continuing_subword_prefix") else "WordLevel"
