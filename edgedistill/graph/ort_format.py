"""onnxruntime's own format: mapped from disk and used in place, instead of parsed and copied.

A .ort file holds the graph as the session has optimised it, so that nothing is left to do at load,
and a runtime can be built with only the operators that it names. It is written by this machine's
onnxruntime at the level "extended", whose fusions hold on every processor ("all" may lay weights
out for this one). Made by 1.31, it loads in 1.17. Its bytes are not the same each time: it is an
extra beside the .onnx file, which is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgedistill.graph import session as sessions

LEVEL = "extended"
IN_PLACE: Mapping[str, str] = {  # older runtimes ignore what they do not know, and read the file
    "session.use_memory_mapped_ort_model": "1",
    "session.use_ort_model_bytes_for_initializers": "1",
}


def write(model: Path, out: Path, session: Mapping[str, Any]) -> None:
    """Write a graph in onnxruntime's format, with the session options that ship."""
    config = {**session.get("config", {}), "session.save_model_format": "ORT"}
    told = {**session, "optimization": LEVEL, "config": config}
    sessions.start(model, told, optimized=out)


def options(session: Mapping[str, Any]) -> dict[str, Any]:
    """Return the session that opens the file in place."""
    return {**session, "config": {**session.get("config", {}), **IN_PLACE}}


def required_operators(model: Path) -> str:
    """Return the configuration of a reduced build: the operators of a .ort file, by version.

    As `--include_ops_by_config` of onnxruntime's build script reads it.
    """
    import logging

    from onnxruntime.tools.convert_onnx_models_to_ort import create_config_from_models

    logging.getLogger("ort_format_model.utils").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "operators.config"
        create_config_from_models([model], path, False)
        lines = path.read_text("utf-8").splitlines()
    kept = [line for line in lines if line and not line.startswith("#")]  # they name our paths
    return "\n".join([f"# operators of {model.name}", *kept]) + "\n"
