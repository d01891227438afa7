"""The text encoder: `tokenizers` on tokenizer.json, without torch or transformers.

One encoder serves training, evaluation, golden vectors and the bundle.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill.errors import DataError, JobError, ModelError
from edgedistill.tasks._tokenizer_files import (
    FILE,
    SHORTEST,
    read_tokenizer,
    settings_of,
    write_tokenizer,
)

PACKAGES = ("tokenizers", "numpy")


class TextEncoder:
    """The encoder of one text model. Settings as `settings_of` gives them, or a manifest's."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        file = read_tokenizer(folder)
        if "max_length" not in settings:
            raise JobError("the text encoder's settings lack 'max_length'")
        if not {"inputs", "pad", "pad_type"} <= settings.keys():
            settings = {**settings_of(folder), **settings}
        self._file = file
        self._inputs = tuple(str(name) for name in settings["inputs"])
        self.max_length = int(settings["max_length"])
        self.pair = bool(settings.get("pair", False))
        self.columns = ("text", "text_pair") if self.pair else ("text",)
        self._pads = {"input_ids": int(settings["pad"]), "attention_mask": 0,
                      "token_type_ids": int(settings["pad_type"])}  # fmt: skip
        unknown = set(self._inputs) - set(self._pads)
        if unknown:
            raise ModelError(f"the text encoder can't make the input '{min(unknown)}'")
        self._left = settings.get("pad_side", "right") == "left"
        self._cut_side = str(settings.get("cut_side", "right"))
        self.facts: Mapping[str, Any] = {
            "kind": "text",
            "file": FILE,
            "max_length": self.max_length,
            "inputs": list(self._inputs),
            "pad": self._pads["input_ids"],
            "pad_type": self._pads["token_type_ids"],
            "pad_side": "left" if self._left else "right",
            "cut_side": self._cut_side,
            "pair": self.pair,
        }
        added = file.get("added_tokens") or ()
        self.special = frozenset(int(token["id"]) for token in added if token.get("special"))
        masks = [token for token in added if token["content"] in ("[MASK]", "<mask>")]
        self.mask = int(masks[0]["id"]) if masks else None
        self.mask_token = str(masks[0]["content"]) if masks else None  # in a text it is one piece
        self.whole = load(file, folder)  # without truncation
        self._tokenizer = load(file, folder)
        try:
            self._tokenizer.enable_truncation(
                self.max_length, strategy="longest_first", direction=self._cut_side
            )
        except Exception as error:  # tokenizers raises plain Exceptions
            raise JobError(f"max_length {self.max_length} can't be: {error}") from None

    def inputs(self) -> tuple[str, ...]:
        """Name the graph's inputs, in order."""
        return self._inputs

    def encode(self, example: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Encode one example: int32 arrays by name, without padding. Raises `DataError`."""
        return self.encode_many([example])[0]

    def encode_many(self, examples: Sequence[Mapping[str, Any]]) -> list[dict[str, np.ndarray]]:
        """Encode several; the same results as one by one, faster."""
        return [self._row(one) for one in self._encodings(self._tokenizer, examples)]

    def lengths(self, examples: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Count the tokens of examples as they would be without truncation."""
        encodings = self._encodings(self.whole, examples)
        return np.array([len(one.ids) for one in encodings], dtype=np.int64)

    def _encodings(self, tokenizer: Any, examples: Sequence[Mapping[str, Any]]) -> list[Any]:
        texts = [self.texts(example) for example in examples]
        given: list[Any] = texts if self.pair else [one for (one,) in texts]
        return tokenizer.encode_batch(given) if given else []

    def texts(self, example: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the texts of an example: one, or the two of a pair. Raises `DataError`."""
        for name in self.columns:
            text = example.get(name)
            if not isinstance(text, str):
                found = "nothing" if text is None else type(text).__name__
                raise DataError(f"'{name}' should be a text, found {found}")
            try:
                text.encode("utf-8")
            except UnicodeEncodeError:
                raise DataError(f"'{name}' holds half a character (a lone surrogate)") from None
        if not self.pair and example.get("text_pair") is not None:
            raise DataError("the example has two texts, this model's encoder takes one")
        return tuple(example[name] for name in self.columns)

    def _row(self, encoding: Any) -> dict[str, np.ndarray]:
        if not encoding.ids:
            raise DataError("a text that the tokenizer turns into nothing")
        row = {"input_ids": np.array(encoding.ids, dtype=np.int32)}
        if "token_type_ids" in self._inputs:
            row["token_type_ids"] = np.array(encoding.type_ids, dtype=np.int32)
        return row

    def batch(
        self, rows: Sequence[Mapping[str, np.ndarray]], *, integers: str = "int64"
    ) -> dict[str, np.ndarray]:
        """Collate encoded rows into (rows, longest) inputs: padding and mask."""
        lengths = [len(row["input_ids"]) for row in rows]
        longest = max(lengths, default=0)
        made = {
            name: np.full((len(rows), longest), self._pads[name], dtype=integers)
            for name in self._inputs
        }
        for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            place = slice(longest - length, longest) if self._left else slice(0, length)
            for name, table in made.items():
                if name == "attention_mask":
                    table[index, place] = 1
                elif name in row:
                    table[index, place] = row[name]
                else:  # rows stored without segment ids: single texts
                    table[index, place] = 0
        return made

    def files(self, out: Path) -> None:
        """Write tokenizer.json as it ships: no padding, this encoder's truncation."""
        cut = {
            "direction": self._cut_side.capitalize(),
            "max_length": self.max_length,
            "strategy": "LongestFirst",
            "stride": 0,
        }
        write_tokenizer(out, {**self._file, "truncation": cut, "padding": None})


def load(file: Mapping[str, Any], folder: Path) -> Any:
    from tokenizers import Tokenizer

    plain = {**file, "truncation": None, "padding": None}
    try:
        return Tokenizer.from_str(json.dumps(plain))
    except Exception as error:  # tokenizers raises plain Exceptions
        raise ModelError(f"'{folder / FILE}' is no tokenizer: {error}") from None


def max_length_for(
    encoder: TextEncoder, examples: Iterable[Mapping[str, Any]]
) -> tuple[int, float]:
    """Choose max_length from training examples; returns it with the share of them that it cuts.

    The 99.5th percentile of their lengths in tokens, rounded up to 8, at most the encoder's own
    max_length (open it with `settings_of(model)`: then that is what the model takes).
    """
    lengths = encoder.lengths(list(examples))
    if not len(lengths):
        raise DataError("no training rows to choose max_length from")
    wanted = int(np.ceil(np.percentile(lengths, 99.5, method="inverted_cdf") / 8)) * 8
    length = max(SHORTEST, min(wanted, encoder.max_length))
    return length, float((lengths > length).mean())
