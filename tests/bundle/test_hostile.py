"""A bundle is untrusted input: each trick ends in one clear BundleError, nothing is followed."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgedistill import bundle
from edgedistill.bundle import manifest as manifests
from edgedistill.bundle import untrusted
from edgedistill.errors import BundleError


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit the manifest as an attacker would."""
    path = folder / "manifest.json"
    said = json.loads(path.read_text())
    edit(said)
    path.write_text(json.dumps(said))


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Replace a file and make the manifest agree: hashes alone must not be what holds."""
    (folder / name).write_bytes(content)

    def edit(said: dict[str, Any]) -> None:
        listed = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        said["files"][name] = listed
        if name == said["model"]["file"]:
            said["model"]["bytes"] = len(content)
        said["payload"] = manifests.payload(said["files"], manifests.payload_names(said))

    change(folder, edit)


def refused(folder: Path, match: str) -> None:
    with pytest.raises(BundleError, match=match) as caught:
        bundle.verify(folder)
    message = str(caught.value)
    assert "\n" not in message and "\x1b" not in message and len(message) < 600


def set_at(said: dict[str, Any], path: str, value: Any) -> None:
    *names, last = path.split(".")
    for name in names:
        said = said[name]
    said[last] = value


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        ("format", 2, "format is 2"),
        ("format", "1", "format"),
        ("task", "./evil.py", "task"),
        ("task", "text-classification\n", "task"),
        ("task", "no-such-task", "unknown task"),
        ("task", ["a"], "expected string, got array"),
        ("model.file", "../model.onnx", "model.file"),
        ("model.file", "/etc/passwd", "model.file"),
        ("model.file", "model.ort", "model.file"),
        ("model.file", "other.onnx", "named but not listed"),
        ("model.bytes", True, "model.bytes"),
        ("model.bytes", 10**30, "model.bytes"),
        ("model.opset", 18, "opset"),
        ("model.inputs", [], "at least 1"),
        ("model.batch", 10**9, "batch"),
        ("encode.file", "../../tokenizer.json", "encode.file"),
        ("encode.kind", "image", "encode.kind"),
        ("encode.max_length", 10**9, "encode.max_length"),
        ("encode.inputs", ["__class__"], r"can't make the input|no sound encoder|inputs"),
        ("decide.temperature", 0, "temperature"),
        ("decide.temperature", -1, "temperature"),
        ("decide.outputs", "other", "decide.outputs"),
        ("session.threads", 10**6, "threads"),
        ("session.threads", 1.5, "threads"),
        ("session.register_custom_ops", "evil.so", "not one of its names"),
        ("session.optimization", "everything", "optimization"),
        ("session.config", {"session.save_model_format": "ORT"}, "not one of its names"),
        ("session.config", {"ep.context_file_path": "/tmp/x"}, "not one of its names"),
        ("labels", [], "labels"),
        ("labels", ["a"] * 3, "twice"),
        ("labels", ["a", "b", "c"], "labels.json differs"),
        ("labels", "abc", "labels"),
        ("payload", "0" * 64, "payload"),
        ("payload", "zz", "payload"),
        ("ship", ["model.onnx", "../x"], "ship"),
        ("golden.tolerance", 1e9, "tolerance"),
        ("golden.tolerance", 0.5, "says otherwise"),
        ("golden.file", "none.json", "named but not listed"),
        ("files", {}, "named but not listed"),
        ("files", [], "files"),
        ("checks", [{"limit": "x"}], "missing"),
        ("target.limits", {"size_mb": "8"}, "size_mb"),
    ],
)
def test_a_manifest_that_plays_tricks_is_refused(copied: Path, path: str, value: Any, match: str):
    change(copied, lambda said: set_at(said, path, value))
    refused(copied, match)


@pytest.mark.parametrize("name", ["format", "files", "session", "model", "labels", "payload"])
def test_a_manifest_that_lacks_something_is_refused(copied: Path, name: str):
    change(copied, lambda said: said.pop(name))
    refused(copied, f"'{name}' is missing")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"null", b"\xff\xfe", b"{" * 100_000, b"[" * 100_000 + b"]" * 100_000,
        b'{"format": NaN}', b'{"format": 1e999}', b'{"format": 1, "format": 1}',
        b'{"format": ' + b"1" * 10_000 + b"}", b'{"format": Infinity}', b"\x00" * 100,
    ],
)  # fmt: skip
def test_a_manifest_that_is_no_sound_json_is_refused(copied: Path, content: bytes):
    (copied / "manifest.json").write_bytes(content)
    refused(copied, "manifest.json")


@pytest.mark.parametrize(
    "content",
    [b"[]", b"{}", b'{"format": 2}', b"{", b"\xff"],
)
def test_what_is_wrong_with_a_manifest_is_said_with_its_bundle(copied: Path, content: bytes):
    (copied / "manifest.json").write_bytes(content)
    refused(copied, str(copied))


def test_a_file_that_is_not_listed_is_said_with_its_bundle(copied: Path):
    change(copied, lambda said: said["files"].pop("labels.json"))
    refused(copied, f"'{copied}': manifest.json: files: 'labels.json' is named but not listed")


@pytest.mark.parametrize(
    "name",
    ["..", ".", "../x", "/x", "a/b", "a\\b", "", ".hidden", "con\n", "x" * 200, "é", "a.", "C:x"],
)
def test_only_plain_names_are_taken(name: str):
    with pytest.raises(BundleError):
        untrusted.plain_name(name)


def test_a_name_with_control_characters_is_shown_escaped(copied: Path):
    entry = {"bytes": 0, "sha256": "0" * 64}
    change(copied, lambda said: said["files"].update({"\x1b[2Jx\u202e": entry}))
    refused(copied, r"\\x1b|form")


def test_a_label_with_control_characters_is_kept_and_never_printed_raw(
    tmp_path: Path, text_contents
):
    from dataclasses import replace

    labels = ("a\x1b[31mred", "b\u202egnp.exe", "c`|")
    made = bundle.write(tmp_path / "out", replace(text_contents, labels=labels), prove=print_none)
    assert made.predict("rain")[0][0][0] in labels
    text = (made.folder / "README.md").read_text("utf-8")
    assert "\x1b" not in text and "\u202e" not in text
    assert bundle.printable(labels[0]) == "a\\x1b[31mred"
    assert bundle.printable(labels[1]) == "b\\u202egnp.exe"


def print_none(opened: bundle.Bundle) -> None:
    pass


def test_a_flipped_byte_is_noticed_in_every_file(copied: Path, made: Path):
    for path in sorted(copied.iterdir()):
        if path.name == "manifest.json":
            continue
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        refused(copied, f"{path.name}.*SHA-256 differs")
        path.write_bytes((made / path.name).read_bytes())
    assert bundle.verify(copied).golden.holds


def test_a_size_is_looked_at_before_a_byte_is_read(copied: Path, monkeypatch: pytest.MonkeyPatch):
    with (copied / "model.onnx").open("r+b") as file:
        file.truncate(1 << 40)  # sparse: a terabyte that is not there
    monkeypatch.setattr(untrusted, "digest", lambda *given, **named: pytest.fail("it was read"))
    refused(copied, "holds 1,099,511,627,776 bytes")


def test_a_huge_manifest_is_not_read(copied: Path):
    with (copied / "manifest.json").open("r+b") as file:
        file.truncate(1 << 40)
    refused(copied, "at most")


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "tokenizer.json"])
def test_links_are_not_followed(copied: Path, made: Path, name: str):
    (copied / name).unlink()
    (copied / name).symlink_to(made / name)
    refused(copied, "no links")


def test_pipes_and_folders_are_no_files(copied: Path):
    (copied / "golden.json").unlink()
    os.mkfifo(copied / "golden.json")
    refused(copied, "no regular file")
    (copied / "golden.json").unlink()
    (copied / "golden.json").mkdir()
    refused(copied, "no regular file")


def test_a_missing_file_is_named(copied: Path):
    (copied / "tokenizer.json").unlink()
    refused(copied, "tokenizer.json' is missing")


def test_a_folder_that_is_no_bundle_is_said_so(tmp_path: Path):
    refused(tmp_path, "holds no manifest.json")
    refused(tmp_path / "none", "no such folder")
    (tmp_path / "phone").mkdir()
    refused(tmp_path / "phon", f"no such folder: did you mean '{tmp_path / 'phone'}'?")


# ---------------------------------------------------------------- the model


def altered(folder: Path, edit: Callable[[onnx.ModelProto], object]) -> None:
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    edit(model)
    replace_file(folder, "model.onnx", model.SerializeToString())


def external(tensor: onnx.TensorProto, location: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location


@pytest.mark.parametrize("location", ["/etc/passwd", "../x", "labels.json", "*/_ORT_MEM_ADDR_/*"])
def test_a_model_that_reads_other_files_is_refused(copied: Path, location: str):
    altered(copied, lambda model: external(model.graph.initializer[0], location))
    refused(copied, "external data")


def test_external_data_is_found_in_attributes_subgraphs_and_functions(copied: Path):
    def constant(nodes: Any) -> None:
        node = nodes.add(op_type="Constant", output=["hidden"])
        attribute = node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
        attribute.t.data_type = onnx.TensorProto.FLOAT
        external(attribute.t, "/etc/passwd")

    def subgraph(model: onnx.ModelProto) -> None:
        node = model.graph.node.add(op_type="If", input=["x"], output=["y"])
        branch = node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
        constant(branch.g.node)

    def sparse(model: onnx.ModelProto) -> None:
        external(model.graph.sparse_initializer.add().values, "/etc/passwd")

    whole = (copied / "model.onnx").read_bytes()
    for edit in (
        lambda model: constant(model.graph.node),
        subgraph,
        sparse,
        lambda model: constant(model.functions.add(name="f", domain="d").node),
    ):
        replace_file(copied, "model.onnx", whole)
        altered(copied, edit)
        refused(copied, "external data")


def test_another_model_of_the_same_form_fails_by_its_golden_outputs(copied: Path):
    def flip(model: onnx.ModelProto) -> None:
        table = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
        table[:, [0, 1]] = table[:, [1, 0]]
        model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(table, "table"))

    altered(copied, flip)
    refused(copied, "golden row")


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"\x08\x08", b"\xff" * 1000, b"\x3a\xff\xff\xff\xff\x0f", b"\x0b" * 9],
)
def test_a_file_that_is_no_model_is_refused(copied: Path, content: bytes):
    replace_file(copied, "model.onnx", content)
    refused(copied, "model.onnx|model.bytes")


def test_a_model_with_other_inputs_than_said_is_refused(copied: Path):
    def edit(said: dict[str, Any]) -> None:
        said["model"]["inputs"][0]["shape"] = ["batch", 5]

    change(copied, edit)
    refused(copied, "other inputs than its manifest says")


def test_a_model_of_another_width_than_the_labels_is_refused(copied: Path):
    labels = ["a", "b"]
    replace_file(copied, "labels.json", json.dumps(labels).encode())
    change(copied, lambda said: set_at(said, "labels", labels))
    refused(copied, "one column a label|not 2 numbers")


# ---------------------------------------------------------------- encoder, golden vectors


@pytest.mark.parametrize("content", [b"{}", b"[]", b'{"model": {"type": "x"}}', b"\xff\xfe\x00"])
def test_a_tokenizer_that_is_none_is_refused(copied: Path, content: bytes):
    replace_file(copied, "tokenizer.json", content)
    refused(copied, "tokenizer")


def test_a_tokenizer_that_makes_its_library_panic_is_refused(copied: Path):
    said = json.loads((copied / "tokenizer.json").read_text())
    said["post_processor"]["single"][0] = {"SpecialToken": {"id": "[GONE]", "type_id": 0}}
    replace_file(copied, "tokenizer.json", json.dumps(said).encode())
    refused(copied, "unsound")


def test_a_vocabulary_without_its_unknown_token_is_refused(copied: Path):
    said = json.loads((copied / "tokenizer.json").read_text())
    said["model"]["vocab"]["[GONE]"] = said["model"]["vocab"].pop("[UNK]")
    replace_file(copied, "tokenizer.json", json.dumps(said).encode())
    refused(copied, "unsound|other inputs")


def golden(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((folder / "golden.json").read_text())
    edit(document)
    replace_file(folder, "golden.json", json.dumps(document).encode())


IDS = "rows.0.encoded.input_ids"


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda said: said.pop("rows"), "unsound"),
        (lambda said: said.update(rows=[]), "unsound"),
        (lambda said: said.update(rows=[{}]), "unsound"),
        (lambda said: said.update(rows="x"), "unsound"),
        (lambda said: said.update(tolerance=float(10**7)), "unsound"),
        (lambda said: said.update(tolerance=True), "unsound"),
        (lambda said: said["rows"][0].update(output=[1]), "not 3 numbers"),
        (lambda said: said["rows"][0].update(output=["1"] * 3), "not 3 numbers"),
        (lambda said: said["rows"][0].update(input={"text": 5}), "no text"),
        (lambda said: said["rows"][0].update(input={"text": "other words"}), "other inputs"),
        (lambda said: said["rows"][0]["output"].__setitem__(0, 99.0), "differs by"),
    ],
)
def test_golden_vectors_that_play_tricks_are_refused(copied: Path, edit: Any, match: str):
    golden(copied, edit)
    refused(copied, match)


@pytest.mark.parametrize(
    "packed",
    [
        {"type": "int32", "shape": [10**6, 10**6], "data": []},
        {"type": "int32", "shape": [-1], "data": [1]},
        {"type": "int32", "shape": [2], "data": [1]},
        {"type": "int32", "shape": [1], "data": [2**40]},
        {"type": "int32", "shape": [1], "data": ["1"]},
        {"type": "int32", "shape": 1, "data": [1]},
        {"type": "object", "shape": [1], "data": [1]},
        {"type": "int32", "shape": [1], "base64": "!"},
        {"type": "int32", "shape": [2], "base64": base64.b64encode(b"abcde").decode()},
        {"type": "int32", "shape": [1]},
        [],
    ],
)
def test_an_encoded_array_that_lies_is_refused(copied: Path, packed: Any):
    golden(copied, lambda said: said["rows"][0]["encoded"].update(input_ids=packed))
    refused(copied, "unsound")


def test_token_ids_outside_the_vocabulary_are_an_error_of_the_bundle(copied: Path):
    packed = {"type": "int32", "shape": [1], "data": [2_000_000]}
    golden(copied, lambda said: said["rows"][0]["encoded"].update(input_ids=packed))
    refused(copied, "can't be run|other inputs")


def test_an_image_bomb_among_the_golden_inputs_is_refused(tmp_path: Path, image_contents):
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    out = bundle.write(tmp_path / "out", image_contents, prove=print_none).folder
    text = base64.b64encode(bomb).decode()
    golden(out, lambda said: said["rows"][0].update(input={"image": text}))
    refused(out, "absurd size")
