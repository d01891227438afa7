"""The commands over bundles as they are typed: pairs, failures, warnings, control characters."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedistill import bundle, cli
from edgedistill.bundle import Contents

Ran = tuple[int, str, str]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., Ran]:
    """Run one command in this process; returns its exit code and its two streams."""
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["edgedistill", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return ended.value.code, said.out, said.err

    return run


@pytest.fixture
def pairs(tmp_path: Path, text_contents: Contents) -> Path:
    """A bundle whose model takes pairs of texts."""
    contents = replace(text_contents, encoder={**text_contents.encoder, "pair": True})
    return bundle.write(tmp_path / "pairs", contents, prove=lambda opened: None).folder


@pytest.fixture
def elsewhere(tmp_path: Path, text_contents: Contents, monkeypatch) -> Path:
    """A bundle whose int8 arithmetic is exact on other processors than this one."""
    from edgedistill.measure import host

    monkeypatch.setattr(host, "instructions", lambda: "x86-64+other")
    graph = replace(text_contents.graph, precision="int8")
    contents = replace(text_contents, graph=graph)
    return bundle.write(tmp_path / "int8", contents, prove=lambda opened: None).folder


def test_a_pair_bundle_takes_its_texts_two_by_two(command, pairs: Path):
    code, out, _ = command("predict", pairs, "the rain", "the sun", "a song", "a film", "--json")
    first, second = json.loads(out)
    assert code == 0 and first["input"] == ["the rain", "the sun"]
    assert [row["top"][0]["label"] for row in (first, second)] == ["weather", "music & film"]
    code, out, _ = command("predict", pairs, "the rain", "the sun", "a song", "a film")
    assert code == 0 and "the rain | the sun" in out


@pytest.mark.parametrize("count", [1, 3])
def test_an_odd_count_of_texts_is_said(command, pairs: Path, count: int):
    code, out, err = command("predict", pairs, *["a text"] * count)
    assert (code, out) == (2, "") and "two by two" in err and str(count) in err


def test_one_text_is_still_one_text(command, made: Path):
    code, out, err = command("predict", made, "the rain", "a song", "pay")
    assert code == 0 and out.count("the rain") == 1 and not err


@pytest.mark.parametrize("how", [("--format", "json"), ("--format=json",)])
@pytest.mark.parametrize("wrong", [("none",), (".", "--target", "fone"), (".", "--nonsense")])
def test_check_fails_with_a_document_where_json_is_asked(command, how, wrong):
    code, out, err = command("check", *wrong, *how)
    assert code == 2 and json.loads(out)["error"]["exit_code"] == 2
    assert len(err.splitlines()) == 1


def test_check_says_what_a_named_limit_lacks(command, made: Path, monkeypatch):
    from edgedistill.measure import session
    from edgedistill.records import Figures, Measured, Yardstick

    figures = {"bundle": Figures(size_mb=1.0)}
    made_up = Measured(figures, Yardstick(1.0, 1.0, 1.0), {}, 0.0)
    monkeypatch.setattr(session, "measure", lambda subjects, target, **named: made_up)
    code, out, err = command("check", made, "--limit", "memory_mb=5")
    assert code == 2 and "memory_mb" in out and "unchecked" in out
    assert err.splitlines()[-1] == "edgedistill: memory_mb can't be checked: not measured"
    code, out, err = command("check", made, "--limit", "memory_mb=5", "--format", "json")
    assert code == 2 and json.loads(out)["exit_code"] == 2 and "memory_mb can't be" in err
    code, out, err = command("check", made, "--limit", "max_slowdown=2", "--format", "json")
    assert code == 2 and json.loads(out)["error"]["exit_code"] == 2 and "--baseline" in err


@pytest.mark.parametrize("verb", ["predict", "eval", "check", "bench"])
def test_another_processor_is_warned_of_once_on_stderr(command, elsewhere, monkeypatch, verb: str):
    from edgedistill.measure import session
    from edgedistill.records import Figures, Measured, Yardstick

    def measure(subjects, target, **named):
        figures = {each.name: Figures(failed="not here") for each in subjects}
        return Measured(figures, Yardstick(1.0, 1.0, 1.0), {}, 0.0)

    monkeypatch.setattr(session, "measure", measure)
    code, out, err = command(verb, elsewhere, *(["a song"] if verb == "predict" else []))
    assert code in (0, 1), err
    assert err.count("not among those") == 1 and "not among those" not in out


@pytest.mark.parametrize("shape", ["text", "md", "json", "github"])
def test_no_control_character_reaches_the_terminal(
    command, tmp_path: Path, text_contents: Contents, monkeypatch, shape: str
):
    from edgedistill.measure import session
    from edgedistill.records import Figures, Measured, Yardstick

    figures = Figures(failed="died \x1b[31m\x9b31m\u202e of it")
    made = Measured({"bundle": figures}, Yardstick(1.0, 1.0, 1.0), {}, 0.0, ("a\x1b\u202eb",))
    monkeypatch.setattr(session, "measure", lambda subjects, target, **named: made)
    contents = replace(text_contents, target="ph\x9b\u202eone")
    out = tmp_path / "odd"
    bundle.write(out, contents, prove=lambda opened: None)
    code, said, err = command("check", out, "--format", shape)
    assert code == 0 and not {"\x1b", "\x9b", "\u202e"} & {*said, *err}


def test_eval_escapes_what_labels_and_files_hold(command, tmp_path: Path, text_contents: Contents):
    odd = ("wea\x1bther\u202e", "money\x9b", "music")
    contents = replace(text_contents, labels=odd)
    out = bundle.write(tmp_path / "odd", contents, prove=lambda opened: None).folder
    folder = tmp_path / "ro\x1bws\u202e"
    folder.mkdir()
    rows = [("the rain", odd[0]), ("sun", odd[0]), ("pay", odd[1]), ("bank euro", odd[1])]
    lines = ["text,label", *(f"{text},{label}" for text, label in rows)]
    (folder / "test.csv").write_text("\n".join(lines) + "\n", "utf-8")
    for more in ((), ("--json",)):
        code, said, err = command("eval", out, "--data", folder, *more)
        assert code == 0 and not {"\x1b", "\x9b", "\u202e"} & {*said, *err}
    assert json.loads(said)["score"]["rows"] == 4


def test_one_row_is_one_row(command, made: Path, tmp_path: Path):
    (tmp_path / "one.csv").write_text("text,label\nthe rain,weather\n")
    code, out, _ = command("eval", made, "--data", tmp_path / "one.csv")
    assert code == 0 and " on 1 row of one.csv" in out
    (tmp_path / "one.csv").write_text("text,label\nthe rain,wether\nthe sun,weather\n")
    code, _, err = command("eval", made, "--data", tmp_path / "one.csv")
    assert code == 2 and "1 of 2 rows of one.csv has a label that the bundle lacks" in err


def test_inspect_warns_on_stderr_where_it_can_write_no_pages(command, copied: Path):
    copied.with_name("bundle.inspect").write_text("mine")
    code, out, err = command("inspect", copied, "--json")
    assert code == 0 and json.loads(out)["task"] == "text-classification"
    assert err.startswith("warning") and len(err.splitlines()) == 1


def test_bench_hands_target_and_seconds_to_a_suite(command, monkeypatch):
    from edgedistill import suites

    seen = []

    def run(suite, settings, progress, *, target):
        seen.append((suite, settings, target))
        return []

    monkeypatch.setattr(suites, "run", run)
    code, out, _ = command("bench", "starter", "--target", "embedded", "--seconds", 3, "--json")
    assert (code, json.loads(out)) == (0, [])
    command("bench", "starter", "--json")
    assert seen == [("starter", {"measure.seconds": 3.0}, "embedded"), ("starter", {}, None)]


def test_a_file_that_is_read_as_a_text_is_warned_of(command, made: Path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test.csv").write_text("text,label\nthe rain,weather\n")
    (tmp_path / "rain").mkdir()
    code, out, err = command("predict", made, "test.csv", "rain", "x" * 5000, "a\nb")
    assert code == 0 and out.count(" %  ") == 12
    (line,) = err.splitlines()
    assert line.startswith("warning") and "'test.csv' is a file" in line and "--data" in line
    assert json.loads(command("predict", made, "test.csv", "--json")[1])


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_text_is_said(command, made: Path, text: str):
    code, out, err = command("predict", made, "the rain", text)
    assert (code, out) == (2, "") and "argument 2 is empty" in err


@pytest.fixture
def wrong(tmp_path: Path, made: Path, monkeypatch) -> Path:
    """A folder of wrong files, and the working folder."""
    import onnx

    monkeypatch.chdir(tmp_path)
    (tmp_path / "noise.onnx").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "half.onnx").write_bytes((made / "model.onnx").read_bytes()[:300])
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "gone.onnx").symlink_to("nowhere")
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "odd\x1b.onnx").write_bytes(b"odd")
    outside = onnx.load(made / "model.onnx")
    onnx.save(
        outside, "outside.onnx", save_as_external_data=True, location="w.bin", size_threshold=100
    )
    (tmp_path / "w.bin").rename(tmp_path / "moved.bin")
    return tmp_path


FILES = (
    "noise.onnx", "empty.onnx", "half.onnx", "folder.onnx", "gone.onnx", "notes.txt", "nowhere",
    "odd\x1b.onnx", "outside.onnx", ".",
)  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("verb", ["predict", "verify", "inspect", "bench", "eval", "check"])
def test_a_wrong_file_is_one_clear_line(command, wrong: Path, verb: str, name: str):
    code, out, err = command(verb, name, *(["text"] if verb == "predict" else []))
    assert (code, out) == (2, ""), err
    assert len(err.splitlines()) == 1 and err.startswith("edgedistill: ") and "\x1b" not in err


def test_a_graph_with_its_weights_beside_it_is_described(command, wrong: Path):
    (wrong / "moved.bin").rename(wrong / "w.bin")
    code, out, err = command("inspect", "outside.onnx", "--json")
    assert code == 0, err
    assert json.loads(out)["nodes"] > 0


def table_of(path: Path, entries: int) -> Path:
    """Write a graph that looks pieces up in a table of few entries."""
    ports = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", "length", 4])
    table = numpy_helper.from_array(np.ones((entries, 4), np.float32), "table")
    node = helper.make_node("Gather", ["table", "input_ids"], ["out"])
    model = helper.make_model(
        helper.make_graph([node], "g", ports, [out], [table]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, path)
    return path


def test_bench_measures_a_graph_of_a_tiny_vocabulary_and_two_runs_compare(command, tmp_path):
    graph = table_of(tmp_path / "tiny.onnx", 3)
    code, out, err = command("bench", graph, "--seconds", 0.5, "--json")
    assert code == 0, err
    row = json.loads(out)["rows"][0]
    assert row["latency_ms"]["p90"] > 0 and row["failed"] is None
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    told = json.loads(out)
    told["rows"][0]["latency_ms"]["steady"] = True  # though others may use this machine
    before.write_text(json.dumps(told))
    for name in ("p90", "p90_low", "p90_high"):
        told["rows"][0]["latency_ms"][name] *= 100
    after.write_text(json.dumps(told))
    code, said, _ = command("bench", "--compare", before, after)
    assert code == 0 and " 100.00 " in said and "slower" in said and "the yardstick" in said
    assert verdict(command("bench", "--compare", before, before)[1]) == ""


def verdict(said: str) -> str:
    """Return what the first row of a comparison ends with, after its ratio."""
    return said.splitlines()[1].partition(")")[2].partition("x")[2].strip()


YARDSTICK = {"fp32_gflops": 100.0, "int8_gops": 400.0, "node_us": 2.0}


def measurement(path: Path, p90: float, *, steady: bool = True, slow: float = 1.0, **more) -> Path:
    """Write what bench --json printed, of a host `slow` times as slow."""
    latency = {"p90": p90, "p90_low": 0.99 * p90, "p90_high": 1.01 * p90, "steady": steady}
    rates = {name: value / slow for name, value in YARDSTICK.items()}
    yardstick = {**rates, "node_us": slow * YARDSTICK["node_us"], **more}
    path.write_text(json.dumps({"rows": [{"name": "m", "latency_ms": latency}],
                                "yardstick": yardstick}))  # fmt: skip
    return path


@pytest.mark.parametrize(
    ("p90", "host", "said"),
    [
        (1.03, {}, ""),  # apart within their runs, and yet the same bundle measured twice
        (1.06, {}, ""),
        (1.09, {}, "slower"),
        (0.9, {}, "faster"),
        (2.0, {"slow": 2.0}, ""),  # on another machine the yardstick took as long
        (1.0, {"slow": 0.5}, "slower"),
        (2.0, {"steady": False}, "unsteady: no verdict"),
    ],
)
def test_two_runs_differ_beyond_five_percent_over_the_yardstick(command, tmp_path, p90, host, said):
    before = measurement(tmp_path / "before.json", 1.0)
    after = measurement(tmp_path / "after.json", p90, **host)
    code, out, _ = command("bench", "--compare", before, after)
    assert code == 0 and verdict(out) == said
    assert "over the yardstick" in out.splitlines()[-1] and "5 %" in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "is no measurement"),
        ("[1", "is no measurement"),
        ('{"rows": [], "yardstick": {}}', "is no measurement"),
        (None, "no such file while reading"),
    ],
)
def test_compare_refuses_what_is_no_measurement(command, tmp_path, text, words):
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    code, _, err = command("bench", "--compare", path, path)
    assert code == 2 and words in err and len(err.splitlines()) == 1


def test_bench_takes_models_or_a_comparison(command):
    for line in (("bench",), ("bench", "x.onnx", "--compare", "a", "b")):
        code, _, err = command(*line)
        assert code == 2 and "--compare A B alone" in err


@pytest.mark.skipif(not shutil.which("qemu-x86_64-static"), reason="no qemu-user-static here")
def test_eval_as_another_processor_scores_and_compares(command, tmp_path, text_contents: Contents):
    out = bundle.write(tmp_path / "b", text_contents, prove=lambda opened: None).folder
    code, said, err = command("eval", out, "--cpu", "nehalem", "--json")
    assert code == 0, err
    told = json.loads(said)
    assert told["cpu"] == "Nehalem" and told["score"] is None and told["agreement"] == 100
    (tmp_path / "rows").mkdir()
    label = text_contents.labels[0]
    (tmp_path / "rows" / "test.csv").write_text(f"text,label\nthe rain,{label}\nsun,{label}\n")
    code, said, _ = command("eval", out, "--cpu", "nehalem", "--data", tmp_path / "rows")
    assert code == 0 and "2 test rows of rows" in said and "there" in said
    assert "the manifest does not name" not in said
    graph = replace(text_contents.graph, processors=("arm64",))
    contents = replace(text_contents, graph=graph)
    out = bundle.write(tmp_path / "arm", contents, prove=lambda opened: None).folder
    code, said, _ = command("eval", out, "--cpu", "nehalem")
    assert code == 0 and "the manifest does not name x86-64: " in said
