"""Golden texts: what a bundle is proven with on any machine; none is a row of the user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgedistill.tasks._tokens import TextEncoder

SENTENCES = (
    "What is the weather like in Lisbon tomorrow?",
    "please move 250.75 euros to my savings account",
    "It was the best film I have seen this year, and I'd watch it again!",
    "The delivery came three days late and the box was open.",
    "Ist der Zug um 17:45 Uhr schon abgefahren?",
    "Où se trouve la gare la plus proche ?",
    "今天的会议改到下午三点。",
    "Встреча перенесена на пятницу.",
    "see https://example.org/a?b=1&c=2 or write to someone@example.org",
    "THANK YOU 🙂 so much — naïve café, №5…",
    "tabs\tand\nlines   and  spaces",
)
NEARLY_EMPTY = "a"
LABELS = 16  # label names among the golden texts, at most
RANDOM = 8
SEED = 20261  # fixed: golden vectors are the same bytes whenever the same choice is built again


def examples(encoder: TextEncoder, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return the golden examples of a text encoder: single texts, or pairs of neighbours."""
    texts = [*SENTENCES, NEARLY_EMPTY]
    texts += [label.replace("_", " ") for label in labels[:LABELS] if label.strip()]
    texts += _pieces(encoder)
    texts.append(_long(encoder))
    texts = list(dict.fromkeys(texts))
    if not encoder.pair:
        return [{"text": text} for text in texts]
    turned = texts[1:] + texts[:1]
    return [{"text": text, "text_pair": other} for text, other in zip(texts, turned, strict=True)]


def _pieces(encoder: TextEncoder) -> list[str]:
    """Decode random pieces of the vocabulary: ids that no sentence of ours reaches."""
    draws = np.random.default_rng(SEED)
    size = encoder.whole.get_vocab_size(with_added_tokens=False)
    found = []
    for count in draws.integers(3, 24, size=RANDOM):
        ids = [int(one) for one in draws.integers(0, size, size=int(count))]
        text = encoder.whole.decode([one for one in ids if one not in encoder.special])
        # U+FFFD: half a character of a byte-level piece
        shown = (c if c.isprintable() and c != "\ufffd" else " " for c in text)
        found.append(" ".join("".join(shown).split()))
    return [text for text in found if text]


def _long(encoder: TextEncoder) -> str:
    """Return a text of more tokens than the encoder keeps."""
    text = " ".join(SENTENCES[:4])
    whole = len(encoder.whole.encode(text).ids)
    return " ".join([text] * (encoder.max_length // max(1, whole) + 2))
