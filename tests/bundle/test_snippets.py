"""The README's snippets, cut out of a written README and run: they answer as predict does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgedistill import bundle
from edgedistill.bundle import Contents, readme

TEXTS = ["the rain is cold", "pay the bank what", "music", "", "rain, sun; bank " * 20]


def snippet(folder: Path, language: str) -> str:
    """Cut the first block of a language out of the bundle's README."""
    text = (folder / "README.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)[0]


def python(folder: Path, *given: str) -> dict:
    """Run the Python snippet in the bundle's folder, without anything of ours to import."""
    command = [sys.executable, "-c", snippet(folder, "python"), *given]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Contents], bundle.Bundle]:
    return lambda contents: bundle.write(tmp_path / "out", contents, prove=lambda opened: None)


def agrees(answer: dict, opened: bundle.Bundle, example: object) -> None:
    label, probability = opened.predict(example)[0][0]
    assert answer["label"] == label
    assert answer["probability"] == pytest.approx(probability, rel=1e-5)


def test_python_answers_as_predict_does(text_contents: Contents, write):
    opened = write(text_contents)
    for text in ("the rain is cold", "rain sun bank " * 20):
        agrees(python(opened.folder, text), opened, text)
    assert python(opened.folder)["label"] in opened.labels


def test_python_answers_for_pairs(text_contents: Contents, write):
    opened = write(replace(text_contents, encoder={**text_contents.encoder, "pair": True}))
    pair = ("the rain " * 12, "pay the bank")
    agrees(python(opened.folder, *pair), opened, pair)


def test_python_applies_the_session_that_ships(text_contents: Contents, write):
    session = {**text_contents.session, "threads": 2, "arena": False, "optimization": "basic"}
    opened = write(replace(text_contents, session=session))
    code = snippet(opened.folder, "python")
    assert "intra_op_num_threads = 2" in code and "enable_cpu_mem_arena = False" in code
    assert "ORT_ENABLE_BASIC" in code and '"session.intra_op.allow_spinning", "0"' in code
    agrees(python(opened.folder, "music"), opened, "music")


@pytest.mark.parametrize(
    "resize", [{"height": 8, "width": 8}, {"shortest_edge": 9}], ids=["exact", "edge"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_python_answers_for_images(
    tmp_path: Path, resize: dict, channels: int, image_contents: Contents, resizing_graph, write
):
    from PIL import Image

    folder = resizing_graph(resize, channels)
    opened = write(replace(image_contents, graph=replace(image_contents.graph, folder=folder)))
    file = tmp_path / "photo.png"
    Image.effect_noise((31, 17), 90).convert("RGB").save(file)
    agrees(python(opened.folder, str(file)), opened, file)


def test_no_place_in_a_snippet_stays_unfilled(
    text_contents: Contents, image_contents: Contents, tmp_path: Path
):
    for name, contents in (("text", text_contents), ("image", image_contents)):
        opened = bundle.write(tmp_path / name, contents, prove=lambda opened: None)
        text = (opened.folder / "README.md").read_text("utf-8")
        assert not re.findall(r"\{\{\w+\}\}", text)
        for heading in ("Python", "Node", "Browser", "Kotlin (not run by", "Swift (not run by"):
            assert f"### {heading}" in text
        for listed in opened.manifest["files"]:
            assert f"`{listed}`" in text


def test_swift_makes_its_tokenizer_of_what_the_bundle_holds(text_contents: Contents, write):
    code = snippet(write(text_contents).folder, "swift")
    assert 'Config = ["tokenizer_class": "BertTokenizer", "do_lower_case": false]' in code
    assert 'file("tokenizer.json")' in code and 'file("labels.json")' in code
    assert "modelFolder" not in code and "AutoTokenizer.from(" in code


@pytest.mark.parametrize("side", ["right", "left"])
def test_swift_cuts_to_the_length_and_writes_the_special_tokens(text_contents, side, write):
    encoder = {**text_contents.encoder, "cut_side": side}
    code = snippet(write(replace(text_contents, encoder=encoder)).folder, "swift")
    taken = "prefix" if side == "right" else "suffix"
    assert f"addSpecialTokens: false).{taken}(most))" in code
    assert f"let most = {encoder['max_length']} - 2  //" in code
    assert "Array([[2], one, [3]].joined()), Array([[0], one.map { _ in 0 }, [0]].joined())" in code


def test_swift_joins_pairs_as_the_tokenizer_does(text_contents: Contents, write):
    opened = write(replace(text_contents, encoder={**text_contents.encoder, "pair": True}))
    code = snippet(opened.folder, "swift")
    assert "Array([[2], one, [3], two, [3]].joined())" in code
    assert "[[0], one.map { _ in 0 }, [0], two.map { _ in 1 }, [1]]" in code
    assert "predict(_ text: String, _ other: String)" in code and "encode(text, other)" in code


def test_swift_names_what_each_kind_of_tokenizer_needs():
    kinds = {
        "BPE": '["tokenizer_class": "PreTrainedTokenizer", "unk_token": "<unk>"]',
        "Unigram": '["tokenizer_class": "T5Tokenizer", "unk_token": "<unk>"]',
        "WordPiece": '["tokenizer_class": "BertTokenizer", "do_lower_case": false]',
    }
    for kind, wanted in kinds.items():
        assert readme._swift_kind({"type": kind, "unk_token": "<unk>"}) == wanted
    assert readme._swift_kind({"type": "BPE"}) == '["tokenizer_class": "PreTrainedTokenizer"]'


def test_what_golden_holds_is_told_beside_what_the_model_takes(
    text_contents: Contents, image_contents: Contents, tmp_path: Path
):
    said = {}
    for name, contents in (("text", text_contents), ("image", image_contents)):
        opened = bundle.write(tmp_path / name, contents, prove=lambda opened: None)
        text = (opened.folder / "README.md").read_text("utf-8").split("## Prove a port")[1]
        said[name] = " ".join(text.split())
    assert "takes, which is `input_ids` as int64, `attention_mask` as int64" in said["text"]
    assert "the mask is 1 for each token" in said["text"]
    assert "the pixels as uint8 (height, width, channels)" in said["image"]


@pytest.fixture(scope="session")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the npm packages once; skipped where there is no Node, npm or registry."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package.json").write_text('{"private": true}')
    environment = {**os.environ, "ONNXRUNTIME_NODE_INSTALL_CUDA": "skip"}
    wanted = ["onnxruntime-node", "@huggingface/tokenizers"]
    ran = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", *wanted],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ran.returncode:
        pytest.skip(f"npm can't install {wanted}: {ran.stderr.strip().splitlines()[-1:]}")
    return folder / "node_modules"


@pytest.fixture
def node(modules: Path) -> Callable[..., dict]:
    """Run the Node snippet of a bundle."""

    def run(folder: Path, *given: str) -> dict:
        link = folder.parent / "node_modules"
        if not link.exists():
            link.symlink_to(modules)
        (folder / "predict.mjs").write_text(snippet(folder, "javascript"), "utf-8")
        ran = subprocess.run(
            ["node", "predict.mjs", *given], cwd=folder, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("side", ["right", "left"])
def test_node_answers_as_predict_does(side: str, text_contents: Contents, write, node):
    opened = write(replace(text_contents, encoder={**text_contents.encoder, "cut_side": side}))
    for text in TEXTS:
        if text:
            agrees(node(opened.folder, text), opened, text)


@pytest.mark.slow
@pytest.mark.parametrize("side", ["right", "left"])
def test_node_cuts_pairs_as_predict_does(side: str, text_contents: Contents, write, node):
    encoder = {**text_contents.encoder, "cut_side": side, "pair": True}
    opened = write(replace(text_contents, encoder=encoder))
    long, short = "rain " * 6 + "bank " * 6 + "music " * 6, "pay the band"
    for pair in [(short, short), (long, short), (short, long), (long, long + "sun")]:
        agrees(node(opened.folder, *pair), opened, pair)


@pytest.mark.slow
def test_node_feeds_int32_inputs(int32_graph: Path, text_contents: Contents, write, node):
    folder = int32_graph
    opened = write(replace(text_contents, graph=replace(text_contents.graph, folder=folder)))
    assert opened.integers == "int32"
    agrees(node(opened.folder, "the song"), opened, "the song")
    agrees(python(opened.folder, "the song"), opened, "the song")


@pytest.mark.slow
def test_node_answers_for_images(tmp_path: Path, image_contents: Contents, write, node):
    opened = write(image_contents)
    import base64

    first = json.loads((opened.folder / "golden.json").read_text())["rows"][0]
    agrees(node(opened.folder), opened, base64.b64decode(first["input"]["image"]))
    row = opened.encoder.encode({"image": base64.b64decode(first["input"]["image"])})
    (tmp_path / "pixels.bin").write_bytes(row["pixels"].tobytes())
    agrees(
        node(opened.folder, str(tmp_path / "pixels.bin")),
        opened,
        base64.b64decode(first["input"]["image"]),
    )
