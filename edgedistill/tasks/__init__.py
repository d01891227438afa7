"""Tasks: one file each. The file's contract is `Task` below; the contract test walks them.

A task knows which examples it reads, how one example becomes a model's inputs (one encoder for
training, evaluation, golden vectors and the bundle), what a model's outputs are worth, and how
they are told to people. Module level is light: torch and transformers are imported in functions.

An *example* is one row of data without its truth: for text `{"text": str}` or
`{"text": str, "text_pair": str}`, for images `{"image": bytes}` (an encoded image file).
An *encoded row* is a dict of small numpy arrays, as the arrays artifact stores them.
A *batch* is what the ONNX graph is fed: a dict of numpy arrays by input name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Statistics:
    """What each example adds to the sums that a metric is computed from.

    An example adds `values[i, j]` to the sum `columns[i, j]`; with 0 it adds nothing. A metric by
    label has sums for every label, of which an example touches two or three: so what is held grows
    with the examples, not with examples times labels.
    """

    columns: np.ndarray  # (examples, few) int64, from 0 to size - 1
    values: np.ndarray  # (examples, few) float64
    size: int  # how many sums there are

    def sums(self) -> np.ndarray:
        """Add up all examples: (size,) float64."""
        added = np.bincount(self.columns.ravel(), self.values.ravel(), minlength=self.size)
        return added.astype(np.float64)  # without examples they are whole numbers


class Encoder(Protocol):
    """The encoder of one model: `tokenizer.json` or `image.json`, loaded without torch."""

    facts: Mapping[str, Any]
    """What the manifest's `encode` says: {kind, file, max_length | size, channels, mean, ...}."""

    def encode(self, example: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Encode one example (no padding). Raises `DataError` for one that can't be."""

    def encode_many(self, examples: Sequence[Mapping[str, Any]]) -> list[dict[str, np.ndarray]]:
        """Encode several; the same results as one by one, faster."""

    def batch(
        self, rows: Sequence[Mapping[str, np.ndarray]], *, integers: str = "int64"
    ) -> dict[str, np.ndarray]:
        """Collate encoded rows into a graph's inputs: padding to the longest, masks, normalising.

        Inputs by name in the order of `inputs`; integer inputs of the type named by `integers`.
        """

    def inputs(self) -> tuple[str, ...]:
        """Name the graph's inputs, in order."""

    def files(self, out: Path) -> None:
        """Write the encoder's file, the one that ships, into a folder."""


class Task(Protocol):
    """What a file in tasks/ offers, as module attributes."""

    EXAMPLES: str  # "text" | "image"
    METRICS: tuple[str, ...]  # the first is the default
    UNIT: str  # "points"
    HIGHER_IS_BETTER: bool
    OUTPUTS: str  # what its outputs are to a loss: "classes", of which one is right
    MADE: tuple[str, ...]  # kinds of made rows that it offers
    READS_MODEL: tuple[str, ...]  # those of them that are made by the teacher's weights
    PACKAGES: tuple[str, ...]  # packages whose version can change an encoding
    INPUTS: Mapping[str, Sequence[str]]
    """What its graphs can be fed, in order, each with words that other tools' names of it hold;
    without such words it is what is left."""

    def encoder_settings(
        self,
        model: Path | Mapping[str, Any],
        max_length: int | None = None,
        *,
        pair: bool = False,
    ) -> dict[str, Any]:
        """Read the encoder's settings from a model's folder or its plain config; no torch.

        They stand in every step that encodes: for texts {max_length, inputs, pad, ..., pair}, where
        no max_length means the most that the model takes; {} for images.
        """

    def prepare_encoder(self, model: Path, out: Path, settings: Mapping[str, Any]) -> None:
        """Make the shipping encoder (tokenizer.json | image.json) of a Hugging Face folder."""

    def open_encoder(self, folder: Path, settings: Mapping[str, Any]) -> Encoder:
        """Open the encoder in a folder; settings: as `encoder_settings` gives them, or
        the manifest's `encode`."""

    def check_fold(self, folder: Path, vocabulary: int, settings: Mapping[str, Any]) -> None:
        """Raise `ModelError` where the encoder can't have so small a vocabulary (texts alone)."""

    def fold(
        self,
        folder: Path,
        used: np.ndarray,
        vocabulary: int,
        out: Path,
        settings: Mapping[str, Any],
    ) -> tuple[list[int], int, int]:
        """Write an encoder of fewer pieces (texts alone; may be left out, with `check_fold`).

        `used`: how often the training rows hold each id. Returns the old id of each new one, how
        many pieces had to stay, and how many there were.
        """

    def folded_files(self, model: Path, encoder: Path, kept: Sequence[int]) -> None:
        """Lay what `fold` wrote over the encoder's files in a model folder (beside `fold`)."""

    def compare_encoder(
        self, model: Path, encoder: Any, examples: Sequence[Mapping[str, Any]]
    ) -> str | None:
        """Compare with transformers' own of that folder: the first difference, or None."""

    def default_metric(self, rows: Mapping[str, int]) -> tuple[str, str | None]:
        """Choose the metric from the rows of each label; with the reason, if there is one."""

    def model_class(self) -> Any:
        """Return the transformers auto class with the head of this task (imports torch)."""

    def forward(self, model: Any, batch: Mapping[str, Any]) -> Any:
        """Run a torch model on a batch of tensors; returns an object with `.logits`."""

    def made(
        self,
        examples: Sequence[Mapping[str, Any]],
        truth: np.ndarray,
        encoder: Encoder,
        *,
        kinds: Sequence[str],
        seed: int,
        model: Path | None = None,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Make unlabelled rows from others, one per row and kind, already encoded.

        They depend on the rows, the seed and (`READS_MODEL`) the folder `model`, not on the
        encoder: a teacher and a student with encoders of their own get the same. A kind that is
        named twice is made twice, with other draws.
        """

    def statistics(self, outputs: np.ndarray, truth: np.ndarray, metric: str) -> Statistics:
        """Return what each example adds to the sums that `score` turns into the metric.

        `outputs` (examples, labels), `truth` (examples,) with -1 for one that counts nowhere. The
        sums of any examples, drawn once or often, give the metric of those.
        """

    def score(self, sums: np.ndarray, metric: str) -> np.ndarray:
        """Turn sums (..., size) into scores in points (...)."""

    def decode(
        self, outputs: np.ndarray, labels: Sequence[str], temperature: float
    ) -> list[list[tuple[str, float]]]:
        """Return for each row the labels with their probabilities, the most likely first."""

    def golden(self, encoder: Encoder, labels: Sequence[str]) -> list[dict[str, Any]]:
        """Make the golden examples: none is a row of the user."""
