"""Write a bundle: fill a folder, load it from there, prove it, and only then put it in place."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill.bundle import cost, evidence, exchange, golden, opened, readme
from edgedistill.bundle import manifest as manifests
from edgedistill.bundle.contents import Contents
from edgedistill.bundle.opened import Bundle, load
from edgedistill.bundle.outline import outline
from edgedistill.bundle.proof import compare, verify
from edgedistill.errors import BundleError, InternalError
from edgedistill.graph import ort_format

MODEL, FIXED, LABELS, LICENCE = "model.onnx", "model.fixed.onnx", "labels.json", "LICENSE.txt"
README, REPORT = "README.md", "report.json"
ORT, OPERATORS = "model.ort", "required_operators.config"


def write(out: Path, contents: Contents, *, prove: Callable[[Bundle], None]) -> Bundle:
    """Write a bundle to `out` and return it, open.

    It is written beside its place, loaded from there, verified, held against its golden vectors
    and handed to `prove` (which raises when the judged score does not come again), then exchanged
    with what lay in `out`. Whatever fails before that leaves `out` untouched.
    Raises `BundleError` where `out` may not be replaced; see `exchange.replaceable`.
    """
    out = Path(os.path.abspath(out))
    with exchange.replacing(out) as folder:
        _fill(folder, contents)
        verify(folder)
        prove(load(folder))
    bundle = load(out)
    beside, held = evidence.beside(out), contents.proof.evidence
    if held is None:
        beside.unlink(missing_ok=True)  # another bundle's, and perhaps another baseline's
    else:
        evidence.write(beside, held, contents.labels, bundle.manifest["payload"])
    report_beside(out).unlink(missing_ok=True)  # it told of a build that wrote no bundle
    return bundle


def report_beside(out: Path) -> Path:
    """Return where a report lies when no bundle was written."""
    return out.with_name(out.name + ".report.json")


def _fill(folder: Path, contents: Contents) -> None:
    """Write every file; the manifest stands first without golden vectors, then whole."""
    graph = contents.graph
    _copy(graph.folder / MODEL, folder / MODEL)
    if graph.ort:
        ort_format.write(folder / MODEL, folder / ORT, contents.session)
        (folder / OPERATORS).write_text(ort_format.required_operators(folder / ORT), "utf-8")
    if graph.fixed is not None:
        _copy(graph.fixed, folder / FIXED)
    from edgedistill import plugins

    task = plugins.find("tasks", contents.task)
    encoder = task.open_encoder(graph.folder, contents.encoder)
    encoder.files(folder)
    (folder / LABELS).write_text(manifests.dump(list(contents.labels)), "utf-8")
    if contents.licence is not None:
        (folder / LICENCE).write_text(contents.licence, "utf-8")
    said = _manifest(folder, contents, encoder)
    bundle = Bundle(folder, said, task, task.open_encoder(folder, said["encode"]))
    document = _golden(bundle, contents)
    (folder / golden.NAME).write_text(golden.dump(document), "utf-8")
    said["golden"] |= {"rows": len(document["rows"]), "tolerance": document["tolerance"]}
    if graph.ort:
        _same_in_ort(folder, bundle, said["golden"]["tolerance"])
    _write_report(folder, contents)
    (folder / README).write_text(readme.make(said, folder), "utf-8")
    _seal(folder, said)
    agreement = compare(load(folder))
    if not agreement.holds:
        raise BundleError(
            f"the bundle does not give its own golden outputs after a reload: {agreement.reason}"
        )
    said["golden"]["agreement"] = agreement.agreement
    _seal(folder, said)


def _manifest(folder: Path, contents: Contents, encoder: Any) -> dict[str, Any]:
    """Make the manifest but for golden vectors, files and payload, which are not written yet."""
    graph, told = contents.graph, outline(folder, MODEL)
    if not told.self_contained:
        raise BundleError("the chosen graph reads other files (external data): export it as one")
    inputs, outputs = _ports(folder / MODEL, contents.session)
    model: dict[str, Any] = {
        "file": MODEL,
        "bytes": (folder / MODEL).stat().st_size,
        "opset": told.opsets.get("", 0),
        "ir": told.ir,
        "onnxruntime": graph.onnxruntime,
        "precision": graph.precision,
        "processors": list(graph.processors),
        "batch": graph.batch,
        "inputs": inputs,
        "outputs": outputs,
    }
    most = encoder.facts.get("max_length")
    model["products"] = cost.curve(folder / MODEL, inputs, most)
    ship = [MODEL, encoder.facts["file"], LABELS, manifests.NAME]
    if graph.fixed is not None:
        model["fixed"] = FIXED
        ship.insert(1, FIXED)
    if graph.ort:
        config = dict(ort_format.IN_PLACE)  # beside the options of `session`
        model["ort"] = {"file": ORT, "operators": OPERATORS, "config": config}
        ship.insert(1, ORT)
    decide = contents.decide
    private = _private_places(folder)
    return {
        "format": manifests.FORMAT,
        "task": contents.task,
        "target": {"name": contents.target, "limits": dict(contents.limits)},
        "model": model,
        "encode": dict(encoder.facts),
        "decide": {
            "outputs": outputs[0]["name"],
            "softmax": decide.softmax,
            "temperature": decide.temperature,
            "threshold": decide.threshold,
        },
        "session": dict(contents.session),
        "labels": list(contents.labels),
        "figures": without_places(dict(contents.proof.figures), private),
        "checks": without_places([dict(check) for check in contents.proof.checks], private),
        "golden": {"file": golden.NAME, "rows": 1, "tolerance": 1.0, "agreement": 0.0},
        "provenance": without_places(dict(contents.provenance), private),
        "payload": "0" * 64,
        "ship": ship,
        "files": {},
    }


def _ports(model: Path, session: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    from edgedistill.graph.session import start

    running = start(model, session)
    return opened.ports(running.get_inputs()), opened.ports(running.get_outputs())


def _golden(bundle: Bundle, contents: Contents) -> dict[str, Any]:
    examples = bundle.task.golden(bundle.encoder, bundle.labels)
    encoded = [bundle.encoder.encode(example) for example in examples]
    outputs = np.concatenate([bundle.run_rows([row]) for row in encoded])
    return golden.make(
        examples,
        encoded,
        outputs,
        task=contents.task,
        output=bundle.manifest["decide"]["outputs"],
        precision=contents.graph.precision,
    )


def _same_in_ort(folder: Path, bundle: Bundle, tolerance: float) -> None:
    """Hold the file in onnxruntime's format against the graph, on the golden examples."""
    from edgedistill.graph.session import start

    running = start(folder / ORT, ort_format.options(bundle.manifest["session"]))
    for example in bundle.task.golden(bundle.encoder, bundle.labels):
        feed = bundle.feed([bundle.encoder.encode(example)])
        (found,) = running.run([bundle.manifest["decide"]["outputs"]], feed)
        if not np.abs(found - bundle.run(feed)).max() <= tolerance:
            raise BundleError(f"{ORT} does not answer as {MODEL} does: leave bundle.ort off")


def _seal(folder: Path, said: dict[str, Any]) -> None:
    """List the files, digest the payload and write the manifest."""
    said["files"] = manifests.list_files(folder)
    said["payload"] = manifests.payload(said["files"], manifests.payload_names(said))
    (folder / manifests.NAME).write_text(manifests.dump(said), "utf-8")


def _write_report(folder: Path, contents: Contents) -> None:
    from edgedistill import report

    report.write(folder, without_places(contents.proof.report, _private_places(folder)))


def _copy(source: Path, to: Path) -> None:
    """Copy a file, never link it: onnx and onnxruntime refuse linked external data."""
    if not source.is_file():
        raise InternalError(f"the chosen graph has no {source.name}")
    shutil.copyfile(source, to)


def _private_places(folder: Path) -> list[str]:
    """List the folders whose names tell of the user: none may stand in a bundle."""
    places = {Path.home(), Path.cwd(), folder.parent, Path(tempfile.gettempdir())}
    store = os.environ.get("EDGEDISTILL_STORE")
    if store:
        places.add(Path(store).expanduser())
    texts = {str(form) for place in places for form in (place, place.resolve())}
    return sorted((text for text in texts if len(text) > 1), key=len, reverse=True)


def without_places(value: Any, places: Sequence[str]) -> Any:
    """Return JSON without absolute paths into these folders: of such a path its base name stays."""
    if isinstance(value, Mapping):
        return {
            without_places(key, places): without_places(one, places) for key, one in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [without_places(one, places) for one in value]
    if isinstance(value, str):
        for place in places:
            if place in value:
                inside = rf"(?<![\w.]){re.escape(place)}(?:[/\\][^\s'\",:;()\[\]]*)?(?![\w.-])"
                value = re.sub(inside, lambda found: re.split(r"[/\\]", found[0])[-1], value)
    return value
