from __future__ import annotations

import ast
import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgedistill.measure import probe, sample
from edgedistill.measure.transport import PROBE, Local, ProbeFailed

WIDTH = 16


def rows(count, width=WIDTH):
    random = np.random.Generator(np.random.PCG64(0))
    return [{"x": random.random((n % 5 + 1, width), np.float32)} for n in range(count)]


@pytest.fixture
def local():
    made = Local()
    yield made
    made.close()


def load(local, model, folder, **more):
    local.put(model, "model.onnx")
    local.put(folder, "rows")
    return local.ask("load", deadline=60, model="model.onnx", rows="rows", **more)


def test_it_parses_as_python_3_8_and_imports_only_the_standard_library_numpy_onnxruntime():
    tree = ast.parse(PROBE.read_text(), feature_version=(3, 8))
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            roots.add((node.module or "").partition(".")[0])
    assert roots - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}


def test_bare_is_a_graph_of_one_identity_node():
    import onnx

    model = onnx.load_from_string(probe.BARE)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Identity"]
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)
    assert base64.b64encode(probe.BARE)


def test_hello_names_the_protocol_and_the_processor(local):
    import onnxruntime

    answer = local.ask("hello", deadline=60)
    assert answer["protocol"] == 1
    assert answer["onnxruntime"] == onnxruntime.__version__
    assert answer["cores"] >= 1 and answer["processor"]
    assert answer["flags"] == probe.processor()["flags"]


def test_a_module_beside_the_probe_shadows_nothing(local):
    (local.folder / "onnxruntime.py").write_text("raise SystemExit('shadowed')")
    (local.folder / "json.py").write_text("raise SystemExit('shadowed')")
    assert local.ask("hello", deadline=60)["protocol"] == 1


def test_a_block_gives_one_figure_a_run_without_the_dropped(local, make_graph, sample_folder):
    answer = load(local, make_graph("tiny"), sample_folder)
    assert answer["load_ms"] > 0
    times = local.ask("block", deadline=60, order=[0, 0, 5, 3, 1], drop=2)["ms"]
    assert len(times) == 3 and all(ms > 0 for ms in times)


def test_run_writes_what_onnxruntime_gives(local, make_graph, sample_folder):
    import onnxruntime

    from edgedistill.data.arrays import Arrays

    model = make_graph("tiny")
    load(local, model, sample_folder)
    answer = local.ask("run", deadline=60, first=1, count=3, to="outputs")
    assert answer == {"rows": 3, "outputs": ["y"]}
    flat = np.load(local.folder / "outputs" / "y.npy")
    shapes = np.load(local.folder / "outputs" / "y.shapes.npy")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    given = Arrays(sample_folder)
    expected = [session.run(None, given.row(index))[0] for index in (1, 2, 3)]
    assert shapes.tolist() == [list(each.shape) for each in expected]
    np.testing.assert_array_equal(flat, np.concatenate([each.ravel() for each in expected]))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no VmHWM on this system")
def test_memory_counts_the_model_above_a_bare_runtime(local, make_graph, tmp_path):
    width = 1024  # 12 weights of 4.2 MB
    sample.write(tmp_path / "wide", rows(2, width))
    answer = load(local, make_graph("wide", layers=12, width=width), tmp_path / "wide")
    local.ask("block", deadline=60, order=[0, 1], drop=0)
    peak = local.ask("memory", deadline=60)["peak_mb"]
    assert 50 < peak - answer["bare_mb"] < 250
    assert answer["memory_mb"] <= peak + 1


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "link.onnx", "", None, "."])
def test_a_name_can_not_leave_the_folder(local, make_graph, name):
    make_graph("tiny")
    os.symlink("/etc/passwd", local.folder / "link.onnx")
    with pytest.raises(ProbeFailed, match=r"leaves the probe's folder|expected the name"):
        local.ask("load", deadline=60, model=name)


def test_an_output_folder_can_not_leave_either(local, make_graph, sample_folder, tmp_path):
    load(local, make_graph("tiny"), sample_folder)
    with pytest.raises(ProbeFailed, match="leaves"):
        local.ask("run", deadline=60, first=0, count=1, to=f"{tmp_path}/out")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"op": "blok"}, "unknown op 'blok'"),
        ({"op": "block", "order": [0]}, "no model is loaded"),
        ({"op": "load", "model": "missing.onnx"}, "no file 'missing.onnx'"),
        ({"op": "load", "model": "garbage.onnx"}, "InvalidProtobuf"),
        ({"op": "load", "model": "garbage.onnx", "session": {"thread": 1}}, "'thread'"),
        ({"op": "load", "model": "garbage.onnx", "rows": "none"}, "no folder 'none'"),
        ([1], "expected a JSON object"),
    ],
)
def test_every_error_is_an_answer_and_the_probe_lives_on(request_, message, tmp_path):
    (tmp_path / "garbage.onnx").write_bytes(b"no model" * 100)
    shutil.copy(PROBE, tmp_path / "probe.py")
    lines = "not json\n" + json.dumps(request_) + "\n" + json.dumps({"op": "memory"}) + "\n"
    done = subprocess.run(
        [sys.executable, "-I", "probe.py"], input=lines, capture_output=True, text=True,
        cwd=tmp_path, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0
    assert "Traceback" not in done.stdout + done.stderr
    first, second, third = map(json.loads, done.stdout.splitlines())
    assert set(first) == {"error"} and set(second) == {"error"} and "peak_mb" in third
    assert message in second["error"]


def test_rows_that_do_not_suit_are_refused(local, make_graph, tmp_path, sample_folder):
    sample.write(tmp_path / "other", [{"z": np.zeros(3, np.float32)}])
    with pytest.raises(ProbeFailed, match="hold no 'x'"):
        load(local, make_graph("tiny"), tmp_path / "other")
    local.put(sample_folder, "good")
    local.ask("load", deadline=60, model="model.onnx", rows="good")
    with pytest.raises(ProbeFailed, match="no row 6: there are 6"):
        local.ask("block", deadline=60, order=[6], drop=0)
    with pytest.raises(ProbeFailed, match="no rows 4 to 8"):
        local.ask("run", deadline=60, first=4, count=4, to="out")


def test_more_rows_than_can_be_timed_still_run(local, make_graph, tmp_path):
    sample.write(tmp_path / "many", rows(300))
    load(local, make_graph("tiny"), tmp_path / "many")
    with pytest.raises(ProbeFailed, match="at most 256"):
        local.ask("block", deadline=60, order=[0], drop=0)
    answer = local.ask("run", deadline=60, first=0, count=300, to="out")
    assert answer["rows"] == 300


def test_rows_cut_short_are_refused(local, make_graph, sample_folder):
    flat = np.load(sample_folder / "x.npy")
    np.save(sample_folder / "x.npy", flat[:-5])
    with pytest.raises(ProbeFailed, match=r"its shapes say|ValueError"):
        load(local, make_graph("tiny"), sample_folder)


def test_input_names_of_any_kind_reach_the_model(local, tmp_path):
    from onnx import TensorProto, helper

    info = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in ("a/b:0", "y/z")
    ]
    node = helper.make_node("Identity", ["a/b:0"], ["y/z"])
    model = helper.make_model(
        helper.make_graph([node], "named", info[:1], info[1:]),
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 17)],
    )
    (tmp_path / "named.onnx").write_bytes(model.SerializeToString())
    sample.write(tmp_path / "rows", [{"a/b:0": np.ones(2, np.float32)}])
    load(local, tmp_path / "named.onnx", tmp_path / "rows")
    assert local.ask("run", deadline=60, first=0, count=1, to="out")["outputs"] == ["y/z"]
    assert (local.folder / "out" / "y%2Fz.npy").is_file()


@pytest.mark.parametrize(
    "session",
    [
        {},
        {"threads": 2, "spinning": True, "arena": False, "prepacking": False},
        {"optimization": "basic", "config": {"session.dynamic_block_base": "4"}},
    ],
)
def test_its_session_options_are_those_that_score_and_ship(session):
    from edgedistill.graph import session as scoring

    keys = [
        "session.intra_op.allow_spinning",
        "session.disable_prepacking",
        *session.get("config", {}),
    ]

    def read(made):
        plain = {
            name: str(getattr(made, name))
            for name in dir(made)
            if not name.startswith("_") and not callable(getattr(made, name))
        }
        return plain, [made.get_session_config_entry(key) for key in keys]

    assert read(probe.options(session)) == read(scoring.options(session))
    assert dict(scoring.DEFAULT) == probe.SESSION


def test_arm_processors_are_named_by_their_part():
    text = "processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd0b\n"
    assert probe._cpuinfo(text) == {"name": "Cortex-A76", "flags": ["asimd", "asimddp", "fp"]}
