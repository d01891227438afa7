"""check and eval over finished bundles: afresh, recorded, paired, and in every format."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from edgedistill import bench, bundle
from edgedistill import report as reports
from edgedistill.bundle import Contents, Evidence, commands, cost, evidence, gate, given
from edgedistill.errors import BundleError, DataError, TargetError, UsageError
from edgedistill.judge.evidence import Evaluation
from edgedistill.records import Figures, Latency, Measured, Yardstick

TEXTS = [
    ("the rain is cold", "weather"), ("the sun", "weather"), ("wind wind", "weather"),
    ("pay the bank", "money"), ("euro account", "money"), ("money is money", "money"),
    ("what a song", "music & film"), ("play the film", "music & film"), ("band", "money"),
]  # fmt: skip


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A folder with a test split and nothing else; one row of nine has another label."""
    folder = tmp_path / "rows"
    folder.mkdir()
    lines = ["text,label", *(f"{text},{label}" for text, label in TEXTS)]
    (folder / "test.csv").write_text("\n".join(lines) + "\n")
    return folder


def kept(count: int = len(TEXTS)) -> Evidence:
    """Evidence of a baseline that answers every row rightly."""
    truth = np.array([("weather", "money", "music & film").index(label) for _, label in TEXTS])
    outputs = 9 * np.eye(3, dtype=np.float32)[truth]
    digests = [bundle.digest({"text": text}) for text, _ in TEXTS]
    return Evidence(digests[:count], truth[:count], outputs[:count], outputs[:count])


@pytest.fixture
def write(tmp_path: Path, text_contents: Contents):
    def made(evidence: Evidence | None = None, **changes) -> Path:
        proof = replace(text_contents.proof, evidence=evidence, **changes)
        out = tmp_path / "phone"
        bundle.write(out, replace(text_contents, proof=proof), prove=lambda opened: None)
        return out

    return made


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list:
    """Replace the measuring run (it has tests of its own) by fixed figures; keeps the subjects."""
    from edgedistill.measure import session

    seen = []

    def measure(subjects, target, **named):
        seen.append((subjects[0], target, named))
        latency = Latency(1.0, 2.0, 1.9, 2.1, None, 3.0, 200, 20, True)
        figures = Figures(
            latency=latency, load_ms=5.0, memory_mb=1.0,
            size_mb=subjects[0].model.stat().st_size / 1e6,
        )  # fmt: skip
        return Measured({"bundle": figures}, Yardstick(100.0, 400.0, 2.0), {"cores": 2}, 1.0)

    monkeypatch.setattr(session, "measure", measure)
    return seen


def states(result: gate.CheckResult) -> dict[str, str]:
    return {one.limit: one.state for one in result.checks}


def test_without_rows_the_score_is_the_recorded_one(write, measured: list):
    report = {
        "chosen": "s",
        "rows": [
            {
                "name": "s",
                "score": {
                    "metric": "accuracy",
                    "test": {"value": 90.0, "low": 88.0, "high": 92.0, "rows": 500},
                },
                "drop_points": {"test": {"value": 0.2, "low": -0.1, "high": 0.5}},
            }
        ],
    }
    result = gate.check(_reported(write, report), gate.Asked(limits={"min_score_points": 80}))
    by_name = {one.limit: one for one in result.checks}
    assert by_name["max_drop_points"].state == "holds"
    assert by_name["max_drop_points"].reason == gate.RECORDED
    assert by_name["min_score_points"].value == 90.0
    assert by_name["latency_p90_ms"].state == "unchecked"
    assert result.score["source"] == "recorded" and result.verdict == "fits_closely"
    assert result.exit_code == 0


def _reported(write, report: dict) -> Path:
    """Write a bundle, then give it another report and a manifest that agrees."""
    from edgedistill.bundle import manifest as manifests

    out = write()
    (out / "report.json").write_text(json.dumps(report))
    said = json.loads((out / "manifest.json").read_text())
    said["files"] = manifests.list_files(out)
    (out / "manifest.json").write_text(json.dumps(said))
    return out


@pytest.mark.parametrize(
    "report",
    [[], {}, {"chosen": "s", "rows": "x"}, {"chosen": "s", "rows": [{"name": "s", "score": 5}]}],
)  # fmt: skip
def test_a_report_without_figures_leaves_the_checks_open(write, measured: list, report):
    result = gate.check(_reported(write, report), gate.Asked())
    assert states(result)["max_drop_points"] == "unchecked" and result.score is None


def test_with_rows_the_score_is_fresh_and_the_drop_is_paired(write, rows: Path, measured: list):
    out = write(kept())
    result = commands.check(out, data=str(rows), limits={"min_score_points": "80"})
    assert result.score["source"] == "fresh" and result.score["rows"] == 9
    assert result.score["value"] == pytest.approx(100 * 8 / 9)
    assert result.drop.value == pytest.approx(100 / 9)
    assert states(result)["max_drop_points"] == "misses" and result.exit_code == 1


@pytest.mark.parametrize("count", [0, 8, None])
def test_rows_that_the_evidence_lacks_leave_the_drop_unchecked(
    write, rows: Path, measured: list, count: int | None
):
    out = write(None if count is None else kept(count))
    result = commands.check(out, data=str(rows))
    (drop,) = [one for one in result.checks if one.limit == "max_drop_points"]
    assert drop.state == "unchecked" and drop.value is None
    assert ("no 'phone.evidence.npz'" if count is None else "lacks") in drop.reason


def test_evidence_of_a_bundle_that_lay_there_before_is_none(write, rows: Path, measured: list):
    """A build that is killed when its bundle is in place leaves that of the one before."""
    out = write(kept())
    place = out.with_name("phone.evidence.npz")
    old = evidence.read(place, bundle.load(out).labels)
    evidence.write(place, kept(), bundle.load(out).labels, "0" * 64)
    assert old is not None and old.payload != "0" * 64
    result = commands.check(out, data=str(rows))
    (drop,) = [one for one in result.checks if one.limit == "max_drop_points"]
    assert drop.state == "unchecked" and "of another bundle" in drop.reason


def test_strict_takes_neither_what_is_close_nor_what_is_unchecked(write, measured: list):
    out = write()
    assert gate.check(out, gate.Asked()).verdict == "fits_closely"
    strict = gate.check(out, gate.Asked(strict=True))
    assert strict.verdict == "misses" and strict.exit_code == 1


def test_limits_are_the_bundles_or_the_targets_or_those_named(write, measured: list):
    out = write()
    own = {one.limit: one.allowed for one in gate.check(out, gate.Asked()).checks}
    assert own["latency_p90_ms"] == 20.0 and own["size_mb"] == 8.0
    changed = commands.check(out, target="embedded", limits={"memory_mb": "0.5"})
    assert changed.target == "embedded" and states(changed)["memory_mb"] == "misses"
    with pytest.raises(TargetError, match=r"size_mb"):
        commands.check(out, limits={"size_mbs": "1"})
    with pytest.raises(TargetError, match="phones"):
        commands.check(out, target="phones")
    with pytest.raises(UsageError, match="limits"):
        commands.check(out, limit={})


def test_an_unknown_target_in_the_manifest_is_measured_without_an_estimate(
    tmp_path: Path, text_contents: Contents, measured: list
):
    out = tmp_path / "out"
    for name in ("mine", "/etc/passwd.toml", "x.toml.toml"):
        contents = replace(text_contents, target=name)
        bundle.write(out, contents, prove=lambda opened: None)
        gate.check(out, gate.Asked())
        assert measured[-1][1].device is None and measured[-1][1].name == name


@pytest.mark.parametrize(
    ("device", "known"),
    [
        ({"int8_gops": 100, "fp32_gflops": 34.0, "node_us": None, "more": 1}, True),
        ({"int8_gops": 100}, False), ({"int8_gops": -1, "fp32_gflops": 3}, False),
        ({"int8_gops": "x", "fp32_gflops": 3}, False), (None, False), ([], False),
    ],
)  # fmt: skip
def test_the_rates_of_a_target_of_ones_own_come_from_the_report(
    tmp_path: Path, text_contents: Contents, measured: list, device, known: bool
):
    report = {**text_contents.proof.report, "target": {"name": "roomy", "device": device}}
    proof = replace(text_contents.proof, report=report)
    bundle.write(
        tmp_path / "out",
        replace(text_contents, target="roomy", proof=proof),
        prove=lambda opened: None,
    )
    gate.check(tmp_path / "out", gate.Asked())
    found = measured[-1][1].device
    assert (found is not None) == known and (not known or found.fp32_gflops == 34.0)


def test_the_model_is_timed_with_its_session_and_products(write, rows: Path, measured: list):
    from edgedistill.data.arrays import Arrays

    out = write()
    seen = {}
    from edgedistill.measure import session

    fixed = session.measure

    def measure(subjects, target, **named):
        sample = Arrays(subjects[0].sample)
        seen["lengths"] = [sample.value("input_ids", i).shape for i in range(len(sample))]
        seen["longest"] = sample.value("input_ids", subjects[0].longest).shape
        return fixed(subjects, target, **named)

    session.measure = measure
    try:
        commands.check(out, data=str(rows), on_device=True)
    finally:
        session.measure = fixed
    subject, _, named = measured[-1]
    assert subject.session["threads"] == 1 and named["on_device"] is True
    assert subject.model == out / "model.onnx"
    assert subject.timed == 9 and seen["lengths"][:9] == sorted(seen["lengths"][:9])
    assert subject.longest == 9 and seen["longest"] == (1, 16)  # max_length, for memory alone
    assert set(subject.products) == {"fp32", "int8"}


def test_golden_outputs_that_do_not_come_are_a_miss(write, measured: list, monkeypatch):
    from edgedistill.bundle.golden import Agreement

    found = Agreement(5, 0.1, 2.0, 0.4, False, "golden row 3: an output differs")
    monkeypatch.setattr(gate, "compare", lambda opened: found)
    result = gate.check(write(), gate.Asked())
    assert states(result)["golden_difference"] == "misses" and result.verdict == "misses"


EARLIER = {
    "chosen": "s",
    "environment": {"yardstick": {"fp32_gflops": 50.0, "int8_gops": 200.0, "node_us": 4.0}},
    "rows": [
        {
            "name": "s",
            "score": {"metric": "accuracy", "test": {"value": 90.0}},
            "latency_ms": {"p50": 1.0},
        }
    ],
}


def test_an_earlier_report_bounds_regression_and_slowdown(
    write, rows: Path, measured: list, tmp_path: Path
):
    file = tmp_path / "report.json"
    file.write_text(json.dumps(EARLIER))
    limits = {"max_regression_points": 0.5, "max_slowdown": 1.5}
    result = commands.check(write(), data=str(rows), limits=limits, baseline=str(file))
    by_name = {one.limit: one for one in result.checks}
    assert by_name["max_regression_points"].value == pytest.approx(90 - 100 * 8 / 9)
    # the same milliseconds on a host twice as fast: twice as slow over the yardstick
    assert by_name["max_slowdown"].value == pytest.approx(2.0)
    assert by_name["max_slowdown"].state == "misses"
    golden = commands.check(write(), limits=limits, baseline=str(file))
    (slow,) = [one for one in golden.checks if one.limit == "max_slowdown"]
    assert slow.state == "unchecked" and "--data" in slow.reason  # golden texts are no test rows
    file.write_text("{")
    with pytest.raises(UsageError, match="no report"):
        commands.check(write(), baseline=str(file))
    with pytest.raises(UsageError, match="does not exist"):
        commands.check(write(), baseline=str(tmp_path / "none.json"))


@pytest.fixture
def earlier(tmp_path: Path):
    def made(**changes) -> str:
        (tmp_path / "earlier.json").write_text(json.dumps({**EARLIER, **changes}))
        return str(tmp_path / "earlier.json")

    return made


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ("max_regression_points", "--baseline REPORT.json"),
        ("max_slowdown", "--baseline REPORT.json"),
        ("max_own_drop_points", "no drop on own rows"),
    ],
)
def test_a_limit_that_nothing_can_be_held_against_is_refused_unmeasured(
    write, rows: Path, measured: list, limit: str, says: str
):
    for data in (None, str(rows)):
        with pytest.raises(UsageError, match=f"--limit {limit}.*{says}"):
            commands.check(write(), data=data, limits={limit: "1"})
    assert not measured


def test_a_named_limit_that_could_not_be_checked_is_2(write, rows: Path, measured: list, earlier):
    limits = {"max_drop_points": "5"}
    result = commands.check(write(), data=str(rows), limits=limits)
    assert result.verdict == "unchecked" and result.exit_code == 2
    assert [one.limit for one in result.unproven] == ["max_drop_points"]
    assert "limit" in commands.told(result)[0] and "fits" not in commands.told(result)[0]
    assert json.loads(commands.told(result, "json")[0])["exit_code"] == 2
    told = commands.told(result, "github")
    assert told[-1].startswith("::error")
    assert any(line.startswith("::error") and "max_drop_points" in line for line in told[:-1])
    assert commands.check(write(), data=str(rows)).exit_code == 0  # its own, that nobody named
    missed = commands.check(write(), data=str(rows), limits={**limits, "memory_mb": "0.5"})
    assert missed.exit_code == 1
    without = earlier(rows=[{"name": "s", "latency_ms": {"p50": 1.0}}])
    named = {"max_regression_points": "1"}
    result = commands.check(write(), data=str(rows), limits=named, baseline=without)
    assert result.exit_code == 2 and "holds no test score" in result.unproven[0].reason
    result = commands.check(write(), limits=named, baseline=earlier())
    assert result.exit_code == 2 and "give rows (--data)" in result.unproven[0].reason


@pytest.mark.parametrize(
    "content", [[], {"files": {}, "figures": {}}, {"rows": [], "yardstick": {}}, {"chosen": None}]
)
def test_what_is_no_report_is_no_baseline(made: Path, tmp_path: Path, measured: list, content):
    file = tmp_path / "other.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"other\.json' is no report: expected the report\.json"):
        commands.check(made, baseline=str(file))
    with pytest.raises(UsageError, match=r"is a folder: name the report\.json in it"):
        commands.check(made, baseline=str(tmp_path))
    assert not measured


@pytest.mark.parametrize("shape", ["text", "md", "json", "github"])
def test_both_comparisons_are_shown_without_a_limit(
    write, rows: Path, measured: list, earlier, shape: str
):
    result = commands.check(write(), data=str(rows), baseline=earlier())
    text = "\n".join(commands.told(result, shape))
    if shape == "json":
        first, second = json.loads(text)["against"]
        assert (first["figure"], second["figure"]) == ("regression_points", "slowdown")
        assert first["value"] == pytest.approx(90 - 100 * 8 / 9) and second["value"] == 2.0
    else:
        assert "regression 1.1 points" in text and "slowdown 2.00 times" in text
    assert not {"max_slowdown", "max_regression_points"} & states(result).keys()
    without = commands.check(write(), data=str(rows), baseline=earlier(environment={}))
    assert "slowdown unknown (the earlier report holds no yardstick)" in " ".join(
        commands.told(without)
    )


@pytest.mark.parametrize("shape", ["text", "md", "json", "github"])
def test_a_check_is_told_without_raw_control_characters(write, measured: list, shape: str):
    result = replace(gate.check(write(), gate.Asked(strict=True)), bundle="a\x1b[31m|::x\nb")
    lines = commands.told(result, shape)
    assert "\x1b" not in "".join(lines) and all("\n" not in line.strip() for line in lines)
    if shape == "json":
        told = json.loads(lines[0])
        assert len(lines) == 1 and told["verdict"] == "misses" and told["exit_code"] == 1
        assert {"limit", "allowed", "value", "state", "reason"} <= set(told["checks"][0])
    if shape == "github":
        assert all(line.startswith("::") for line in lines)
        assert any(line.startswith("::error") for line in lines)


def test_an_unknown_format_names_the_nearest(write, measured: list):
    with pytest.raises(UsageError, match="github"):
        commands.told(gate.check(write(), gate.Asked()), "githup")


def test_eval_scores_the_test_rows_and_pairs_them(write, rows: Path):
    found = commands.eval_(write(kept()), str(rows))
    assert found.score["value"] == pytest.approx(100 * 8 / 9) and found.score["rows"] == 9
    assert found.drop_points["value"] == pytest.approx(100 / 9)
    assert found.agreement == pytest.approx(100 * 8 / 9)
    import dataclasses

    json.dumps(dataclasses.asdict(found), allow_nan=False)
    assert any("accuracy" in line for line in found.lines())
    without = commands.eval_(write(None), str(rows))
    assert without.drop_points is None and "evidence" in without.drop_reason


def test_eval_without_rows_runs_the_golden_vectors(made: Path):
    found = commands.eval_(made)
    assert found.score is None and found.golden["holds"]
    assert list(found.lines())


def test_labels_that_the_bundle_lacks_are_named(made: Path, tmp_path: Path):
    folder = tmp_path / "rows"
    folder.mkdir()
    lines = [f"{text},{label.replace('money', 'moneys')}\n" for text, label in TEXTS]
    (folder / "test.csv").write_text("text,label\n" + "".join(lines))
    with pytest.raises(
        DataError, match=r"4 of 9 test rows of rows .*'moneys'.*did you mean 'money'"
    ):
        commands.eval_(made, str(folder))


def test_a_damaged_bundle_is_no_gate(copied: Path):
    content = bytearray((copied / "report.md").read_bytes())
    content[0] ^= 1
    (copied / "report.md").write_bytes(content)
    with pytest.raises(BundleError, match=r"report\.md"):
        gate.check(copied, gate.Asked())


def test_a_report_of_ours_serves_as_the_earlier_one(write, rows: Path, measured: list):
    from edgedistill.records import Choice, Score

    near = Score(90.0, 85.0, 95.0, 9)
    evaluation = Evaluation("accuracy", "points", near, {"accuracy": near})
    latency = Latency(0.8, 1.6, 1.5, 1.7, None, 3.0, 200, 20, True)
    row = reports.Row("s", "candidate", None, test=evaluation, figures=Figures(latency=latency))
    yardstick = {"fp32_gflops": 100.0, "int8_gops": 400.0, "node_us": 2.0}
    build = reports.Build(
        job={}, target={"name": "phone", "limits": {}}, data={}, source_model={}, seconds={},
        environment={"yardstick": yardstick}, version="0",
    )  # fmt: skip
    earlier = reports.make(build, [row], choice=Choice("s", None, "", {}), verdict="fits")
    out = write()
    file = out.with_name("earlier.json")
    file.write_text(json.dumps(earlier))
    limits = {"max_regression_points": 5.0, "max_slowdown": 1.5}
    result = commands.check(out, data=str(rows), limits=limits, baseline=str(file))
    by_name = {one.limit: one for one in result.checks}
    assert by_name["max_slowdown"].value == pytest.approx(1.0 / 0.8)
    assert by_name["max_regression_points"].value == pytest.approx(90 - 100 * 8 / 9)
    assert {by_name[name].state for name in limits} == {"holds"}


def test_another_processor_is_warned_of_once(
    write, text_contents: Contents, tmp_path: Path, measured: list, monkeypatch
):
    from edgedistill.measure import host

    monkeypatch.setattr(host, "instructions", lambda: "x86-64+other")
    graph = replace(text_contents.graph, precision="int8")
    out = tmp_path / "int8"
    bundle.write(out, replace(text_contents, graph=graph), prove=lambda opened: None)
    (said,) = [text for text in gate.check(out, gate.Asked()).warnings if "exact" in text]
    assert "x86-64+other" in said and "arm64" in said
    assert commands.eval_(out).warnings == (said,) and bundle.load(out).inexact() == said
    events: list = []
    bench._of_bundle(out, "int8", tmp_path / "sample", events.append)
    assert events == [{"kind": "warning", "text": said}]
    assert gate.check(write(), gate.Asked()).warnings == gate.check(out, gate.Asked()).warnings[1:]


def test_products_follow_a_curve_of_second_degree():
    points = [{"length": n, "fp32": 3.0 * n * n + 5 * n + 7, "int8": 2.0 * n} for n in (1, 8, 16)]
    assert cost.at(points, 11) == pytest.approx({"fp32": 3 * 121 + 55 + 7, "int8": 22})
    assert cost.at(points[:1], 5) == {"fp32": 15.0, "int8": 2.0}


def test_a_runs_products_count_its_rows_unless_the_curve_does():
    points = [{"length": n, "fp32": 10.0 * n, "int8": 2.0 * n} for n in (1, 8, 16)]
    for first, rows in (("batch", 3), (3, 1)):
        model = {"products": points, "inputs": [{"name": "ids", "shape": [first, "length"]}]}
        found = cost.of_run(model, {"ids": [3, 5], "mask": [3, 5]})
        assert found == pytest.approx({"fp32": rows * 50, "int8": rows * 10})


@pytest.mark.slow
def test_check_measures_for_real(write, rows: Path):
    result = commands.check(write(kept()), data=str(rows), seconds=0.5, on_device=True)
    assert result.figures.latency.runs >= 200 and result.figures.device.source == "measured"
    assert states(result)["latency_p90_ms"] == "holds"


DEVICE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
from edgedistill import bench, bundle
from edgedistill.bundle import commands
folder, rows, image = sys.argv[1:]
assert bundle.verify(folder).golden.holds and bundle.verify(image).golden.holds
assert bundle.load(folder).predict("the rain")[0][0][0] == "weather"
assert commands.eval_(folder, rows).score["rows"] == 9
result = commands.check(folder, data=rows, seconds=0.2)
assert {one.limit: one.state for one in result.checks}["size_mb"] == "holds", result.checks
assert result.figures.device.source == "estimate", result.figures
print(*commands.told(result, "json"))
"""
HEAVY = (
    "torch", "transformers", "onnx", "onnxscript", "datasets", "sklearn", "pandas", "pyarrow",
    "optimum", "safetensors", "scipy", "jsonschema",
)  # fmt: skip


@pytest.mark.slow
def test_a_device_needs_only_its_short_list(
    write, rows: Path, tmp_path: Path, image_contents: Contents
):
    image = bundle.write(tmp_path / "image", image_contents, prove=lambda opened: None).folder
    ran = subprocess.run(
        [sys.executable, "-c", DEVICE.replace("{blocked}", repr(set(HEAVY))),
         str(write(kept())), str(rows), str(image)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["score"]["source"] == "fresh"


class Unopened(Sequence):
    """Images that are not to be opened."""

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> NoReturn:
        raise AssertionError("opened")


def test_no_image_is_opened_to_choose_which_are_timed(tmp_path: Path, image_contents: Contents):
    opened = bundle.write(tmp_path / "out", image_contents, prove=lambda opened: None)
    rows = given.Given("rows", Unopened(), np.zeros(100, np.int64))
    assert len(set(gate.chosen(opened, rows))) == 48
