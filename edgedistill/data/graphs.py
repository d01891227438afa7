"""Read an .onnx in a model's place, and what lies beside it: its encoder's files, its labels.

The file is a stranger's: it is data, sizes are checked before anything is read, and one trial run
says in the first seconds whether it can be fed and answers as the task wants.
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

from edgedistill.data import checkpoints, models
from edgedistill.errors import ModelError, from_os_error, nearest
from edgedistill.records import Given

if TYPE_CHECKING:
    from edgedistill.graph.adopt import Port

SUFFIX = ".onnx"
LARGEST = 2**31 - 2**20  # what one .onnx file can hold
LARGEST_JSON = 64_000_000
TRIED = 32  # tokens of the rows of the trial, at most
UNITS = {"text": "(rows, tokens) of integers", "image": "(rows, channels, height, width) of floats"}
TOLD = {"max_length": int, "pad": int, "pad_type": int, "pad_side": str, "cut_side": str}
MEND = "give rows with its labels, or the checkpoint that it was exported from"


def is_graph(path: Any) -> bool:
    """Say whether the model that a job names is an .onnx file."""
    return isinstance(path, (str, Path)) and Path(path).suffix.lower() == SUFFIX


@dataclass(frozen=True)
class Opened:
    """An .onnx file and its folder of companions, before the rows are known."""

    path: Path
    model: Any = field(repr=False)  # onnx.ModelProto, complete in itself
    folder: Path  # of the encoder's files
    kind: str  # "text" | "image"
    labels: tuple[str, ...] | None
    told: Mapping[str, Any]  # what a bundle's manifest or an artifact says of the encoder
    digest: str  # of the graph
    bytes: int
    whole: bool  # no weights in other files
    kept: Any = field(default=None, repr=False, compare=False)  # holds temporary folders

    @property
    def name(self) -> str:
        return self.path.name


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


# ---------------------------------------------------------------- the file and its companions


def open(path: str | Path, *, encoder: str | None = None) -> Opened:
    """Open an .onnx file, and find its encoder and labels: beside it, or in the folder `encoder`.

    Raises `ModelError`: no such file, no sound graph, too large, no encoder beside it.
    """
    from edgedistill.data import hub
    from edgedistill.graph import clean

    place = hub.local(path, ModelError)
    assert place is not None  # an .onnx is never a hub id
    model, whole = _graph(place)
    folders = _folders(place, encoder)
    folder = next((each for each in folders if checkpoints.has_encoder(each)), None)
    if folder is None:
        where = f"in '{folders[0]}'" if encoder else f"beside '{place.name}'"
        raise ModelError(
            f"there is no tokenizer.json (texts) and no image.json or preprocessor_config.json "
            f"(images) {where}: put one there, or name its folder with --set model.encoder=FOLDER"
        )
    kept = None
    if checkpoints.needs_tokenizer(folder):
        folder, kept = checkpoints.with_tokenizer(folder)
    return Opened(
        path=place,
        model=model,
        folder=folder,
        kind=models.kind_of(folder),
        labels=_labels([folder, *folders]),
        told=_told(folder),
        digest=_digest(place) if whole else hashlib.sha256(clean.serialize(model)).hexdigest(),
        bytes=place.stat().st_size if whole else model.ByteSize(),
        whole=whole,
        kept=kept,
    )


def _graph(path: Path) -> tuple[Any, bool]:
    """Read the file; returns the graph with all its weights, and whether all lay in the file."""
    import onnx

    from edgedistill.graph import clean, inspect

    try:
        size = path.stat().st_size if path.is_file() else None
    except OSError as error:
        raise from_os_error(error, "reading the model") from None
    if size is None:
        raise ModelError(f"'{path}' is no regular file: expected an .onnx")
    if not 0 < size <= LARGEST:
        why = "is empty" if not size else f"holds {size:,} bytes: at most 2 GB are read"
        raise ModelError(f"'{path}' {why}")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # protobuf's DecodeError has no public home
        raise ModelError(f"'{path.name}' is no ONNX graph, or a truncated one") from None
    outside = [
        tensor
        for graph in clean.graphs(model.graph)
        for tensor in graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    if outside:
        need = sum(_external_bytes(tensor) for tensor in outside)
        if need + size > LARGEST:
            raise ModelError(
                f"'{path.name}' keeps {need / 1e9:.1f} GB of weights in another file: what ships "
                "is one file, of 2 GB at most"
            )
        model = inspect.read(path)
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # ValidationError, and what its C++ throws
        raise ModelError(f"'{path.name}' is no valid ONNX graph: {_first(error)}") from None
    if not model.graph.node:
        raise ModelError(f"'{path.name}' is no ONNX graph: it has no nodes")
    return model, not outside


def _external_bytes(tensor: Any) -> int:
    """Return what a tensor in another file takes at most by its own account."""
    import math

    told = {each.key: each.value for each in tensor.external_data}
    length = told.get("length", "")
    return int(length) if length.isdigit() else 8 * math.prod(tensor.dims)


def _folders(path: Path, encoder: str | None) -> list[Path]:
    """Return where the encoder and the labels may lie: the hub keeps graphs in a folder onnx/."""
    if encoder is not None:
        folder = Path(encoder).expanduser()
        if not folder.is_dir():
            raise ModelError(f"model.encoder: there is no folder '{encoder}'")
        return [folder, path.parent]
    return [path.parent, *([path.parent.parent] if path.absolute().parent.name == "onnx" else [])]


def _labels(folders: Sequence[Path]) -> tuple[str, ...] | None:
    """Read the names of the outputs: labels.json, else id2label of config.json."""
    for folder in dict.fromkeys(folders):
        listed = _json(folder / "labels.json")
        if listed is not None:
            if not (isinstance(listed, list) and all(isinstance(each, str) for each in listed)):
                raise ModelError(f"'{folder / 'labels.json'}' is no list of label names")
            return models.distinct(folder.name, tuple(listed))
        config = _json(folder / "config.json")
        told = config.get("id2label") if isinstance(config, dict) else None
        if isinstance(told, dict) and told:
            return models.labels_of(folder.name, {"id2label": told}, len(told))
    return None


def _told(folder: Path) -> dict[str, Any]:
    """Return what a bundle's manifest or an artifact's record says of the encoder's settings."""
    manifest, record = _json(folder / "manifest.json"), _json(folder / "artifact.json")
    found = manifest.get("encode") if isinstance(manifest, dict) else None
    if found is None and isinstance(record, dict) and isinstance(record.get("settings"), dict):
        found = record["settings"].get("encoder")
    if not isinstance(found, dict):
        return {}
    sides = ("left", "right")
    return {
        name: found[name]
        for name, kind in TOLD.items()
        if type(found.get(name)) is kind and (kind is int or found[name] in sides)
    }


def _json(path: Path) -> Any:
    """Read a JSON file, None where there is none. Raises `ModelError`."""
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ModelError(f"'{path}' holds over {LARGEST_JSON // 1_000_000} MB of JSON")
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"'{path}' is not JSON: {error}") from None
    except OSError as error:
        raise from_os_error(error, "reading the model") from None


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise from_os_error(error, "reading the model") from None


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
        raise ModelError(f"'{opened.name}' can't be run: {_first(error)}") from None


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


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
