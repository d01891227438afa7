"""Read an .onnx in a model's place: how it is fed, and which output answers.

One trial run says in the first seconds whether it can be fed and answers as the task wants.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.data import models
from edgedistill.data.graph_files import Opened
from edgedistill.errors import ModelError, first_line, from_os_error, nearest
from edgedistill.records import Given

if TYPE_CHECKING:
    from edgedistill.graph.adopt import Port

TRIED = 32  # tokens of the rows of the trial, at most
UNITS = {"text": "(rows, tokens) of integers", "image": "(rows, channels, height, width) of floats"}
MEND = "give rows with its labels, or the checkpoint that it was exported from"


@dataclass(frozen=True)
class GraphFound:
    """An .onnx, read and tried; the names that it shares with `models.ModelFound` mean the same."""

    opened: Opened = field(repr=False)
    given: Given
    outputs: int
    labels: tuple[str, ...] | None = field(repr=False)
    encoder: Mapping[str, bytes] = field(repr=False)
    encoder_digest: str
    parameters: int
    length: int  # of its rows in tokens, where that is fixed; else 0
    warnings: tuple[str, ...] = ()

    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    model_type: str = "onnx"
    has_head: bool = True
    mend: str = MEND

    @property
    def name(self) -> str:
        return self.opened.name

    @property
    def folder(self) -> Path:
        return self.opened.folder

    @property
    def kind(self) -> str:
        return self.opened.kind

    @property
    def bytes(self) -> int:
        return self.opened.bytes

    @property
    def dtype(self) -> str:
        return {"fp32": "float32", "fp16": "float16"}.get(self.given.precision, "int8")

    @property
    def digest(self) -> str:
        """The digest of what `write` writes."""
        parts = {"graph": self.opened.digest, "encoder": self.encoder_digest, "labels": self.labels}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def named(self, labels: Sequence[str]) -> GraphFound:
        """Give the outputs their labels' names."""
        return replace(self, labels=tuple(labels))

    def encoding(self, settings: Mapping[str, Any], asked: int | None) -> dict[str, Any]:
        """Return the encoder's settings as this graph is fed. Raises `ModelError`."""
        if "max_length" not in settings:
            return dict(settings)
        made = {**settings, **self.opened.told, "inputs": list(self.given.inputs)}
        if asked is not None:
            made["max_length"] = asked
        if self.length:
            if asked is not None and asked > self.length:
                raise ModelError(
                    f"'{self.name}' takes rows of {self.length} tokens, task.max_length is {asked}"
                )
            made["max_length"] = min(made["max_length"], self.length)
        return made

    def hold(self, encoder: Any, example: Mapping[str, Any]) -> None:
        """Run one example, the longest. Raises `ModelError` where the graph can't take it."""
        feed = _feed([encoder.encode(example)], encoder, self.given, self.length)
        try:
            self.run(feed)
        except ModelError as error:
            length = next(iter(feed.values())).shape[-1]
            raise ModelError(
                f"{error} on a row of {length} tokens: --set task.max_length=... says what it takes"
            ) from None

    def run(self, feed: Mapping[str, np.ndarray]) -> np.ndarray:
        """Run a feed of ours; returns the output that is kept."""
        running = _started(self.opened)
        return np.asarray(_run(self.opened, running, feed, self.given, [self.given.output])[0])

    def write(self, folder: Path) -> None:
        """Write the folder of a graph source: model.onnx, the encoder's file, labels."""
        from edgedistill.graph import clean

        folder.mkdir(parents=True, exist_ok=True)
        try:
            if self.opened.whole:
                shutil.copyfile(self.opened.path, folder / "model.onnx")
            else:
                (folder / "model.onnx").write_bytes(clean.serialize(self.opened.model))
        except OSError as error:
            raise from_os_error(error, "copying the graph") from None
        text = json.dumps(list(self.labels or ()), indent=1, ensure_ascii=False) + "\n"
        (folder / "labels.json").write_text(text, encoding="utf-8")
        self.write_encoder(folder)

    def write_encoder(self, folder: Path) -> None:
        """Write the encoder's file alone: tokenizer.json or image.json."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.encoder.items():
            (folder / name).write_bytes(content)


# ---------------------------------------------------------------- how it is fed, what it answers


def read(
    opened: Opened,
    task: Any,
    *,
    labels: int,
    onnxruntime: str,
    processors: Sequence[str] = (),
    batch: int = 1,
    pair: bool = False,
    inputs: Mapping[str, Any] | None = None,
) -> GraphFound:
    """Match the inputs, run a trial, find the output; `labels` is how many the rows have.

    `inputs` names those whose names tell nothing. Raises `ModelError`: what the runtime lacks, an
    input that no encoder makes, outputs that do not fit the task, a graph that can't be run.
    """
    from edgedistill.graph import adopt

    if opened.kind != task.EXAMPLES:
        raise ModelError(
            f"'{opened.name}' reads {opened.kind}s by the files beside it, the rows hold "
            f"{task.EXAMPLES}s"
        )
    _runs_on(opened, onnxruntime)
    found = adopt.operators(opened.model)
    fed = adopt.inputs_of(opened.model)
    last = fed[0].shape[-1] if len(fed) == 1 and fed[0].shape and len(fed[0].shape) == 4 else 0
    given = Given(
        inputs=_matched(opened.name, fed, task, inputs or {}),
        output="",
        operators=found,
        convolutional=adopt.convolutional(found),
        precision=adopt.precision(opened.model),
        channels_last=last in (1, 3) and fed[0].shape[1] not in (1, 3),  # type: ignore[index]
    )
    _exact(opened, given, processors)
    made = GraphFound(
        opened=opened,
        given=given,
        outputs=0,
        labels=opened.labels,
        encoder=(files := models.encoder_of(opened.folder, task)),
        encoder_digest=models.digest_of(files),
        parameters=_parameters(opened.model),
        length=max(
            (port.shape[1] for port in fed if port.shape and len(port.shape) == 2), default=0
        ),
    )
    return _tried(made, fed, task, labels=labels, batch=batch, pair=pair)


def _runs_on(opened: Opened, onnxruntime: str) -> None:
    """Refuse a graph that the target's runtime can't run, whatever is done to it."""
    from edgedistill.graph import operators

    lacks = [
        one for one in operators.missing(opened.model, onnxruntime) if not one.startswith("IR ")
    ]
    if lacks:
        more = f" and {len(lacks) - 3} more" if len(lacks) > 3 else ""
        raise ModelError(
            f"'{opened.name}' can't run on the target: onnxruntime {onnxruntime} lacks "
            f"{', '.join(lacks[:3])}{more}; export it with opset 17 and standard operators, or "
            "name a target of a newer runtime"
        )


def _exact(opened: Opened, given: Given, processors: Sequence[str]) -> None:
    """Refuse a graph whose int8 saturates on a processor of the target."""
    from edgedistill.graph import adopt

    plain = [one for one in processors if one.startswith("x86-64") and "vnni" not in one]
    if plain and given.precision == "int8" and adopt.saturates(opened.model):
        raise ModelError(
            f"'{opened.name}' is quantized already, with weights of full range, which saturate on "
            f"'{plain[0]}' that the target names: give the float graph that it was made from"
        )


def _matched(name: str, fed: Sequence[Port], task: Any, told: Mapping[str, Any]) -> dict[str, str]:
    """Return the graph's own name of each input, by ours. Raises `ModelError`."""
    known = task.INPUTS
    left = {port.name: port for port in fed}
    found: dict[str, str] = {}

    def take(ours: str, theirs: str) -> None:
        found[ours] = theirs
        del left[theirs]

    for ours, theirs in told.items():
        if ours not in known:
            raise ModelError(f"model.inputs: unknown input '{ours}': {nearest(ours, known)}")
        if theirs not in left:
            raise ModelError(
                f"model.inputs.{ours}: '{name}' has no input '{theirs}': "
                f"{nearest(str(theirs), [port.name for port in fed])}"
            )
        take(ours, theirs)
    for ours in known:
        if ours in left and ours not in found:
            take(ours, ours)
    for ours, words in sorted(known.items(), key=lambda each: not each[1]):
        fits = [each for each in left if not words or any(word in each.lower() for word in words)]
        if ours not in found and len(fits) == 1:
            take(ours, fits[0])
    first = next(iter(known))
    if left or first not in found:
        some = [*map(str, left.values())]
        more = f" and {len(some) - 3} more" if len(some) > 3 else ""
        what = f"takes {', '.join(some[:3])}{more}" if left else "takes no texts or images"
        missing = [ours for ours in known if ours not in found]
        hint = f"; name them with --set model.inputs.{missing[0]}=NAME" if left and missing else ""
        raise ModelError(f"'{name}' {what}: its encoder makes {', '.join(known)}{hint}")
    _typed(name, fed, task)
    return {ours: found[ours] for ours in known if ours in found}


def _typed(name: str, fed: Sequence[Port], task: Any) -> None:
    """Refuse inputs of another kind than the encoder's rows."""
    from edgedistill.graph import adopt

    rank = 2 if task.EXAMPLES == "text" else 4
    kinds = adopt.FED if task.EXAMPLES == "text" else adopt.FLOATS
    for port in fed:
        if port.type not in kinds or (port.shape is not None and len(port.shape) != rank):
            raise ModelError(f"'{name}' takes {port}, and its encoder makes {UNITS[task.EXAMPLES]}")


def _tried(
    found: GraphFound, fed: Sequence[Port], task: Any, *, labels: int, batch: int, pair: bool
) -> GraphFound:
    """Run a few rows, and find the output that answers."""
    import tempfile

    opened = found.opened
    sizes = {port.shape[0] for port in fed if port.shape}
    size = max(sizes, default=0)
    if size and size != batch:
        raise ModelError(
            f"'{opened.name}' takes {size} rows a run and the target runs {batch}: export it with "
            "a batch of any size"
        )
    with tempfile.TemporaryDirectory(prefix="edgedistill-encoder-") as folder:
        found.write_encoder(Path(folder))
        settings = found.encoding(task.encoder_settings(opened.folder, pair=pair), None)
        if "max_length" in settings and not found.length:
            settings["max_length"] = min(settings["max_length"], TRIED)
        encoder = task.open_encoder(Path(folder), settings)
        rows = encoder.encode_many(task.golden(encoder, opened.labels or ())[:4])
    _sized(opened.name, fed, encoder, rows[0], found)
    running = _started(opened)
    warnings: list[str] = []
    count, results = size or max(2, batch), None
    while results is None:
        feed = _feed(
            [rows[i % len(rows)] for i in range(count)], encoder, found.given, found.length
        )
        try:
            results = _run(opened, running, feed, found.given, None)
        except ModelError:
            if size or count == batch:
                raise
            count = size = batch
            warnings.append(f"'{opened.name}' answers {batch} rows a run, and no other number")
    ports = [port for port in _outputs(opened) if port.shape is not None or port.type != "unknown"]
    output, width = _output(opened, ports, results, count, labels)
    if opened.labels is not None and width != len(opened.labels):
        raise ModelError(
            f"'{opened.name}' gives {width} outputs ('{output}'), and the files beside it name "
            f"{len(opened.labels)} labels"
        )
    given = replace(found.given, output=output, batch=size)
    return replace(found, given=given, outputs=width, warnings=tuple(warnings))


def _started(opened: Opened) -> Any:
    """Start a session of the graph as it came. Raises `ModelError`, naming the file."""
    from edgedistill.graph import clean, session

    try:
        return session.start(clean.serialize(opened.model))
    except ModelError as error:
        raise ModelError(str(error).replace("the graph", f"'{opened.name}'", 1)[:500]) from None


def _outputs(opened: Opened) -> list[Port]:
    from edgedistill.graph import adopt

    return adopt.outputs_of(opened.model)


def _sized(
    name: str, fed: Sequence[Port], encoder: Any, row: Mapping[str, np.ndarray], found: GraphFound
) -> None:
    """Refuse images of another size than the encoder makes."""
    made = encoder.batch([row])
    for ours, theirs in found.given.inputs.items():
        port = next(each for each in fed if each.name == theirs)
        sides = list(made[ours].shape)
        if len(sides) != 4 or port.shape is None:
            continue
        if found.given.channels_last:
            sides = [sides[0], sides[2], sides[3], sides[1]]
        if any(want and want != have for want, have in zip(port.shape[1:], sides[1:], strict=True)):
            raise ModelError(
                f"'{name}' takes {port}, and the image settings beside it make "
                f"{' x '.join(map(str, sides[1:]))}"
            )


def _feed(
    rows: Sequence[Mapping[str, np.ndarray]], encoder: Any, given: Given, length: int
) -> dict[str, np.ndarray]:
    from edgedistill.graph import feeds

    return feeds.padded(rows, encoder, integers="int64", length=length)


def _run(
    opened: Opened,
    running: Any,
    feed: Mapping[str, np.ndarray],
    given: Given,
    outputs: Sequence[str] | None,
) -> list[Any]:
    """Run the graph as it is on what our encoder makes. Raises `ModelError`."""
    from edgedistill.graph import adopt

    named = adopt.as_given(opened.model, feed, given.inputs, channels_last=given.channels_last)
    try:
        return running.run(outputs, named)
    except Exception as error:  # onnxruntime's exceptions share no class but this one
        raise ModelError(f"'{opened.name}' can't be run: {first_line(error)}") from None


def _output(
    opened: Opened, ports: Sequence[Port], results: Sequence[Any], rows: int, labels: int
) -> tuple[str, int]:
    """Return the output that answers, with its width. Raises `ModelError` where none does."""
    widths, seen = {}, []
    for port, value in zip(ports, results, strict=True):
        shape = getattr(value, "shape", None)
        seen.append(f"'{port.name}' {list(shape) if shape is not None else port.type}")
        if shape is None or value.dtype.kind != "f" or len(shape) < 2 or shape[0] != rows:
            continue
        if all(side == 1 for side in shape[2:]):
            widths[port.name] = int(shape[1])
    wanted = len(opened.labels) if opened.labels else labels
    fits = [name for name, width in widths.items() if width == wanted]
    some = ", ".join(seen[:4]) + (", ..." if len(seen) > 4 else "")
    count = f"{rows} row" + ("s" if rows > 1 else "")
    if not widths or (len(widths) > 1 and not fits):
        raise ModelError(
            f"the outputs of '{opened.name}' do not fit the task: for {count} it gives {some}; "
            f"expected floats of shape [{rows}, {wanted}], one column a label"
        )
    named = [name for name in fits if "logit" in name.lower()]
    output = (named or fits or list(widths))[0]
    if widths[output] == 1:
        raise ModelError(
            f"'{opened.name}' gives one number a row ('{output}'): not yet possible; expected one "
            "column a label"
        )
    return output, widths[output]


def _parameters(model: Any) -> int:
    from edgedistill.graph import inspect

    return inspect.parameters(model)
