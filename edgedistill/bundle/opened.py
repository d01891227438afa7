"""A bundle that is open: predict with it, run it, read what it says of itself."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgedistill import plugins
from edgedistill.bundle import manifest as manifests
from edgedistill.bundle import untrusted
from edgedistill.bundle.outline import outline
from edgedistill.bundle.untrusted import printable
from edgedistill.errors import (
    BundleError,
    DataError,
    UsageError,
    UserError,
    first_line,
    from_os_error,
)

ENCODED_AT_ONCE = 256
IMAGE_BYTES = 500_000_000
Answer = list[tuple[str, float]]  # labels with their probabilities, the most likely first


class Bundle:
    """An open bundle. `load` makes one; its model is loaded when it is first needed."""

    def __init__(
        self, folder: Path, manifest: Mapping[str, Any], task: ModuleType, encoder: Any
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.task = task
        self.encoder = encoder
        self.labels: list[str] = list(manifest["labels"])

    def __repr__(self) -> str:
        return f"Bundle({self.folder.name}, {self.manifest['task']}, {len(self.labels)} labels)"

    @property
    def model(self) -> Path:
        """The graph's file."""
        return self.folder / self.manifest["model"]["file"]

    @functools.cached_property
    def session(self) -> Any:
        """The onnxruntime session, with the options that ship."""
        return _session(self.model, self.manifest)

    @functools.cached_property
    def integers(self) -> str:
        """The type of the graph's integer inputs."""
        kinds = [each["type"] for each in self.manifest["model"]["inputs"]]
        return next((kind for kind in kinds if kind.startswith("int")), "int64")

    @property
    def inputs(self) -> list[str]:
        """The names of the graph's inputs, in its order."""
        return [each["name"] for each in self.manifest["model"]["inputs"]]

    def inexact(self) -> str | None:
        """Say that the model's arithmetic is not exact on this processor; None where it is."""
        from edgedistill.measure import host

        model, here = self.manifest["model"], host.instructions()
        if model["precision"] == "fp32" or not model["processors"] or here in model["processors"]:
            return None
        exact = printable(", ".join(model["processors"]))
        return (
            f"this processor ({here}) is not among those on which the file is exact ({exact}): "
            "answers may differ"
        )

    def asked(self, arguments: Sequence[str]) -> list[Any]:
        """Bring the arguments of a command line into rows for `predict`; pairs two by two.

        Raises `UsageError` for an odd count where the model takes pairs, and for an empty one.
        """
        for number, argument in enumerate(arguments, 1):
            if not argument.strip():
                raise UsageError(f"argument {number} is empty: expected a text or an image file")
        if not self.manifest["encode"].get("pair", False):
            return list(arguments)
        if len(arguments) % 2:
            raise UsageError(
                f"this bundle answers pairs of texts, and {len(arguments)} "
                f"{'text was' if len(arguments) == 1 else 'texts were'} given: name them two by "
                "two, A B [A B ...]"
            )
        return list(zip(arguments[::2], arguments[1::2], strict=True))

    def predict(self, rows: Any) -> list[Answer]:
        """Answer one example or many; returns for each its labels, the most likely first.

        For text: a text, a pair (a tuple of two texts), a mapping {"text": ...}. For images: a path
        or the bytes of an image file. A list of these answers each. Probabilities are those of the
        manifest's temperature. Raises `DataError` for an example that can't be read.
        """
        many = rows if isinstance(rows, list) else [rows]
        examples = as_examples(many, self.task.EXAMPLES)
        try:
            outputs = self.outputs(examples)
        except DataError as error:
            raise self._placed(many, examples) or error from None
        return self.task.decode(outputs, self.labels, self.manifest["decide"]["temperature"])

    def _placed(self, rows: list[Any], examples: Sequence[Mapping[str, Any]]) -> DataError | None:
        """Return the error of the first example that can't be encoded, with its place."""
        for number, (row, example) in enumerate(zip(rows, examples, strict=True), 1):
            try:
                self.encoder.encode(example)
            except DataError as error:
                place = f"row {number}: " if len(rows) > 1 else ""
                if isinstance(row, (str, PathLike)) and "image" in example:
                    place = f"'{printable(row)}': "
                return DataError(f"{place}{error}")
        return None

    def outputs(self, examples: Iterable[Mapping[str, Any]]) -> np.ndarray:
        """Run examples as the bundle is deployed; returns outputs (examples, labels) float32."""
        batch = self.manifest["model"].get("batch", 1)
        made = [self.run_rows(rows) for rows in _groups(self._encoded(examples), batch)]
        return np.concatenate(made) if made else np.zeros((0, len(self.labels)), np.float32)

    def run_rows(self, rows: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
        """Run encoded rows as one batch; returns (rows, labels) float32."""
        return self.run(self.feed(rows))[: len(rows)]

    def feed(self, rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Collate encoded rows into the graph's inputs, filled up where its shape is fixed."""
        from edgedistill.graph import feeds
        from edgedistill.graph.session import fixed

        shape = fixed(self.session)
        filled = [*rows, *[rows[-1]] * (shape.batch - len(rows))]
        made = feeds.padded(filled, self.encoder, integers=self.integers, length=shape.length)
        return {name: made[name] for name in self.inputs if name in made}

    def run(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Run the graph on its inputs by name; returns (rows, labels) float32.

        Inputs that the graph does not have are left out (an exporter drops what is never read).
        """
        feed = {name: value for name, value in batch.items() if name in self.inputs}
        try:
            (found,) = self.session.run([self.manifest["decide"]["outputs"]], feed)
        except Exception as error:  # onnxruntime's exceptions share no class but this one
            raise BundleError(
                f"'{printable(self.model)}' can't be run: {printable(first_line(error))}"
            ) from None
        found = np.asarray(found, np.float32)
        if found.ndim != 2 or found.shape[1] != len(self.labels):
            raise BundleError(
                f"'{printable(self.model)}' gives an output of shape {list(found.shape)}, "
                f"expected (rows, {len(self.labels)}): one column a label"
            )
        return found

    def _encoded(self, examples: Iterable[Mapping[str, Any]]) -> Iterator[Any]:
        for group in _groups(examples, ENCODED_AT_ONCE):
            yield from self.encoder.encode_many(group)


def load(folder: str | PathLike[str]) -> Bundle:
    """Open a bundle: its manifest and the files that it needs are checked by size and hash.

    Raises `BundleError` for a folder that is no bundle, and for one that is damaged or unsound.
    """
    path = Path(folder).expanduser()
    found = manifests.read(path)
    model, encoder = found["model"]["file"], found["encode"]["file"]
    manifests.check_files(path, found, [model, encoder, "labels.json"])
    labels = untrusted.read_json(path, "labels.json", most=manifests.MANIFEST_BYTES)
    if labels != found["labels"]:
        raise BundleError(f"'{printable(path)}': labels.json differs from the manifest's labels")
    told = outline(path, model)
    if not told.self_contained:
        raise BundleError(
            f"'{printable(path / model)}' reads other files (external data): a bundle's model is "
            "one file"
        )
    task = _task(found["task"])
    return Bundle(path, found, task, _encoder(task, path, found["encode"]))


def as_examples(rows: Any, kind: str) -> list[dict[str, Any]]:
    """Bring what a caller hands to `predict` into examples of a task's kind ("text" | "image")."""
    many = rows if isinstance(rows, list) else [rows]
    return [_text(one) if kind == "text" else _image(one) for one in many]


def _text(one: Any) -> dict[str, Any]:
    if isinstance(one, str):
        return {"text": one}
    if isinstance(one, Mapping):
        return dict(one)
    if isinstance(one, tuple) and len(one) == 2:
        return {"text": one[0], "text_pair": one[1]}
    raise DataError(f"expected a text or a pair of texts, got {type(one).__name__}")


def _image(one: Any) -> dict[str, Any]:
    if isinstance(one, (bytes, bytearray, memoryview)):
        return {"image": bytes(one)}
    if isinstance(one, Mapping):
        return dict(one)
    if isinstance(one, (str, PathLike)):
        return {"image": _image_file(Path(one).expanduser())}
    raise DataError(f"expected the path or the bytes of an image, got {type(one).__name__}")


def _image_file(path: Path) -> bytes:
    """Read an image file; what is no regular file, or too large for one, is refused unread."""
    if not os.path.lexists(path):
        raise DataError(f"the image '{printable(path)}' does not exist")
    try:
        if not path.is_file():
            raise DataError(f"the image '{printable(path)}' is no regular file")
        if path.stat().st_size > IMAGE_BYTES:
            most = f"{IMAGE_BYTES / 1e6:.0f} MB"
            raise DataError(f"the image '{printable(path)}' is larger than {most}")
        return path.read_bytes()
    except OSError as error:
        raise from_os_error(error, "reading an image") from None


def _groups(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    group: list[Any] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _task(name: str) -> ModuleType:
    try:
        return plugins.find("tasks", name)
    except UserError as error:
        raise BundleError(f"{manifests.NAME}: {printable(error)}") from None


def _encoder(task: ModuleType, folder: Path, encode: Mapping[str, Any]) -> Any:
    """Open the encoder and hold what it says against the manifest."""
    with untrusted.blamed(f"'{folder / encode['file']}'"):
        encoder = task.open_encoder(folder, encode)
    for name, value in encoder.facts.items():
        if encode.get(name) != value:
            raise BundleError(
                f"{manifests.NAME}: encode.{name} is {printable(encode.get(name))}, "
                f"{encode['file']} says {printable(value)}"
            )
    return encoder


def _session(model: Path, manifest: Mapping[str, Any]) -> Any:
    """Load the model with the shipped options; hold its inputs and outputs against the manifest."""
    try:
        import onnxruntime
    except ImportError:
        from edgedistill.errors import MissingPackage

        raise MissingPackage("onnxruntime", "running a bundle") from None
    from edgedistill.graph.session import options

    try:
        session = onnxruntime.InferenceSession(
            str(model),
            options(manifest["session"]),
            providers=["CPUExecutionProvider"],
            enable_fallback=0,  # its second try prints to stdout
        )
        found = {"inputs": ports(session.get_inputs()), "outputs": ports(session.get_outputs())}
    except Exception as error:  # onnxruntime's exceptions share no class but this one
        raise BundleError(
            f"'{printable(model)}' can't be loaded by onnxruntime {onnxruntime.__version__}: "
            f"{printable(first_line(error))}"
        ) from None
    for kind, told in found.items():
        if told != manifest["model"][kind]:
            raise BundleError(
                f"'{printable(model)}' has other {kind} than its manifest says: {printable(told)}"
            )
    return session


_TYPES = {"float": "float32", "double": "float64"}


def ports(nodes: Sequence[Any]) -> list[dict[str, Any]]:
    """Describe inputs or outputs of a session: name, type, shape (numbers and names)."""
    told = []
    for node in nodes:
        kind = node.type.removeprefix("tensor(").removesuffix(")")
        told.append({"name": node.name, "type": _TYPES.get(kind, kind), "shape": list(node.shape)})
    return told
