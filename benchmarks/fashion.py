"""Write Fashion-MNIST as rows, and an untrained ResNet as a model folder, for the suite `images`.

    apt install dataset-fashion-mnist
    python benchmarks/fashion.py /path/to/data          # writes fashion/ and checkpoints/resnet/
    EDGEDISTILL_DATA=/path/to/data edgedistill bench images

Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017): 60,000 training and 10,000 test images of 28 x 28.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np

from edgedistill.data import starter

SOURCE = Path("/usr/share/datasets/fashion-mnist")
NAMES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
         "Boot")  # fmt: skip


def idx(path: Path) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes."""
    with gzip.open(path) as file:
        content = file.read()
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4).astype(int)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def main(out: Path) -> None:
    """Write rows/{train,test}.npz and the model folder."""
    if not SOURCE.is_dir():
        sys.exit(f"'{SOURCE}' is not there: apt install dataset-fashion-mnist")
    rows = out / "fashion"
    rows.mkdir(parents=True, exist_ok=True)
    for split, name in (("train", "train"), ("test", "t10k")):
        labels = idx(SOURCE / f"{name}-labels-idx1-ubyte.gz")
        images = idx(SOURCE / f"{name}-images-idx3-ubyte.gz")
        np.savez_compressed(rows / f"{split}.npz", x=images, y=np.array(NAMES)[labels])
    starter.model(out / "checkpoints" / "resnet")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit((__doc__ or "").strip())
    main(Path(sys.argv[1]))
