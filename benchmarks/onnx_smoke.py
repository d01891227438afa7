"""Quantize a bare .onnx of images by the static scheme, and hold int8 against float.

Any graph with one input of floats (rows, channels, height, width) and any outputs: a detector,
say, which is no task of ours. It is calibrated on crops of the photographs that ship with
scikit-learn, and compared on other crops of them; an output's cosine is over all its numbers,
crop by crop.

    python benchmarks/onnx_smoke.py --model net.onnx [--mean 127 --scale 128] [--crops 64]
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import onnx

from edgedistill.cli import run
from edgedistill.errors import ModelError
from edgedistill.graph import adopt, clean, inspect, operators, session
from edgedistill.schemes import static_qdq

TURNS = 60  # runs of each model, in turn


def crops(count: int, sides: tuple[int, ...], seed: int) -> np.ndarray:
    """Cut crops of 30 to 100 % of a side out of the photographs; (count, channels, h, w) uint8."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    channels, height, width = sides
    photographs = [Image.fromarray(each) for each in load_sample_images().images]
    draw, made = np.random.default_rng(seed), []
    for index in range(count):
        photograph = photographs[index % len(photographs)]
        share = draw.uniform(0.3, 1.0)
        wide, high = int(share * photograph.width), int(share * photograph.height)
        left = int(draw.integers(0, photograph.width - wide + 1))
        top = int(draw.integers(0, photograph.height - high + 1))
        crop = photograph.crop((left, top, left + wide, top + high)).resize((width, height))
        pixels = np.asarray(crop.convert("L" if channels == 1 else "RGB"))
        made.append(pixels.reshape(height, width, channels).transpose(2, 0, 1))
    return np.stack(made)


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--model", required=True, type=click.Path(path_type=Path))
@click.option("--mean", default=127.0, help="taken off each pixel of 0 to 255")
@click.option("--scale", default=128.0, help="what the rest is divided by")
@click.option("--crops", "count", default=64, help="to calibrate on, and to compare on")
@click.option("--onnxruntime", "oldest", default="1.17", help="the oldest that should run it")
def main(model: Path, mean: float, scale: float, count: int, oldest: str) -> None:
    """Print, for weights of eight and of seven bits: size, speed, and each output's cosine."""
    given = inspect.read(model)
    port, *others = adopt.inputs_of(given)
    if others or port.shape is None or len(port.shape) != 4 or not all(port.shape[1:]):
        named = ", ".join(str(each) for each in (port, *others))
        raise ModelError(f"{model.name} takes {named}: expected (rows, channels, height, width)")
    outputs = [one.name for one in adopt.outputs_of(given)]
    plain, changed = adopt.quantizable(given)
    plain = clean.clean(plain, ir=8)
    lacks = operators.missing(plain, oldest)
    lacks_it = f"onnxruntime {oldest} lacks {', '.join(lacks) or 'nothing'}"
    print(f"{model.name}: {', '.join(changed) or 'as it is'}; {lacks_it}")

    def rows(seed: int) -> Iterator[dict[str, np.ndarray]]:
        for crop in crops(count, port.shape[1:], seed):
            pixels = (crop[None].astype(np.float32) - mean) / scale
            yield {port.name: pixels.astype(np.float32)}

    models = {"float as given": model.read_bytes(), "float": clean.serialize(plain)}
    for name, seven in (("int8", False), ("int8, 7-bit weights", True)):
        settings = static_qdq.Settings(reduce_range=seven)
        made = static_qdq.apply(plain, lambda: rows(seed=0), settings)
        onnx.checker.check_model(made)
        models[name] = clean.serialize(clean.clean(made, ir=8))
    running = {name: session.start(content) for name, content in models.items()}
    compared = list(rows(seed=1))
    found = {name: [one.run(outputs, feed) for feed in compared] for name, one in running.items()}
    spent = timed(running, compared)
    first = "float as given"
    for name, content in models.items():
        told_of = []
        for index, output in enumerate(outputs):
            cosines = [
                cosine(mine[index], theirs[index])
                for mine, theirs in zip(found[name], found[first], strict=True)
            ]
            away = max(
                float(np.abs(mine[index] - theirs[index]).max())
                for mine, theirs in zip(found[name], found[first], strict=True)
            )
            lowest = f"lowest {min(cosines):.4f}, largest difference {away:.3f}"
            told_of.append(f"{output} {np.mean(cosines):.4f} ({lowest})")
        faster = float(np.median(spent[first] / spent[name]))
        size = len(content) / 1e6
        print(f"{name:<20} {size:6.2f} MB  {faster:5.2f} x as fast  cosine {', '.join(told_of)}")


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Return the cosine of all numbers of two arrays."""
    one, other = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    return float(one @ other / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-12))


def timed(running: dict, feeds: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Run all models in turn at one thread; returns the seconds of each turn, by model."""
    spent: dict[str, list[float]] = {name: [] for name in running}
    for turn in range(TURNS + 3):
        for name, one in running.items():
            begun = time.perf_counter()
            one.run(None, feeds[turn % len(feeds)])
            if turn >= 3:
                spent[name].append(time.perf_counter() - begun)
    return {name: np.array(each) for name, each in spent.items()}


if __name__ == "__main__":
    run(main, "onnx_smoke.py")
