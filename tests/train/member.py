"""One of several processes that train together: `python member.py FOLDER RANK WORLD BATCH STOP`.

All end at step STOP as by a kill; 0: none does.
"""

import dataclasses
import json
import os
import sys
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))


def main(folder: Path, rank: int, world: int, batch: int, stop: int) -> None:
    from torch.distributed import FileStore

    from edgedistill.train import loop, parallel

    model, work = made(folder, processes=world, batch=batch)
    work = dataclasses.replace(work, teacher=killed(work.teacher, stop))
    store = FileStore(str(folder / f"met-{stop}-{os.environ.get('AGAIN', '')}"), world)
    store.set_timeout(timedelta(seconds=120))
    with parallel.joined(store, rank=rank, world=world, device="cpu"):
        fitted = loop.fit(model, work)
    if rank == 0:
        save(model, fitted, folder / f"two{os.environ.get('AGAIN', '')}")


def killed(read, stop: int):
    """Return a teacher that ends the process when it is read for the `stop`-th time."""
    reads = []

    def until(indices, inputs):
        reads.append(1)
        if len(reads) == stop:
            os._exit(9)
        return read(indices, inputs)

    return until


def made(folder: Path, **told):
    """Return a tiny student and its work: hard labels where known, soft ones everywhere."""
    import tiny
    import torch

    from edgedistill import plugins
    from edgedistill.train import loop, objective, outputs, pace, signals, weights
    from edgedistill.train.batches import Examples

    outputs.prepare(1)
    task = plugins.find("tasks", "text-classification")
    examples = Examples([folder / "train", folder / "bare"], [folder / "logits", folder / "other"])
    told = {"steps": 12, "rate": 5e-3, "evaluate_every": 4, "dropout": 0.0, "patience": 0, **told}
    torch.manual_seed(int(told.get("processes", 1)))  # what was drawn before does not matter
    work = loop.Work(
        task=task,
        encoder=task.open_encoder(folder / "model", tiny.encoder(folder / "model", "bert")),
        examples=examples,
        validation=Examples([folder / "validation"]),
        terms=objective.terms(
            {"soft_labels": {}, "hard_labels": {}}, alpha=0.5, temperature=2, student={}, teacher={}
        ),
        training=pace.Training(**told),
        resume=folder / f"resume-{told.get('processes', 1)}",
        teacher=signals.Cached(examples, "cpu").read,
    )
    return weights.load(folder / "model", task, dropout=0.0), work


def save(model, fitted, folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir()
    save_file(model.state_dict(), folder / "weights.safetensors")
    (folder / "facts.json").write_text(json.dumps(fitted.facts()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
