"""A bundle is written beside its place, proven there, and only then put in place."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from edgedistill import bundle
from edgedistill.bundle import Contents, Evidence
from edgedistill.bundle.writing import without_places
from edgedistill.errors import BundleError, InternalError


def nothing(opened: bundle.Bundle) -> None:
    pass


def test_a_written_bundle_holds_what_the_contract_names(tmp_path: Path, text_contents: Contents):
    out = tmp_path / "dist" / "phone"
    opened = bundle.write(out, text_contents, prove=nothing)
    assert sorted(path.name for path in out.iterdir()) == [
        "LICENSE.txt", "README.md", "golden.json", "labels.json", "manifest.json", "model.onnx",
        "report.html", "report.json", "report.md", "tokenizer.json",
    ]  # fmt: skip
    said = opened.manifest
    assert said["model"]["opset"] == 17 and said["model"]["ir"] == 8
    assert [each["name"] for each in said["model"]["inputs"]] == ["input_ids", "attention_mask"]
    assert said["golden"]["agreement"] == 1.0 and said["golden"]["rows"] > 10
    assert said["ship"] == ["model.onnx", "tokenizer.json", "labels.json", "manifest.json"]
    assert said["decide"]["temperature"] == 1.5
    assert bundle.verify(out).golden.holds


def test_prove_sees_the_reloaded_bundle_and_its_refusal_leaves_the_old_one(
    tmp_path: Path, text_contents: Contents
):
    out = tmp_path / "phone"
    bundle.write(out, text_contents, prove=nothing)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def refuse(opened: bundle.Bundle) -> None:
        assert opened.folder != out and opened.predict("the rain")[0][0][0] == "weather"
        raise InternalError("the score is another")

    changed = replace(text_contents, target="server")
    with pytest.raises(InternalError, match="score is another"):
        bundle.write(out, changed, prove=refuse)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["phone", "phone.lock"]


def test_the_same_choice_gives_the_same_payload_and_another_model_another(
    tmp_path: Path, text_contents: Contents
):
    first = bundle.write(tmp_path / "a", text_contents, prove=nothing).manifest
    other = replace(text_contents, provenance={"seed": 2}, limits={})
    second = bundle.write(tmp_path / "b", other, prove=nothing).manifest
    assert first["payload"] == second["payload"]
    turned = replace(text_contents, labels=tuple(reversed(text_contents.labels)))
    assert (
        bundle.write(tmp_path / "c", turned, prove=nothing).manifest["payload"] != first["payload"]
    )


def test_no_file_tells_of_folders_or_of_the_user(tmp_path: Path, text_contents: Contents):
    home = str(Path.home())
    report = {**text_contents.proof.report, "warnings": [f"read {tmp_path}/rows/train.csv twice"]}
    proof = replace(text_contents.proof, report=report)
    contents = replace(
        text_contents, proof=proof, provenance={"data": str(tmp_path / "rows" / "train.csv")}
    )
    out = tmp_path / "phone"
    opened = bundle.write(out, contents, prove=nothing)
    assert opened.manifest["provenance"] == {"data": "train.csv"}
    for path in out.iterdir():
        content = path.read_bytes()
        for place in (str(tmp_path), str(Path.cwd()), home + "/"):
            assert place.encode() not in content, f"{path.name} holds {place}"
        absolute = re.findall(rb"[\s\"'(](/(?:home|root|tmp|work|Users|var)/[^\s\"']*)", content)
        assert not absolute, f"{path.name}: {absolute[:3]}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/ann/rows/train.csv", "train.csv"),
        ("read /home/ann/a b", "read a b"),
        ("/home/anna/rows", "/home/anna/rows"),
        ("s3://bucket/home/ann", "s3://bucket/home/ann"),
        ("/home/ann", "ann"),
    ],
)
def test_places_are_cut_to_base_names(text: str, expected: str):
    assert without_places({"a": [text]}, ["/home/ann"]) == {"a": [expected]}


def test_a_success_removes_the_report_of_a_failure(tmp_path: Path, text_contents: Contents):
    out = tmp_path / "phone"
    left = bundle.report_beside(out)
    left.write_text("{}")
    bundle.write(out, text_contents, prove=nothing)
    assert left.name == "phone.report.json" and not left.exists()


def test_evidence_lies_beside_and_holds_no_row(
    tmp_path: Path, text_contents: Contents, evidence: Evidence
):
    proof = replace(text_contents.proof, evidence=evidence)
    out = tmp_path / "phone"
    bundle.write(out, replace(text_contents, proof=proof), prove=nothing)
    beside = out.with_name("phone.evidence.npz")
    assert beside.is_file() and b"rain" not in beside.read_bytes()
    assert not (out / beside.name).exists()


def test_files_are_copies_that_everyone_may_read(tmp_path: Path, text_contents: Contents):
    out = tmp_path / "phone"
    bundle.write(out, text_contents, prove=nothing)
    for path in out.iterdir():
        assert path.stat().st_mode & 0o777 == 0o644 and path.stat().st_nlink == 1
    assert out.stat().st_mode & 0o777 == 0o755


def test_an_image_bundle_answers_bytes_and_paths(tmp_path: Path, image_contents: Contents):
    opened = bundle.write(tmp_path / "phone", image_contents, prove=nothing)
    assert bundle.verify(opened.folder).golden.holds
    document = json.loads((opened.folder / "golden.json").read_text())
    import base64

    image = base64.b64decode(document["rows"][0]["input"]["image"])
    (tmp_path / "one.png").write_bytes(image)
    by_bytes, by_path = opened.predict(image), opened.predict(str(tmp_path / "one.png"))
    assert by_bytes == by_path and len(by_bytes) == 1
    assert sum(probability for _, probability in by_bytes[0]) == pytest.approx(1)
    assert opened.predict([image, tmp_path / "one.png"]) == by_bytes * 2


def test_a_graph_with_external_data_is_no_bundle(tmp_path: Path, text_contents: Contents):
    import shutil

    import onnx

    folder = Path(shutil.copytree(text_contents.graph.folder, tmp_path / "graph"))
    model = onnx.load(folder / "model.onnx")
    onnx.save(
        model, folder / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    contents = replace(text_contents, graph=replace(text_contents.graph, folder=folder))
    with pytest.raises(BundleError, match="external data"):
        bundle.write(tmp_path / "phone", contents, prove=nothing)
    assert not (tmp_path / "phone").exists()
