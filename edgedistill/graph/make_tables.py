"""Generate tables/operators.json from wheels: `python -m edgedistill.graph.make_tables`.

Each onnxruntime's first wheel (what the oldest patch can, later ones can) is installed into a
throwaway folder and asked, in an isolated process, for its operators, their attributes, its CPU
kernels, and the highest opset and IR version that it loads. The first that can answer is 1.16. A
runtime is one line in `WHEELS`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent / "tables" / "operators.json"
OLD_NUMPY, NEW_NUMPY = "numpy==1.26.4", "numpy>=2,<3"  # wheels before 1.19 were built for the old
WHEELS = {
    "1.16.0": OLD_NUMPY,
    "1.17.0": OLD_NUMPY,
    "1.18.0": OLD_NUMPY,
    "1.19.0": NEW_NUMPY,
    "1.20.0": NEW_NUMPY,
    "1.21.0": NEW_NUMPY,
    "1.22.0": NEW_NUMPY,
    "1.23.1": NEW_NUMPY,
    "1.24.1": NEW_NUMPY,
    "1.25.0": NEW_NUMPY,
    "1.26.0": NEW_NUMPY,
    "1.27.0": NEW_NUMPY,
    "1.28.0": NEW_NUMPY,
    "1.29.0": NEW_NUMPY,
    "1.30.0": NEW_NUMPY,
    "1.31.0": NEW_NUMPY,
}
PIP = "-m pip install --quiet --no-deps --only-binary=:all: --disable-pip-version-check"
DOMAINS = ("", "com.microsoft")

QUESTION = """
import json, sys
sys.path.insert(0, sys.argv[1])
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state
models = json.load(sys.stdin)
onnxruntime.set_default_logger_severity(4)
def loads(model):
    try:
        onnxruntime.InferenceSession(bytes.fromhex(model), providers=["CPUExecutionProvider"])
        return True
    except Exception:
        return False
kernels = [
    [each.domain, each.op_name, *each.version_range]
    for each in state.get_all_opkernel_def() if each.provider == "CPUExecutionProvider"
]
attributes = [
    [each.domain, each.name, sorted(each.attributes)]
    for each in state.get_all_operator_schema() if not each.deprecated
]
print(json.dumps({
    "version": onnxruntime.__version__,
    "kernels": kernels,
    "attributes": attributes,
    "opset": max(int(n) for n, model in models["opset"].items() if loads(model)),
    "ir": max(int(n) for n, model in models["ir"].items() if loads(model)),
}))
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask every wheel and write the table."""
    parser = argparse.ArgumentParser(prog="python -m edgedistill.graph.make_tables")
    parser.add_argument("--out", type=Path, default=TABLE)
    told = parser.parse_args(arguments)
    answers = {}
    with tempfile.TemporaryDirectory() as folder:
        for version, numpy in WHEELS.items():
            answers[".".join(version.split(".")[:2])] = ask(version, numpy, Path(folder))
            print(f"onnxruntime {version}", file=sys.stderr)
    told.out.parent.mkdir(exist_ok=True)
    told.out.write_text(write(table(answers)))


def ask(version: str, numpy: str, folder: Path) -> Mapping[str, Any]:
    """Install one wheel into a folder of its own and ask it what it can."""
    place = folder / version
    for package in (f"onnxruntime=={version}", numpy):
        subprocess.run(
            [sys.executable, *PIP.split(), "--target", str(place), package],
            check=True,
        )
    answer = subprocess.run(
        [sys.executable, "-I", "-c", QUESTION, str(place)],
        input=json.dumps(_models()),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(answer.stdout.splitlines()[-1])


def table(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Fold the answers of all runtimes into one table.

    operators: {domain: {operator: {"kernels": {versions: span}, "attributes": {name: span}}}},
    where versions is "7-12" or "13-" (schema versions that the kernel serves) and a span lists the
    runtimes that have it, "1.17-" or "1.15-1.20".
    """
    runtimes = list(answers)
    kernels: dict[str, dict[str, dict[str, set[str]]]] = {domain: {} for domain in DOMAINS}
    names: dict[str, dict[str, dict[str, set[str]]]] = {domain: {} for domain in DOMAINS}
    for runtime, answer in answers.items():
        for domain, name, first, last in answer["kernels"]:
            if domain in kernels:
                versions = f"{first}-{last if last < 2**31 - 1 else ''}"
                kernels[domain].setdefault(name, {}).setdefault(versions, set()).add(runtime)
        for domain, name, attributes in answer["attributes"]:
            if domain in names:
                for each in attributes:
                    names[domain].setdefault(name, {}).setdefault(each, set()).add(runtime)
    operators = {
        domain: {
            name: {"kernels": _spans(kernels[domain][name], runtimes)}
            | (
                {"attributes": _spans(names[domain].get(name, {}), runtimes)}
                if domain  # the standard's attributes are told by its opset
                else {}
            )
            for name in sorted(kernels[domain])
        }
        for domain in DOMAINS
    }
    caps = {runtime: [answer["opset"], answer["ir"]] for runtime, answer in answers.items()}
    return {"caps": caps, "operators": operators}


def write(made: Mapping[str, Any]) -> str:
    """Write the table as JSON, one operator a line, so that changes can be read."""
    parts = []
    for domain, operators in made["operators"].items():
        lines = [
            f"   {json.dumps(name)}: {json.dumps(about, sort_keys=True, separators=(',', ':'))}"
            for name, about in operators.items()
        ]
        parts.append(f"  {json.dumps(domain)}: {{\n" + ",\n".join(lines) + "\n  }")
    caps = json.dumps(made["caps"])
    return f'{{\n "caps": {caps},\n "operators": {{\n' + ",\n".join(parts) + "\n }\n}\n"


def _spans(found: Mapping[str, Iterable[str]], runtimes: Sequence[str]) -> dict[str, str]:
    """Write the sets of runtimes as spans; a gap in the middle makes two ("1.15-1.16 1.18-")."""
    written = {}
    for name, having in sorted(found.items()):
        spans: list[list[str]] = []
        for index, runtime in enumerate(runtimes):
            if runtime not in set(having):
                continue
            if spans and index and spans[-1][1] == runtimes[index - 1]:
                spans[-1][1] = runtime
            else:
                spans.append([runtime, runtime])
        written[name] = " ".join(
            f"{first}-{'' if last == runtimes[-1] else last}" for first, last in spans
        )
    return written


def _models() -> dict[str, dict[str, str]]:
    """Make minimal models of each opset (at a low IR) and each IR (at a low opset), as hex."""
    from onnx import TensorProto, helper

    def one(opset: int, ir: int) -> str:
        value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
        graph = helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:]
        )
        opsets = [helper.make_opsetid("", opset)]
        return (
            helper.make_model(graph, opset_imports=opsets, ir_version=ir).SerializeToString().hex()
        )

    return {
        "opset": {str(opset): one(opset, 8) for opset in range(17, 31)},
        "ir": {str(ir): one(17, ir) for ir in range(8, 20)},
    }


if __name__ == "__main__":
    main()
