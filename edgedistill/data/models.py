"""Read the user's model: its configuration, head, labels and encoder, without loading a weight."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from edgedistill import plugins
from edgedistill.data import checkpoints, split
from edgedistill.data.weights import Weights
from edgedistill.errors import ModelError, UserError, from_os_error, nearest

PLACE_AND_TIME = ("_name_or_path", "name_or_path", "transformers_version", "_commit_hash")
TOKENIZER_CONFIG = "tokenizer_config.json"
CLASSIFIERS = ("ForSequenceClassification", "ForImageClassification")
HEADS = (  # names of the last weights of a classification head, by family
    "classifier.weight", "classifier.out_proj.weight", "classifier.1.weight", "score.weight",
    "cls_classifier.weight",
)  # fmt: skip
UNNAMED = re.compile(r"LABEL_\d+")
READS = {"vocab_size": "text", "num_channels": "image"}  # what a model of texts or images has
SHOWN = 5  # labels that an error names
Content = bytes  # of a file


@dataclass(frozen=True)
class ModelFound:
    """A checkpoint, read and found good."""

    name: str
    folder: Path  # as given (or saved from a live model): what the task's encoder_settings reads
    kind: str  # "text" | "image"
    model_type: str
    config: Mapping[str, Any] = field(repr=False)  # without names of places, and versions
    has_head: bool
    outputs: int | None  # of the head
    labels: tuple[str, ...] | None = field(repr=False)  # None: no head, or only LABEL_0, ...
    parameters: int
    dtype: str  # of most weights: "float16"
    bytes: int  # of the weights as given
    digest: str  # of what `write` writes
    encoder_digest: str  # of what `write_encoder` writes
    encoder: Mapping[str, Content] = field(repr=False)  # the encoder's file, ready to ship
    weights: Weights = field(repr=False)
    weights_digest: str = field(repr=False)
    tokenizer: Mapping[str, Any] = field(default_factory=dict, repr=False)  # its config's values
    commit: str | None = None  # of a hub id
    warnings: tuple[str, ...] = ()
    opened: Any = field(default=None, repr=False, compare=False)  # keeps temporary folders
    mend: str = "a new head is trained with --set model.finetune=always"  # where labels differ
    given: None = None  # it is no .onnx

    @property
    def has_weights(self) -> bool:
        """Say whether there are weights; only a student may be a config alone."""
        return bool(self.weights.files)

    def write(self, folder: Path) -> None:
        """Write the folder of a model source: config, weights, encoder, labels.

        With the tokenizer's config, by which `from_pretrained` opens students beside theirs.
        """
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for path in self.weights.files:
                shutil.copyfile(path, folder / path.name)
        except OSError as error:
            raise from_os_error(error, "copying the model") from None
        _write_json(folder / "config.json", self.config)
        if self.has_head and self.labels is not None:
            _write_json(folder / "labels.json", self.labels)
        if self.tokenizer:
            _write_json(folder / TOKENIZER_CONFIG, self.tokenizer)
        self.write_encoder(folder)

    def write_encoder(self, folder: Path) -> None:
        """Write the encoder's file alone: tokenizer.json or image.json."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.encoder.items():
            (folder / name).write_bytes(content)


def read(
    path: Any,
    *,
    revision: str | None = None,
    allow_pickle: bool = False,
    allow_code: bool = False,
    task: str | None = None,
    student: bool = False,
) -> ModelFound:
    """Read a folder, a hub id, or a live model with its tokenizer; nothing heavy for a folder.

    Raises `ModelError`: no model (which file is missing), a pickle that was not allowed, code of
    its own, damaged weights, a head that is not for one label of several. A student may be a config
    alone: then `has_weights` is False, and `encoder` is empty where it has no file of its own.
    """
    opened = checkpoints.open(path, revision=revision, allow_pickle=allow_pickle, student=student)
    bare = student and not opened.weights.files and not checkpoints.has_encoder(opened.folder)
    if task:
        reader: Any = plugins.find("tasks", task, allow_code=allow_code)
        _reads(opened, reader.EXAMPLES)
    else:
        reader = plugins.find("tasks", split.TASKS[kind_of(opened.folder)])
    encoder = {} if bare else encoder_of(opened.folder, reader)
    outputs, warnings = _outputs(opened.name, opened.config, opened.weights)
    config = {name: value for name, value in opened.config.items() if name not in PLACE_AND_TIME}
    found = ModelFound(
        name=opened.name,
        folder=opened.folder,
        kind=reader.EXAMPLES,
        model_type=opened.config["model_type"],
        config=config,
        has_head=outputs is not None,
        outputs=outputs,
        labels=labels_of(opened.name, opened.config, outputs),
        parameters=opened.weights.parameters(),
        dtype=opened.weights.dtype(),
        bytes=opened.bytes,
        digest="",
        encoder_digest=digest_of(encoder),
        encoder=encoder,
        weights=opened.weights,
        weights_digest=opened.weights.digest(),
        tokenizer=_tokenizer_config(opened.folder),
        commit=opened.commit,
        warnings=tuple(warnings),
        opened=opened,
    )
    return _with_digest(found)


def named(found: ModelFound, order: Sequence[str]) -> ModelFound:
    """Give the model's outputs their labels' names (where it had only LABEL_0, ...)."""
    if not found.has_head or found.labels == tuple(order):
        return found
    config = {
        **found.config,
        "id2label": {str(index): label for index, label in enumerate(order)},
        "label2id": {label: index for index, label in enumerate(order)},
    }
    return _with_digest(replace(found, config=config, labels=tuple(order)))


def encoded_by(found: ModelFound, other: ModelFound) -> ModelFound:
    """Give a model that came without an encoder another's."""
    encoder = {"encoder": other.encoder, "encoder_digest": other.encoder_digest}
    return _with_digest(replace(found, **encoder))  # type: ignore[arg-type]


class Answering(Protocol):
    """What has outputs with labels: a checkpoint, an .onnx."""

    @property
    def name(self) -> str: ...
    @property
    def has_head(self) -> bool: ...
    @property
    def outputs(self) -> int | None: ...
    @property
    def labels(self) -> tuple[str, ...] | None: ...
    @property
    def mend(self) -> str: ...
    @property
    def given(self) -> Any: ...


def labels(found: Answering, train_labels: Iterable[str]) -> list[str]:
    """Return the labels in the order of the model's outputs.

    By name where the model names them; where it has only LABEL_0, ..., by order: integers by
    number, else by code point; so too without a head. Raises `ModelError` when they differ.
    """
    rows = split.ordered(train_labels)
    if not found.has_head:
        return rows
    if found.labels is not None:
        _same(found, rows, found.labels)
        return list(found.labels)
    outputs = found.outputs or 0
    if len(rows) == outputs:
        return rows
    numbers = [str(index) for index in range(outputs)]
    if set(rows) <= set(numbers):  # some label has no row: the numbers say which
        missing = ", ".join(each for each in numbers if each not in rows)
        raise ModelError(f"labels of the model without a training row: {missing}")
    raise ModelError(
        f"the model '{found.name}' has {outputs} outputs without names, the rows have "
        f"{len(rows)} labels; {found.mend}"
    )


def by_number(rows: Iterable[str], names: Sequence[str] | None) -> dict[str, str]:
    """Return the names that integer labels stand for, as the numbers of outputs; {} for others.

    Nothing is renamed where a name is a number itself: that could be another output's.
    """
    numbers = {str(index): name for index, name in enumerate(names or ())}
    rows = set(rows)
    if not rows <= set(numbers) or any(name.isdecimal() for name in numbers.values()):
        return {}
    return {label: numbers[label] for label in split.ordered(rows)}


def _same(found: Answering, rows: Sequence[str], known: Sequence[str]) -> None:
    strange = [label for label in rows if label not in set(known)]
    absent = [label for label in known if label not in set(rows)]
    if found.given is not None:
        absent = []  # nothing is trained: rows that calibrate need not show every label
    if not strange and not absent:
        return
    parts = []
    if strange:
        hint = nearest(strange[0], known)
        close = f" ({hint})" if "did you mean" in hint else ""
        parts.append(f"the rows have {_some(strange)}, which the model has not{close}")
    if absent:
        parts.append(f"the model has {_some(absent)}, for which there is no training row")
    raise ModelError(
        f"labels differ between the model '{found.name}' and the rows: {'; '.join(parts)}; "
        f"{found.mend}"
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def kind_of(folder: Path) -> str:
    """Return what the model reads, by the files of its encoder."""
    has = {path.name for path in folder.iterdir()}
    if checkpoints.TOKENIZER in has:
        return "text"
    if not has.isdisjoint(checkpoints.IMAGES):
        return "image"
    raise ModelError(
        f"'{folder}' has no encoder: tokenizer.json is missing (texts), and so is "
        "preprocessor_config.json (images)"
    )


def _reads(opened: checkpoints.Opened, kind: str) -> None:
    """Raise `ModelError` where a model reads the other kind of rows, by what its config names."""
    told = {READS[name] for name in READS if name in opened.config}
    if len(told) == 1 and kind not in told:
        raise ModelError(
            f"'{opened.name}', of type {opened.config['model_type']}, reads {told.pop()}s, and "
            f"these rows are {kind}s"
        )


def encoder_of(folder: Path, task: Any) -> dict[str, bytes]:
    """Make the encoder's file as the task ships it."""
    with tempfile.TemporaryDirectory(prefix="edgedistill-encoder-") as holder:
        out = Path(holder)
        try:
            task.prepare_encoder(folder, out, {})
        except UserError:
            raise
        except (UnicodeDecodeError, ValueError) as error:
            raise ModelError(f"'{folder}': its encoder can't be read: {error}") from None
        return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    """Return what tokenizer_config.json says, without names of places and versions."""
    path = folder / TOKENIZER_CONFIG
    try:
        told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ModelError(f"'{path}' is not JSON: {error}") from None
    return {
        name: value
        for name, value in (told.items() if isinstance(told, dict) else ())
        if name not in PLACE_AND_TIME and not name.endswith("_file")
    }


def _outputs(
    name: str, config: Mapping[str, Any], weights: Weights
) -> tuple[int | None, list[str]]:
    """Return how many outputs the classification head has; None where there is no such head."""
    kinds = config.get("architectures") or []
    classifies = not kinds or any(part in str(kinds[0]) for part in CLASSIFIERS)
    head = next((weights.tensors[each] for each in HEADS if each in weights.tensors), None)
    if not classifies:
        other = f"'{name}' says {kinds[0]}: that head is left out, it gets one for labels first"
        return None, [other] if head is not None else []
    if head is None:
        if not kinds:
            return None, []
        return None, [f"'{name}' says {kinds[0]}, but holds no head: it is trained as one without"]
    outputs = head[1][0]
    if config.get("problem_type") == "multi_label_classification":
        raise ModelError(f"'{name}' gives several labels at once: not yet possible")
    if outputs == 1 or config.get("problem_type") == "regression":
        raise ModelError(f"'{name}' predicts a number (regression): not yet possible")
    return outputs, []


def labels_of(name: str, config: Mapping[str, Any], outputs: int | None) -> tuple[str, ...] | None:
    """Read the names of a head's outputs from a plain config; None where it has none of its own."""
    told = config.get("id2label")
    if outputs is None or not told:
        return None
    try:
        by_index = {int(index): str(label) for index, label in told.items()}
    except (ValueError, AttributeError):
        raise ModelError(f"'{name}': id2label of config.json can't be read") from None
    order = tuple(by_index[index] for index in sorted(by_index))
    if sorted(by_index) != list(range(outputs)):
        raise ModelError(
            f"'{name}': its head has {outputs} outputs, but config.json names {len(order)} labels"
        )
    if all(UNNAMED.fullmatch(label) for label in order):
        return None
    return distinct(name, order)


def distinct(name: str, order: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of outputs. Raises `ModelError` where two are the same."""
    if len(set(order)) < len(order):
        twice = next(label for label in order if order.count(label) > 1)
        raise ModelError(f"'{name}': two outputs have the same label '{twice}'")
    return order


def digest_of(encoder: Mapping[str, Content]) -> str:
    """Return the digest of an encoder's files."""
    return _digest({name: _sha(content) for name, content in encoder.items()})


def _with_digest(found: ModelFound) -> ModelFound:
    parts = {
        "config": found.config,
        "encoder": found.encoder_digest,
        "labels": found.labels,
        "weights": found.weights_digest,
        **({"tokenizer": found.tokenizer} if found.tokenizer else {}),
    }
    return replace(found, digest=_digest(parts))


def _digest(parts: Mapping[str, Any]) -> str:
    return _sha(json.dumps(parts, sort_keys=True).encode())


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
