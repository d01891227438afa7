"""How students hold where texts are not what they trained on: their answers beside the teacher's.

    python benchmarks/variants.py --model TEACHER --data D STUDENT [STUDENT ...]

Of the test rows as they are and of those made from them, by kind (misspelt, with words that no
row holds, and so on; draws of their own): the share that each student answers as the teacher does,
and the mean KL divergence from the teacher, in thousandths of a nat. A student is a trained one's
folder in the store, with the teacher's tokenizer. Scores nothing: made rows have no truth.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgedistill import job as jobs
from edgedistill import planner, plugins
from edgedistill.builder.opening import open_job
from edgedistill.builder.prepare import prepare
from edgedistill.cli import run
from edgedistill.errors import nearest
from edgedistill.records import Step
from edgedistill.store.runner import Runner
from edgedistill.train import outputs, weights
from edgedistill.train.batches import Examples

SEED = 1000  # other draws than those of any training


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.argument("students", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--model", required=True, help="the teacher")
@click.option("--data", required=True)
@click.option("--kind", "kinds", multiple=True, help="of made rows; all unless named")
def main(students: tuple[Path, ...], model: str, data: str, kinds: tuple[str, ...]) -> None:
    """Make the rows, let everyone answer, print the table."""
    job = jobs.make({}, [("model.path", model), ("data.path", data)], target="phone")
    opened = open_job(job)
    prepared = prepare(job, opened.target, opened.store)
    facts = prepared.facts
    plain = planner.propose(job, opened.target, facts).baseline.test.inputs["rows.0"]
    assert isinstance(plain, Step)
    task: Any = plugins.find("tasks", facts.task)
    for kind in kinds:
        if kind not in task.MADE:
            raise click.ClickException(f"unknown kind '{kind}': {nearest(kind, task.MADE)}")
    steps = {
        "as they are": plain,
        **{kind: _made(plain, kind, facts) for kind in kinds or task.MADE},
    }
    with Runner(opened.store.root, threads=facts.host.threads) as runner:
        runner.run(list(steps.values()))
    outputs.prepare(facts.host.threads)
    teacher = opened.store.path(facts.teacher.source)
    models = [weights.load(folder, task) for folder in (teacher, *students)]
    encoder = task.open_encoder(teacher, facts.teacher.encoder)
    print(f"{'':14}" + "".join(f"{folder.name[:10]:>18}" for folder in students))
    for name, step in steps.items():
        examples = Examples([opened.store.path(step)])
        answers = [_answers(one, examples, task, encoder) for one in models]
        cells = "".join(_cell(answers[0], each) for each in answers[1:])
        print(f"{name:14}{cells}", flush=True)


def _made(plain: Step, kind: str, facts: Any) -> Step:
    inputs = {**plain.inputs, "model.0": facts.teacher.source}
    settings = {**plain.settings, "made": (kind,), "seed": SEED}
    return dataclasses.replace(plain, inputs=inputs, settings=settings)


def _answers(model: Any, examples: Examples, task: Any, encoder: Any) -> np.ndarray:
    """Return log-probabilities, (rows, labels) float64."""
    found = np.concatenate(list(outputs.logits(model, examples, task.forward, encoder)))
    found = found.astype(np.float64) - found.max(axis=1, keepdims=True)
    return np.asarray(found - np.log(np.exp(found).sum(axis=1, keepdims=True)))


def _cell(teacher: np.ndarray, student: np.ndarray) -> str:
    alike = 100 * float(np.mean(teacher.argmax(axis=1) == student.argmax(axis=1)))
    apart = 1000 * float((np.exp(teacher) * (teacher - student)).sum(axis=1).mean())
    return f"{alike:>10.1f} % {apart:>5.0f}"


if __name__ == "__main__":
    run(main, "variants.py")
