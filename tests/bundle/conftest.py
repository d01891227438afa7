"""Tiny real bundles: a bag-of-words classifier over a WordPiece tokenizer, and one of pixels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedistill import bundle
from edgedistill.bundle import Contents, Decide, Evidence, Graph, Proof
from edgedistill.bundle import evidence as evidences

LABELS = ("weather", "money", "music & film")
WORDS = {
    "weather": ["rain", "sun", "weather", "wind", "cold"],
    "money": ["bank", "euro", "money", "account", "pay"],
    "music & film": ["song", "film", "music", "play", "band"],
}
LIMITS = {"size_mb": 8.0, "max_drop_points": 1.0, "latency_p90_ms": 20.0}
SESSION = {
    "threads": 1, "spinning": False, "arena": True, "prepacking": True,
    "optimization": "all", "config": {},
}  # fmt: skip


def tokenizer_json(folder: Path) -> dict[str, int]:
    """Write a WordPiece tokenizer.json; returns its vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = [word for each in WORDS.values() for word in each]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words, "the", "is", "what", "##s", "##y"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )  # fmt: skip
    tokenizer.save(str(folder / "tokenizer.json"))
    return vocabulary


def text_model(
    path: Path, vocabulary: dict[str, int], *, integers: int = TensorProto.INT64
) -> None:
    """Write an .onnx that adds up one vector of label scores a token, by the mask."""
    table = np.zeros((len(vocabulary), len(LABELS)), np.float32)
    for column, label in enumerate(LABELS):
        for word in WORDS[label]:
            table[vocabulary[word], column] = 2.0
    table += np.random.default_rng(0).normal(0, 0.05, table.shape).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["scores"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["scores", "column"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "middle"], ["logits"], keepdims=0),
    ]
    inputs = [
        helper.make_tensor_value_info(name, integers, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)])
    weights = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array([2], np.int64), "last"),
        numpy_helper.from_array(np.array([1], np.int64), "middle"),
    ]
    save(helper.make_graph(nodes, "tiny", inputs, [output], weights), path)


def image_model(path: Path, channels: int, size: int) -> None:
    """Write an .onnx that multiplies the pixels by one random vector a label."""
    draws = np.random.default_rng(1)
    matrix = draws.normal(0, 0.3, (channels * size * size, len(LABELS))).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["pixel_values"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["logits"]),
    ]
    shape = ["batch", channels, size, size]
    pixels = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, shape)
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)])
    weights = [numpy_helper.from_array(matrix, "matrix")]
    save(helper.make_graph(nodes, "tiny", [pixels], [output], weights), path)


def save(graph: onnx.GraphProto, path: Path) -> None:
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)


def contents_of(folder: Path, task: str, encoder: dict) -> Contents:
    """Return the contents of a bundle whose graph lies in `folder`."""
    (folder / "labels.json").write_text(json.dumps(LABELS))
    checks = [
        {"limit": "size_mb", "allowed": 8.0, "value": 0.001, "low": None, "high": None,
         "state": "holds", "reason": None},
    ]  # fmt: skip
    return Contents(
        task=task,
        labels=LABELS,
        graph=Graph(folder, precision="fp32", onnxruntime="1.17", processors=("x86-64", "arm64")),
        encoder=encoder,
        target="phone",
        limits=LIMITS,
        session=SESSION,
        proof=Proof(figures={"size_mb": 0.001}, checks=checks, report=report()),
        decide=Decide(temperature=1.5),
        provenance={"teacher": {"name": "tiny", "sha256": "0" * 64}, "seed": 1},
        licence="Apache 2.0 as an example\n",
    )


def report() -> dict:
    """Return a small real report."""
    from edgedistill import report as reports
    from edgedistill.records import Choice

    build = reports.Build(
        job={"task": {"name": "text-classification"}},
        target={"name": "phone", "limits": LIMITS},
        data={"name": "rows", "splits": {}, "warnings": []},
        environment={"processor": "a processor"},
        source_model={"name": "tiny", "hash": "0" * 64, "size_mb": 1.0},
        seconds={"total": 1.0},
        version="0",
        created="2026-11-21T00:00:00+00:00",
    )
    row = reports.Row("student", "candidate", {"layers": 2})
    return reports.make(build, [row], choice=Choice("student", None, "it fits", {}), verdict="fits")


@pytest.fixture
def int32_graph(tmp_path: Path) -> Path:
    """A text graph whose inputs are int32."""
    folder = tmp_path / "int32"
    folder.mkdir()
    text_model(folder / "model.onnx", tokenizer_json(folder), integers=TensorProto.INT32)
    return folder


@pytest.fixture
def resizing_graph(tmp_path: Path) -> Callable[[dict, int], Path]:
    """Make an image graph with a resize and channels of its own."""
    from edgedistill.tasks import _pixels

    def make(resize: dict, channels: int) -> Path:
        folder = tmp_path / "resizing"
        folder.mkdir()
        settings = _pixels.image_settings((8, 8), channels) | {"resize": resize}
        _pixels.write_settings(folder, settings)
        image_model(folder / "model.onnx", channels, 8)
        return folder

    return make


@pytest.fixture(scope="session")
def text_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graph")
    text_model(folder / "model.onnx", tokenizer_json(folder))
    return folder


@pytest.fixture(scope="session")
def image_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edgedistill.tasks import _pixels

    folder = tmp_path_factory.mktemp("pixels")
    image_model(folder / "model.onnx", 3, 8)
    _pixels.write_settings(folder, _pixels.image_settings((8, 8), 3))
    return folder


ENCODER = {
    "max_length": 16, "inputs": ["input_ids", "attention_mask"], "pad": 0, "pad_type": 0,
    "pad_side": "right", "cut_side": "right", "pair": False,
}  # fmt: skip


@pytest.fixture
def text_contents(text_graph: Path) -> Contents:
    return contents_of(text_graph, "text-classification", ENCODER)


@pytest.fixture
def image_contents(image_graph: Path) -> Contents:
    return contents_of(image_graph, "image-classification", {})


ROWS = [("the rain is cold", 0), ("pay the bank", 1), ("what a song", 2), ("the sun", 0)]


@pytest.fixture
def evidence() -> Evidence:
    outputs = np.eye(3, dtype=np.float32)[[truth for _, truth in ROWS]] * 4
    digests = [evidences.digest({"text": text}) for text, _ in ROWS]
    return Evidence(digests, np.array([truth for _, truth in ROWS]), outputs, outputs)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, text_graph: Path) -> Path:
    """A text bundle to read (copy it before you change it)."""
    out = tmp_path_factory.mktemp("dist") / "phone"
    contents = contents_of(text_graph, "text-classification", ENCODER)
    bundle.write(out, contents, prove=lambda opened: None)
    return out


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy of the text bundle, to be damaged."""
    import shutil

    return Path(shutil.copytree(made, tmp_path / "bundle"))
