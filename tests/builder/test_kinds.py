"""The real command on every kind of rows: pairs of texts, and images in all their forms."""

import csv
import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgedistill import bundle

spec = importlib.util.spec_from_file_location("small", Path(__file__).parent / "small.py")
small = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small)

pytestmark = pytest.mark.slow
LABELS = ("dark", "light")
STEPS = {"finetune.steps": 60, "distill.steps": 60, "run.objective": "latency"}


def picture(index: int, size: int = 32) -> np.ndarray:
    """Return a gray picture that is dark or light."""
    draw = np.random.default_rng(index)
    return (draw.integers(0, 100, (size, size, 3)) + 150 * (index % 2)).astype(np.uint8)


def folders(place: Path) -> None:
    for split, count in {"train": 80, "validation": 30, "test": 30}.items():
        for index in range(count):
            folder = place / split / LABELS[index % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(index + 1000 * len(split))).save(folder / f"{index}.png")


def archive(place: Path) -> None:
    place.mkdir()
    arrays = {}
    for split, count in {"train": 80, "val": 30, "test": 30}.items():
        chosen = [picture(index + 1000 * len(split)).mean(-1) for index in range(count)]
        arrays[f"x_{split}"] = np.array(chosen).astype(np.uint8)
        arrays[f"y_{split}"] = np.array([LABELS[index % 2] for index in range(count)])
    np.savez(place / "pictures.npz", **arrays)


def saved(place: Path) -> None:
    """Write a `datasets` folder with an image column and class labels."""
    import datasets

    def rows(count: int, start: int) -> datasets.Dataset:
        images = []
        for index in range(count):
            file = io.BytesIO()
            Image.fromarray(picture(index + start)).save(file, "PNG")
            images.append({"bytes": file.getvalue(), "path": None})
        told = {"image": images, "label": [index % 2 for index in range(count)]}
        kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(LABELS))}
        return datasets.Dataset.from_dict(told, datasets.Features(kinds))

    parts = {"train": rows(80, 0), "validation": rows(30, 1000), "test": rows(30, 2000)}
    datasets.DatasetDict(parts).save_to_disk(place)


def pairs(place: Path) -> None:
    """Write pairs of texts, of one label or not."""
    place.mkdir()
    tiny = small.tiny()
    for split, count in {"train": 240, "validation": 60, "test": 60}.items():
        with (place / f"{split}.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["sentence1", "sentence2", "label"])
            draw = np.random.default_rng(count)
            for index in range(count):
                text = tiny.text(index % 3, draw)
                out.writerow([text, tiny.text(index % 3, draw), tiny.LABELS[index % 3]])


@pytest.mark.parametrize(
    ("write", "kind", "student"),
    [
        (folders, "vit", "1"),
        (archive, "resnet", "same"),
        (saved, "deit", "1"),
        (pairs, "bert", "1"),
    ],
    ids=["folders", "npz", "datasets", "pairs"],
)
def test_every_kind_of_rows_builds_through_to_a_bundle(tmp_path, write, kind, student):
    names = small.job(tmp_path / "job", kind=kind)
    write(tmp_path / "rows")
    settings = {**names["settings"], **STEPS}
    names |= {"data": str(tmp_path / "rows"), "student": student, "settings": settings}
    done = small.run(small.command(names, "build", "--best-effort", "--json"))
    assert done.returncode in (0, 1), done.stderr
    record = json.loads(done.stdout)
    rows = {row["role"]: row for row in record["rows"]}
    assert {"baseline", "student_fp32", "control"} <= set(rows)
    assert rows["baseline"]["score"]["test"]["value"] > 60, "the teacher learned nothing"
    assert bundle.verify(Path(names["out"])).golden.holds
    assert "Traceback" not in done.stderr
