"""The starter job's data and model: digits that ship with scikit-learn, and an untrained ResNet.

Both are made without torch and without network, the same bytes on every machine.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from edgedistill.data import images, split
from edgedistill.errors import MissingPackage

SHARES = {"test": 0.25, "validation": 0.50}  # few rows: more of them to judge with
SIZE = 32  # pixels; at 8 the stem of a ResNet would leave a single one
SEED = 0
SETTINGS = {  # by stage: a network from random weights and few rows, unlike a pretrained one
    # about 98 % on held-out digits; a validation costs as much as many steps, so four of them
    # one thread: products so small gain nothing from a second, and wait for it where it is busy
    "finetune": {"rate": 2e-3, "batch": 32, "steps": 300, "evaluate_every": 75, "threads": 1},
    "distill": {"rate": 2e-3, "batch": 32, "steps": 400, "evaluate_every": 100, "threads": 1},
}
LIMITS = {"max_drop_points": 3.0}  # few rows: under the usual one point the verdict is a coin toss
CONFIG = {
    "architectures": ["ResNetModel"],  # no head: it is to be finetuned
    "depths": [4, 4, 4],
    "downsample_in_bottleneck": False,
    "downsample_in_first_stage": False,
    "dtype": "float32",
    "embedding_size": 32,
    "hidden_act": "relu",
    "hidden_sizes": [32, 64, 128],
    "layer_type": "basic",
    "model_type": "resnet",
    "num_channels": 1,
}
IMAGE = {
    "format": 1,
    "size": [SIZE, SIZE],
    "channels": 1,
    "resize": {"height": SIZE, "width": SIZE},
    "resample": "bilinear",
    "rescale": 1 / 255,
    "mean": [0.5],
    "std": [0.5],
}


def data() -> split.DataSet:
    """Return scikit-learn's handwritten digits: 1,797 images of 8 x 8, a quarter each to judge.

    Source: Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998).
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingPackage("sklearn", "the starter job", "scikit-learn") from None
    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # values are 0 to 16
    names = [str(digit) for digit in digits.target]
    every = images.Images(list(pixels))
    keys = [every.content(index) for index in range(len(every))]
    splits, used = {}, {}
    hashes = [split.hashed(key) for key in keys]
    for name, chosen in split.cut(hashes, ("validation", "test"), shares=SHARES).items():
        truth = [names[index] for index in chosen]
        used[name] = [keys[index] for index in chosen]
        splits[name] = split.Split(
            name=name,
            kind="image",
            examples=images.Images([pixels[index] for index in chosen]),
            truth=truth,
            digest=split.fingerprint("image", used[name], truth),
        )
    return split.DataSet(
        name="digits",
        task="image-classification",
        columns={"image": "image", "label": "label"},
        splits=splits,
        origin=dict.fromkeys(splits, "cut"),
        preview=[{"image": "8 x 8 gray", "label": label} for label in names[:3]],
        overlap=split.overlap(used),
    )


def model(folder: Path) -> None:
    """Write the starter's teacher before training: a ResNet of basic blocks, seeded weights.

    Convolutions after He et al. (2015), fan out; normalisations as the identity.
    """
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(SEED)
    tensors: dict[str, np.ndarray] = {}

    def layer(name: str, out: int, inner: int, size: int) -> None:
        scale = np.sqrt(2.0 / (out * size * size))
        weight = draw.standard_normal((out, inner, size, size)) * scale
        tensors[f"{name}.convolution.weight"] = weight.astype(np.float32)
        for part, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            tensors[f"{name}.normalization.{part}"] = np.full(out, value, np.float32)
        tensors[f"{name}.normalization.num_batches_tracked"] = np.array(0, np.int64)

    width: int = CONFIG["embedding_size"]  # type: ignore[assignment]
    layer("embedder.embedder", width, CONFIG["num_channels"], 7)  # type: ignore[arg-type]
    stages = zip(CONFIG["hidden_sizes"], CONFIG["depths"], strict=True)  # type: ignore[call-overload]
    for number, (channels, depth) in enumerate(stages):
        for block in range(depth):
            place = f"encoder.stages.{number}.layers.{block}"
            if block == 0 and number > 0:  # a block that halves the image has a shortcut
                layer(f"{place}.shortcut", channels, width, 1)
            layer(f"{place}.layer.0", channels, width, 3)
            layer(f"{place}.layer.1", channels, channels, 3)
            width = channels
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for name, value in (("config.json", CONFIG), ("image.json", IMAGE)):
        (folder / name).write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
