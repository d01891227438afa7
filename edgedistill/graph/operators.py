"""What each onnxruntime can run: opset, IR, operators, attributes.

The contrib operators all say version 1, so no opset keeps one out that an old runtime lacks. The
table is generated from the wheels themselves (`edgedistill.graph.make_tables`).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgedistill.errors import TargetError

TABLE = Path(__file__).parent / "tables" / "operators.json"
FLOOR = (17, 8)  # opset and IR that every runtime of the table loads
NEED_NO_KERNEL = ("Constant",)  # becomes an initializer when a graph is loaded


def runtimes() -> list[str]:
    """List the onnxruntime versions that the table knows, the oldest first."""
    return list(_table()["caps"])


def caps(onnxruntime: str) -> tuple[int, int]:
    """Return the highest opset and IR version that an onnxruntime ("1.17", "1.17.3") loads.

    A version newer than the table answers as its newest. Raises `TargetError` for an older one.
    """
    opset, ir = _table()["caps"][_known(onnxruntime)]
    return opset, ir


def missing(model: Any, onnxruntime: str) -> list[str]:
    """List what a graph holds that an onnxruntime has not, one short text each; [] is good.

    `model` is an `onnx.ModelProto` or a path. Checked: IR version, opset, domains, a CPU kernel for
    every operator at its version, and every attribute of a contrib operator.
    """
    from edgedistill.graph import clean, inspect

    if isinstance(model, (str, Path)):
        model = inspect.read(Path(model))
    known = _known(onnxruntime)
    opset, ir = _table()["caps"][known]
    found: dict[str, None] = {}
    if model.ir_version > ir:
        found[f"IR version {model.ir_version} (at most {ir})"] = None
    versions = {
        each.domain if each.domain != "ai.onnx" else "": each.version for each in model.opset_import
    }
    if versions.get("", 0) > opset:
        found[f"opset {versions['']} (at most {opset})"] = None
    local = {(function.domain, function.name) for function in model.functions}
    for domain in versions:
        if domain not in _table()["operators"] and domain not in {each for each, _ in local}:
            found[f"domain '{domain}'"] = None
    for graph in clean.graphs(model.graph):
        for node in graph.node:
            if (node.domain, node.op_type) not in local and node.op_type not in NEED_NO_KERNEL:
                found.update(dict.fromkeys(_lacks(node, versions, known)))
    return list(found)


def _lacks(node: Any, versions: Mapping[str, int], runtime: str) -> list[str]:
    """List what the runtime lacks of one node."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    name = f"{domain}.{node.op_type}" if domain else node.op_type
    about = _table()["operators"].get(domain, {}).get(node.op_type)
    if about is None:
        return [] if _is_function(node.op_type, domain, versions) else [f"operator {name}"]
    version = _schema_version(node.op_type, domain, versions)
    if not any(
        _within(span, runtime) and _serves(kernel, version)
        for kernel, span in about["kernels"].items()
    ):
        if _is_function(node.op_type, domain, versions):
            return []
        return [f"operator {name}" + (f" of opset {version}" if not domain else "")]
    if not domain:
        return []
    told = about["attributes"]
    return [
        f"attribute {name}.{each.name}"
        for each in node.attribute
        if each.name not in told or not _within(told[each.name], runtime)
    ]


def _schema_version(operator: str, domain: str, versions: Mapping[str, int]) -> int:
    """Return the version of the operator's definition that a graph of these opsets means."""
    if domain:
        return 1
    import onnx

    opset = min(versions.get("", 1), onnx.defs.onnx_opset_version())
    try:
        return onnx.defs.get_schema(operator, max_inclusive_version=opset).since_version
    except onnx.defs.SchemaError:
        return 1  # onnxruntime kept a few operators of its own in the standard's domain


def _is_function(operator: str, domain: str, versions: Mapping[str, int]) -> bool:
    """Say whether the standard defines the operator by others, which any runtime can inline."""
    if domain:
        return False
    import onnx

    opset = min(versions.get("", 1), onnx.defs.onnx_opset_version())
    try:
        schema: Any = onnx.defs.get_schema(operator, max_inclusive_version=opset)
    except onnx.defs.SchemaError:
        return False
    return schema.has_function or schema.has_context_dependent_function


def _serves(kernel: str, version: int) -> bool:
    """Say whether a kernel of versions "13-" or "7-12" serves a definition of that version.

    onnxruntime takes an open range for the definition it begins with, and no later one.
    """
    first, _, last = kernel.partition("-")
    return int(first) <= version <= int(last) if last else int(first) == version


def _within(spans: str, runtime: str) -> bool:
    for span in spans.split():
        first, _, last = span.partition("-")
        if _order(first) <= _order(runtime) and (not last or _order(runtime) <= _order(last)):
            return True
    return False


def _order(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _known(onnxruntime: str) -> str:
    """Return the table's name of a version; of a newer one the newest."""
    table = list(_table()["caps"])
    try:
        wanted = _order(onnxruntime)
    except ValueError:
        raise TargetError(f"onnxruntime '{onnxruntime}' is no version; like '{table[2]}'") from None
    if wanted < _order(table[0]):
        raise TargetError(
            f"onnxruntime {onnxruntime} is older than the oldest that is supported, {table[0]}"
        )
    older = [version for version in table if _order(version) <= wanted]
    return older[-1]


@functools.cache
def _table() -> dict[str, Any]:
    return json.loads(TABLE.read_text())
