"""Small .onnx files made by hand, as other tools write them: they answer the rows of tests/tiny.py.

handmade.texts(folder)     words -> labels, with tokenizer.json and labels.json beside it
handmade.images(folder)    bands -> labels, with image.json beside it, opset 9, a Softmax at its end
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

spec = importlib.util.spec_from_file_location("tiny", Path(__file__).parent / "tiny.py")
assert spec and spec.loader
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)

INT32, INT64, FLOAT = TensorProto.INT32, TensorProto.INT64, TensorProto.FLOAT
WIDTH = 96


def texts(
    folder: Path,
    *,
    names: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids"),
    integers: int = INT64,
    shape: tuple[Any, Any] = ("b", "l"),
    outputs: int = 3,
    labels: bool = True,
    opset: int = 17,
    ir: int = 8,
    extra: tuple[str, ...] = (),
) -> Path:
    """Write net.onnx: embeddings summed under the mask, one product. Returns its path.

    `names` are those of ids, mask and types, the last ones may be left out; `extra` more inputs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    table = draw.normal(0, 0.02, (5 + len(tiny.WORDS), WIDTH)).astype(np.float32)
    product = draw.normal(0, 0.02, (WIDTH, outputs)).astype(np.float32)
    for word in range(15):  # five words tell each label, see tiny.text
        table[5 + word, word // 5] += 1
    product[:3, :3] += 4 * np.eye(3, dtype=np.float32)[:, :outputs]
    weights = [_tensor("table", table), _tensor("product", product), _tensor("two", [2]),
               _tensor("one", [1])]  # fmt: skip
    nodes = [helper.make_node("Gather", ["table", names[0]], ["embedded"])]
    summed = "embedded"
    if len(names) > 1:
        nodes += [
            helper.make_node("Cast", [names[1]], ["kept"], to=FLOAT),
            helper.make_node("Unsqueeze", ["kept", "two"], ["kept.wide"]),
            helper.make_node("Mul", ["embedded", "kept.wide"], ["masked"]),
        ]
        summed = "masked"
    for name in (*names[2:], *extra):  # read, and of no weight
        nodes += [
            helper.make_node("Cast", [name], [f"{name}.float"], to=FLOAT),
            helper.make_node("Unsqueeze", [f"{name}.float", "two"], [f"{name}.wide"]),
            helper.make_node("Mul", [f"{name}.wide", "nothing"], [f"{name}.none"]),
            helper.make_node("Add", [summed, f"{name}.none"], [f"{name}.added"]),
        ]
        summed = f"{name}.added"
    weights.append(_tensor("nothing", np.zeros((), np.float32)))
    nodes += [
        helper.make_node("ReduceSum", [summed, "one"], ["pooled"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "product"], ["answers"]),
    ]
    fed = [helper.make_tensor_value_info(name, integers, shape) for name in (*names, *extra)]
    given = [
        helper.make_tensor_value_info("pooled", FLOAT, [shape[0], WIDTH]),
        helper.make_tensor_value_info("answers", FLOAT, [shape[0], outputs]),
    ]
    path = _save(folder / "net.onnx", nodes, fed, given, weights, opset, ir)
    tiny._tokenizer(folder, False)
    if labels:
        (folder / "labels.json").write_text(json.dumps(list(tiny.LABELS)))
    return path


def images(
    folder: Path,
    *,
    size: int = tiny.LENGTH,
    last: bool = False,
    batch: Any = 1,
    settings: bool = True,
) -> Path:
    """Write net.onnx: convolution, normalisation, Relu, convolution, Softmax. Returns its path.

    `last`: it takes (rows, height, width, channels). Opset 9 and IR 4, as older tools wrote.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    first = draw.normal(0, 0.02, (8, 1, 3, 3)).astype(np.float32)
    first[:, 0, 1, 1] += 1
    bands = np.zeros((3, 8, size, size), np.float32)
    for label in range(3):
        bands[label, :, 5 * label : 5 * label + 5] = 0.02
    weights = [
        _tensor("first", first),
        _tensor("bands", bands),
        *(_tensor(name, np.full(8, value, np.float32))
          for name, value in {"scale": 0.5, "shift": 0.4, "mean": 0.1, "variance": 0.25}.items()),
    ]  # fmt: skip
    nodes = (
        [helper.make_node("Transpose", ["input"], ["pixels"], perm=[0, 3, 1, 2])] if last else []
    )
    nodes += [
        helper.make_node("Conv", ["pixels" if last else "input", "first"], ["seen"],
                         pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["seen", "scale", "shift", "mean", "variance"],
                         ["normal"]),
        helper.make_node("Relu", ["normal"], ["bright"]),
        helper.make_node("Conv", ["bright", "bands"], ["found"]),
        helper.make_node("Flatten", ["found"], ["flat"]),
        helper.make_node("Softmax", ["flat"], ["output"], axis=1),
    ]  # fmt: skip
    sides = [batch, size, size, 1] if last else [batch, 1, size, size]
    fed = [helper.make_tensor_value_info("input", FLOAT, sides)]
    given = [helper.make_tensor_value_info("output", FLOAT, [batch, 3])]
    path = _save(folder / "net.onnx", nodes, fed, given, weights, 9, 4)
    if settings:
        tiny._image_settings(folder, 1)
    (folder / "labels.json").write_text(json.dumps(list(tiny.LABELS)))
    return path


def image_rows(folder: Path) -> None:
    """Write image folders of rows whose label is told by a band."""
    from PIL import Image

    draw = np.random.default_rng(0)
    for name, count in {"train": 90, "validation": 60, "test": 60}.items():
        for index in range(count):
            label = index % 3
            place = folder / name / tiny.LABELS[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(tiny.pixels(label, draw, 1)[..., 0]).save(place / f"{index}.png")


def _tensor(name: str, values: Any) -> Any:
    return numpy_helper.from_array(np.asarray(values), name)


def _save(
    path: Path, nodes: list, fed: list, given: list, weights: list, opset: int, ir: int
) -> Path:
    graph = helper.make_graph(nodes, "net", fed, given, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    save(made, path)
    return path
