"""Words that a model knows: all of its vocabulary, and those that it holds to be near a word.

TinyBERT replaces words by neighbours in GloVe (Jiao et al., 2020); here the table is the teacher's
own of input embeddings, so there is nothing to download and any language will do. Only words that
are one piece of its tokenizer take part. What is told is words, not pieces: whatever tokenizer
reads the texts that are made with them, they are the same.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill.data import tensors
from edgedistill.errors import JobError
from edgedistill.tasks._made_texts import ALONE, WORD, words_of
from edgedistill.tasks._tokenizer_files import read_tokenizer
from edgedistill.tasks._tokens import load

NEAREST = 15  # TinyBERT's K
MOST_WORDS = 10_000  # the commonest of the texts; rarer ones are left as they are
MOST_CANDIDATES = 30_000  # vocabularies stand in the order of frequency, or nearly so
SHORTEST = 3  # letters: shorter pieces are seldom words
AT_ONCE = 256  # words whose neighbours are searched at once: 30 MB of similarities
MARKS = "\u0120\u2581"  # what tokenizers write for a space before a word


def neighbours(model: Path, texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return up to 15 neighbours of every common word of some texts, by cosine, the nearest first.

    `model` is a folder with tokenizer.json, config.json and safetensors. Takes about a second and
    at most 200 MB for 10,000 words. Raises `JobError` where the model has no such table.
    """
    tokenizer, special = _tokenizer(model)
    vocabulary = json.loads((model / "config.json").read_text(encoding="utf-8")).get("vocab_size")
    table = tensors.embeddings(model, vocabulary) if vocabulary else None
    if table is None:
        raise JobError("rows of the kind 'replaced' need a teacher with a table of word embeddings")
    counts = Counter(word for text in texts for word in WORD.findall(text) if word.isalpha())
    common = sorted(counts, key=lambda word: (-counts[word], word))[:MOST_WORDS]
    words = _single(tokenizer, common, special)
    candidates = _single(tokenizer, _spelt(tokenizer), special)
    candidates = {word: piece for word, piece in candidates.items() if piece < table.shape[0]}
    words = {word: piece for word, piece in words.items() if piece < table.shape[0]}
    if not words or len(candidates) < 2:
        return {}
    return _nearest(table, words, candidates)


def vocabulary(model: Path, texts: Iterable[str]) -> tuple[str, ...]:
    """Return the words of a model's vocabulary in the scripts that some texts are written in.

    Words of three letters at least (a character that stands alone is a word), in the order of the
    vocabulary. `model` is a folder with tokenizer.json. Empty where no piece is such a word.
    """
    tokenizer, special = _tokenizer(model)
    letters: set[str] = set()
    for text in texts:
        letters.update(text)
    scripts = {_script(letter) for letter in letters if letter.isalpha()}
    spelt = [
        word
        for word in _spelt(tokenizer)
        if (len(word) >= SHORTEST or re.match(f"[{ALONE}]", word))
        and len(words_of(word).spans) == 1
        and {_script(letter) for letter in word} <= scripts
    ]
    return tuple(_single(tokenizer, spelt, special))


def _script(letter: str) -> str:
    """Name the script of a letter: the first word of its name, such as LATIN."""
    return unicodedata.name(letter, "?").partition(" ")[0]


def _spelt(tokenizer: Any) -> list[str]:
    """Return the pieces of letters alone, as words are spelt, in the order of the vocabulary."""
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda each: each[1])
    spelt = (piece.lstrip(MARKS) for piece, _ in pieces)
    return list(dict.fromkeys(each for each in spelt if each.isalpha()))[:MOST_CANDIDATES]


def _tokenizer(model: Path) -> tuple[Any, frozenset[int]]:
    file = read_tokenizer(model)
    added = file.get("added_tokens") or ()
    return load(file, model), frozenset(int(each["id"]) for each in added)


def _single(tokenizer: Any, words: Sequence[str], special: frozenset[int]) -> dict[str, int]:
    """Return the piece of every word that is just one, inside a text."""
    found = {}
    encoded = tokenizer.encode_batch([f" {word}" for word in words], add_special_tokens=False)
    for word, one in zip(words, encoded, strict=True):
        if len(one.ids) == 1 and one.ids[0] not in special:
            found[word] = one.ids[0]
    return found


def _nearest(
    table: tensors.Matrix, words: Mapping[str, int], candidates: Mapping[str, int]
) -> dict[str, tuple[str, ...]]:
    """Search the candidates that are nearest to each word, in chunks, without the word itself."""
    by_piece: dict[int, str] = {}
    for word, piece in candidates.items():  # "Word" and "word" are one piece to some tokenizers
        by_piece.setdefault(piece, word)
    ids = np.array(sorted(by_piece), dtype=np.int64)
    near = _unit(table.rows(ids))
    wanted, most = list(words.items()), min(NEAREST, len(ids) - 1)
    found = {}
    for start in range(0, len(wanted), AT_ONCE):
        chunk = wanted[start : start + AT_ONCE]
        own = np.array([piece for _, piece in chunk], dtype=np.int64)
        # rounded, ties by number: the order must not hang on how a machine adds
        alike = np.round(_unit(table.rows(own)) @ near.T, 4)
        alike[own[:, None] == ids[None, :]] = -2.0
        some = np.argpartition(-alike, min(2 * most, len(ids) - 1), axis=1)[:, : 2 * most]
        for row, (word, _) in enumerate(chunk):
            ranked = sorted(some[row].tolist(), key=lambda place: (-alike[row, place], place))
            found[word] = tuple(by_piece[int(ids[place])] for place in ranked[:most])
    return found


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
