"""The probe: one model in a process of its own, driven by JSON lines. It imports nothing of ours.

    python -I probe.py        in a folder that holds the model and the rows; Python 3.8 suffices

It reads one JSON object a line on stdin and answers one a line on stdout; whatever else is printed
goes to stderr. Names are relative to the folder in which it was started and can't leave it.

    {"op": "hello"}           protocol, versions, processor, flags, cores
    {"op": "load", "model": .., "session": {..}, "rows": FOLDER, "name": ""}
                              load_ms, bare_mb, memory_mb
    {"op": "block", "order": [..], "drop": 3, "name": ""}      ms, one figure a run
    {"op": "run", "first": 0, "count": 8, "to": FOLDER, "name": ""}      outputs as .npy
    {"op": "memory"}          peak_mb (null where the system has no sound source)
    {"op": "quit"}

One probe may hold several small models by `name` (the yardstick's). Rows are an arrays folder: per
input one flat .npy and one of shapes. An error is {"error": ".."}, never a traceback.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import platform
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Any

PROTOCOL = 1
MOST_ROWS = 256  # for timing: they are held in memory
SESSION = {
    "threads": 1,
    "spinning": False,
    "arena": True,
    "prepacking": True,
    "optimization": "all",
    "config": {},
}
LEVELS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
# A graph of one Identity node (IR 8, opset 17): loading it pays for what every model needs.
BARE = base64.b64decode(
    "CAg6OgoQCgF4EgF5IghJZGVudGl0eRIEYmFyZVoPCgF4EgoKCAgBEgQKAggBYg8KAXkSCgoICAESBAoCCAFCBAoAEBE="
)


class Refused(Exception):
    """A request that can't be met; its text is the answer's error."""


def processor() -> dict[str, Any]:
    """Return {"name", "flags", "cores", "machine", "system"} of this host."""
    system, found = platform.system(), {"name": "", "flags": []}
    try:
        if system == "Linux":
            with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
                found = _cpuinfo(file.read())
        elif system == "Darwin":
            found = _sysctl()
    except OSError:
        pass
    return {
        "name": found["name"] or platform.processor() or platform.machine(),
        "flags": found["flags"],
        "cores": _cores(),
        "machine": platform.machine(),
        "system": system,
    }


def _cpuinfo(text: str) -> dict[str, Any]:
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        values.setdefault(key.strip().lower(), value.strip())
    flags = values.get("flags") or values.get("features") or ""
    name = values.get("model name") or values.get("hardware") or ""
    part = values.get("cpu part")
    if part and not values.get("model name"):
        parts = {"0xd03": "Cortex-A53", "0xd05": "Cortex-A55", "0xd08": "Cortex-A72"}
        parts.update({"0xd09": "Cortex-A73", "0xd0b": "Cortex-A76", "0xd0c": "Neoverse-N1"})
        name = (name + " " + parts.get(part, "ARM part " + part)).strip()
    return {"name": name, "flags": sorted(set(flags.split()))}


def _sysctl() -> dict[str, Any]:
    """Read macOS's own names and bring the ones that matter to Linux' spelling."""
    told = subprocess.run(["sysctl", "machdep.cpu", "hw.optional"], capture_output=True, text=True)
    values = dict(line.split(": ", 1) for line in told.stdout.splitlines() if ": " in line)
    flags = set()
    for key in ("machdep.cpu.features", "machdep.cpu.leaf7_features"):
        flags.update(values.get(key, "").lower().split())
    for key, flag in (
        ("hw.optional.arm.FEAT_DotProd", "asimddp"),
        ("hw.optional.arm.FEAT_I8MM", "i8mm"),
        ("hw.optional.avx2_0", "avx2"),
        ("hw.optional.avx512vnni", "avx512_vnni"),
    ):
        if values.get(key) == "1":
            flags.add(flag)
    return {"name": values.get("machdep.cpu.brand_string", ""), "flags": sorted(flags)}


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_mb(name: str) -> float | None:
    """Return VmHWM (peak) or VmRSS of this process in MB (10^6 bytes), None where there is none.

    Not `ru_maxrss`: it survives exec and shows the parent's peak.
    """
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            for line in file:
                if line.startswith(name + ":"):
                    return int(line.split()[1]) * 1024 / 1e6
    except (OSError, ValueError, IndexError):
        pass
    return None


def forget_peak() -> None:
    """Bring VmHWM down to what is resident now, where Linux allows it: imports have peaks too."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


class Probe:
    """The models by name, their rows, and one method an operation."""

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)
        self.models: dict[str, tuple[Any, list]] = {}  # name -> session, feeds

    def inside(self, name: object) -> str:
        """Return the path of a name in the probe's folder, or refuse."""
        if not isinstance(name, str) or not name:
            raise Refused(f"expected the name of a file, got {name!r}")
        path = os.path.realpath(os.path.join(self.root, name))
        if os.path.isabs(name) or not path.startswith(self.root + os.sep):
            raise Refused(f"'{name}' leaves the probe's folder")
        return path

    def hello(self, request: dict[str, Any]) -> dict[str, Any]:
        """Say what this is and where it runs."""
        import numpy
        import onnxruntime

        found = processor()
        return {
            "protocol": PROTOCOL,
            "onnxruntime": onnxruntime.__version__,
            "numpy": numpy.__version__,
            "python": platform.python_version(),
            "processor": found["name"],
            "flags": found["flags"],
            "cores": found["cores"],
            "machine": found["machine"],
            "system": found["system"],
            "pid": os.getpid(),
        }

    def load(self, request: dict[str, Any]) -> dict[str, Any]:
        """Read the rows, note the bare memory, load the model."""
        import onnxruntime

        name = str(request.get("name", ""))
        model = self.inside(request.get("model"))
        if not os.path.isfile(model):
            raise Refused(f"no file '{request['model']}' in the probe's folder")
        self.models.pop(name, None)
        rows = _rows(self.inside(request["rows"])) if request.get("rows") else []
        told = options(request.get("session") or {})
        onnxruntime.InferenceSession(BARE, told, providers=["CPUExecutionProvider"])
        gc.collect()
        forget_peak()
        bare = memory_mb("VmHWM")
        start = time.perf_counter()
        session = onnxruntime.InferenceSession(model, told, providers=["CPUExecutionProvider"])
        load_ms = (time.perf_counter() - start) * 1e3
        feeds = _feeds(rows, [each.name for each in session.get_inputs()])
        self.models[name] = (session, feeds)
        return {"load_ms": load_ms, "bare_mb": bare, "memory_mb": memory_mb("VmRSS")}

    def block(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run the rows in the given order, one after another, and time each run."""
        session, feeds = self._model(request)
        if len(feeds) > MOST_ROWS:
            raise Refused(f"{len(feeds)} rows: at most {MOST_ROWS} for timing")
        order, drop = request.get("order"), int(request.get("drop", 0))
        if not isinstance(order, list) or not order:
            raise Refused("order: expected a list of row numbers")
        for index in order:
            if not isinstance(index, int) or not 0 <= index < len(feeds):
                raise Refused(f"no row {index!r}: there are {len(feeds)}")
        clock, run, times = time.perf_counter, session.run, []
        gc.disable()
        try:
            for index in order:
                feed = feeds[index]
                start = clock()
                run(None, feed)
                times.append((clock() - start) * 1e3)
        finally:
            gc.enable()
        return {"ms": times[drop:]}

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Write the outputs of some rows: per output one flat .npy and one of shapes."""
        import numpy

        session, feeds = self._model(request)
        first, count = int(request.get("first", 0)), int(request.get("count", 1))
        if first < 0 or count < 1 or first + count > len(feeds):
            raise Refused(f"no rows {first} to {first + count}: there are {len(feeds)}")
        to = self.inside(request.get("to"))
        os.makedirs(to, exist_ok=True)
        names = [each.name for each in session.get_outputs()]
        found = [session.run(None, feed) for feed in feeds[first : first + count]]
        for place, name in enumerate(names):
            values = [numpy.asarray(each[place]) for each in found]
            file = os.path.join(to, urllib.parse.quote(name, safe=""))
            numpy.save(file + ".npy", numpy.concatenate([value.ravel() for value in values]))
            shapes = numpy.array([value.shape for value in values], dtype=numpy.int32)
            numpy.save(file + ".shapes.npy", shapes.reshape(count, values[0].ndim))
        return {"rows": count, "outputs": names}

    def memory(self, request: dict[str, Any]) -> dict[str, Any]:
        """Give the peak so far."""
        return {"peak_mb": memory_mb("VmHWM")}

    def _model(self, request: dict[str, Any]) -> tuple[Any, list]:
        name = str(request.get("name", ""))
        if name not in self.models:
            raise Refused("no model is loaded" + (f" as '{name}'" if name else ""))
        return self.models[name]


def options(session: dict[str, Any]) -> Any:
    """Return the SessionOptions of a session mapping (the same as edgedistill.graph.session's)."""
    import onnxruntime

    for name in session:
        if name not in SESSION:
            raise Refused(f"session: unknown setting '{name}'")
    told = dict(SESSION, **session)
    if told["optimization"] not in LEVELS:
        raise Refused(f"session: no optimization level '{told['optimization']}'")
    made = onnxruntime.SessionOptions()
    made.log_severity_level = 3
    made.intra_op_num_threads = int(told["threads"])
    made.inter_op_num_threads = 1
    made.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    made.enable_cpu_mem_arena = bool(told["arena"])
    level = LEVELS[told["optimization"]]
    made.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    entries = {
        "session.intra_op.allow_spinning": "1" if told["spinning"] else "0",
        "session.disable_prepacking": "0" if told["prepacking"] else "1",
    }
    entries.update(told["config"])
    for name, value in sorted(entries.items()):
        made.add_session_config_entry(name, str(value))
    return made


def _rows(folder: str) -> list[dict[str, Any]]:
    """Read an arrays folder: a list of {name: array}; up to `MOST_ROWS` rows are held in memory."""
    import numpy

    if not os.path.isdir(folder):
        raise Refused(f"no folder '{os.path.basename(folder)}' of rows")
    rows: list[dict[str, Any]] = []
    for file in sorted(os.listdir(folder)):
        if not file.endswith(".shapes.npy"):
            continue
        stem = os.path.join(folder, file[: -len(".shapes.npy")])
        shapes = numpy.load(stem + ".shapes.npy", allow_pickle=False)
        many = len(shapes) > MOST_ROWS
        flat = numpy.load(stem + ".npy", mmap_mode="r" if many else None, allow_pickle=False)
        rows = rows or [{} for _ in range(len(shapes))]
        if len(rows) != len(shapes):
            raise Refused(f"the arrays of '{os.path.basename(folder)}' differ in rows")
        name, start = urllib.parse.unquote(os.path.basename(stem)), 0
        for row, shape in zip(rows, shapes):  # noqa: B905 (Python 3.8 has no strict)
            size = int(numpy.prod(shape, dtype=numpy.int64))
            row[name] = flat[start : start + size].reshape(shape)
            start += size
        if start != flat.size:
            raise Refused(f"'{name}' holds {flat.size} values, its shapes say {start}")
    return rows


def _feeds(rows: list, names: list) -> list[dict[str, Any]]:
    """Keep of each row what the model takes."""
    for name in names:
        if rows and name not in rows[0]:
            raise Refused(f"the rows hold no '{name}', which the model takes")
    return [{name: row[name] for name in names} for row in rows]


def serve(lines: Iterable[str], answer: Callable[[dict[str, Any]], None], root: str = ".") -> None:
    """Answer each line until `quit` or the end of the input."""
    probe = Probe(root)
    known = ("hello", "load", "block", "run", "memory")
    for line in lines:
        if not line.strip():
            continue
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise Refused("expected a JSON object")
            op = request.get("op")
            if op == "quit":
                answer({})
                return
            if op not in known:
                raise Refused(f"unknown op {op!r}: known are {', '.join(known)}, quit")
            made = getattr(probe, op)(request)
        except Refused as error:
            made = {"error": str(error)}
        except Exception as error:  # whatever the runtime raises is an answer, not an end
            first = (str(error).strip().splitlines() or [""])[0]
            made = {"error": f"{type(error).__name__}: {first}".rstrip(": ")}
        answer(made)


def main() -> None:
    """Serve on stdin and stdout; what libraries print goes to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(made: dict[str, Any]) -> None:
        out.write(json.dumps(made) + "\n")
        out.flush()

    serve(sys.stdin, answer)


if __name__ == "__main__":
    main()
