"""Text classification: one text, or a pair, to one label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill.errors import InternalError, JobError, nearest
from edgedistill.tasks import (
    _golden_texts,
    _lexicon,
    _made_texts,
    _tokenizer_files,
    _tokens,
    _vocabulary,
)
from edgedistill.tasks._classification import (
    HIGHER_IS_BETTER,
    METRICS,
    OUTPUTS,
    UNIT,
    decode,
    default_metric,
    score,
    statistics,
)
from edgedistill.tasks._tokens import TextEncoder, max_length_for

__all__ = [
    "EXAMPLES", "HIGHER_IS_BETTER", "INPUTS", "MADE", "METRICS", "OUTPUTS", "PACKAGES",
    "READS_MODEL", "UNIT", "check_fold", "compare_encoder", "decode", "default_metric",
    "encoder_settings", "fold", "folded_files", "forward", "golden", "made", "max_length_for",
    "model_class", "open_encoder", "prepare_encoder", "score", "statistics",
]  # fmt: skip

EXAMPLES = "text"
PACKAGES = _tokens.PACKAGES
BY_MODEL: Mapping[str, tuple[Any, Any]] = {  # how rows are made, and of which words of the model's
    "unfamiliar": (_made_texts.unfamiliar, _lexicon.vocabulary),
    "replaced": (_made_texts.replaced, _lexicon.neighbours),
}
READS_MODEL = tuple(BY_MODEL)
MADE = (*_made_texts.KINDS, *READS_MODEL)
INPUTS = {"input_ids": (), "attention_mask": ("mask",), "token_type_ids": ("type", "segment")}


def encoder_settings(
    model: Path | Mapping[str, Any], max_length: int | None = None, *, pair: bool = False
) -> dict[str, Any]:
    """Read the encoder's settings from a model's folder or plain config (see `settings_of`)."""
    return _tokenizer_files.settings_of(model, max_length, pair=pair)


def prepare_encoder(model: Path, out: Path, settings: Mapping[str, Any]) -> None:
    """Write the tokenizer.json of a Hugging Face folder, its padding and truncation cleared.

    Raises `ModelError`.
    """
    file = _tokenizer_files.given_tokenizer(model)
    _tokenizer_files.write_tokenizer(out, {**file, "truncation": None, "padding": None})


def open_encoder(folder: Path, settings: Mapping[str, Any]) -> TextEncoder:
    """Open the encoder in a folder; settings as `encoder_settings` gives them."""
    return TextEncoder(folder, settings)


def check_fold(folder: Path, vocabulary: int, settings: Mapping[str, Any]) -> None:
    """Raise `ModelError` where the encoder in a folder can't have so small a vocabulary."""
    file = _tokenizer_files.read_tokenizer(folder)
    _vocabulary.choose(file, {}, vocabulary, pad=int(settings["pad"]))


def fold(
    folder: Path, used: np.ndarray, vocabulary: int, out: Path, settings: Mapping[str, Any]
) -> tuple[list[int], int, int]:
    """Write a tokenizer.json of fewer pieces; `used`: how often the training rows hold each id.

    Returns the old id of each new one, how many pieces had to stay, and how many there were.
    Raises `ModelError` for a vocabulary that can't be, naming what can.
    """
    file = _tokenizer_files.read_tokenizer(folder)
    counts = {index: int(count) for index, count in enumerate(used) if count}
    kept = _vocabulary.choose(file, counts, vocabulary, pad=int(settings["pad"]))
    _tokenizer_files.write_tokenizer(out, _vocabulary.rewrite(file, kept))
    return kept, _vocabulary.least(file), _vocabulary.size(file)


def folded_files(model: Path, encoder: Path, kept: Sequence[int]) -> None:
    """Lay a folded encoder over the encoder's files in a model folder."""
    _tokenizer_files.lay_folded(model, encoder, kept)


def compare_encoder(
    model: Path, encoder: TextEncoder, examples: Sequence[Mapping[str, Any]]
) -> str | None:
    """Compare with transformers' own tokenizer of that folder; the first difference, or None.

    Loads torch.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(model))
    told = {"truncation": True, "max_length": encoder.max_length}
    for example, row in zip(examples, encoder.encode_many(examples), strict=True):
        theirs = tokenizer(*encoder.texts(example), **told)
        for name, ours in row.items():
            if name in theirs and list(theirs[name]) != ours.tolist():
                return f"{name} of {example}: {ours.tolist()}, transformers: {theirs[name]}"
    return None


def model_class() -> Any:
    """Return the transformers class with this task's head (imports torch)."""
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification


def forward(model: Any, batch: Mapping[str, Any]) -> Any:
    """Run a torch model on a batch of tensors; what is no input (the truth) is left out."""
    return model(**{name: batch[name] for name in INPUTS if name in batch})


def made(
    examples: Sequence[Mapping[str, Any]],
    truth: np.ndarray,
    encoder: TextEncoder,
    *,
    kinds: Sequence[str],
    seed: int,
    model: Path | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Make unlabelled rows from others, one per row and kind, already encoded.

    Kinds: masked, joined, halves, crossed, misspelt, ngrams (after Tang et al., 2019), and by the
    folder `model` unfamiliar (with words of its vocabulary) and replaced (after TinyBERT, 2020).
    Their texts depend on the seed alone, not on the tokenizer: rows of a teacher and of a student
    stand for one another by their place. A kind that is named twice is made twice, with other
    draws. Rows stream: kind by kind, in order.
    """
    makers: dict[str, Any] = dict(_made_texts.KINDS)
    for kind in {*kinds} & {*READS_MODEL}:
        if model is None:
            raise InternalError(f"made rows ({', '.join(kinds)}) lack the model that they read")
        texts = (example[name] for example in examples for name in encoder.columns)
        make, words = BY_MODEL[kind]
        makers[kind] = partial(make, words=words(model, texts))
    for position, kind in enumerate(kinds):
        if kind not in makers:
            raise JobError(f"unknown kind of made rows '{kind}': {nearest(kind, MADE)}")
        draws = np.random.default_rng([seed, position])
        yield from makers[kind](examples, np.asarray(truth), encoder, draws)


def golden(encoder: TextEncoder, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Make the golden examples: none is a row of the user; pairs where the encoder takes pairs."""
    return _golden_texts.examples(encoder, labels)
