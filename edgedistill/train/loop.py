"""The one training loop, used by finetune, distill and prune.

Every random draw comes from (seed, epoch, step), so a run's position is all of its random state.
On one thread a resumed run ends with the same bytes as an unbroken one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill.errors import DataError, TrainingError
from edgedistill.progress import silent
from edgedistill.records import Progress
from edgedistill.train import batches, checkpoint, objective, outputs, pace, parallel, running
from edgedistill.train.compact import compact
from edgedistill.train.running import Running
from edgedistill.train.signals import Taps, absent
from edgedistill.train.simulate import simulated

BAR_SECONDS = 0.5  # between two events of progress
Read = Callable[[np.ndarray, Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Work:
    """What to train on, by what, and how."""

    task: Any
    encoder: Any
    examples: batches.Examples
    validation: batches.Examples  # with a teacher's logits the best weights are by those
    terms: tuple[objective.Term, ...]
    training: pace.Training
    resume: Path
    teacher: Read = absent
    family: Any = None  # maps what losses need of the student to its modules
    progress: Progress = silent


@dataclass(frozen=True)
class Fitted:
    """How a training went; the model itself now holds the best weights."""

    score: float  # of the best weights, on validation, in the task's unit
    from_teacher: float | None  # nats between their answers and the teacher's there, if it is read
    step: int
    weights: str  # "raw" | "ema"
    steps: int  # that were run; fewer than asked for when it stopped early
    history: tuple[Mapping[str, Any], ...]

    def facts(self) -> dict[str, Any]:
        """Return this as small JSON."""
        best = {name: getattr(self, name) for name in ("score", "from_teacher", "step", "weights")}
        return {"best": best, "steps": self.steps, "history": [dict(one) for one in self.history]}


def fit(model: Any, work: Work) -> Fitted:
    """Train a model in place; it is left with its best weights by validation.

    Those that answer most like the teacher where its answers lie beside the validation rows, else
    those that score best: a score moves by whole rows, and the highest of many is half luck.
    Goes on from the newest checkpoint in `work.resume`. In a group of processes each trains on its
    part of every batch, and only the first is left with the best weights. Raises `TrainingError`
    when the loss is no number.
    """
    with _computing(model, work):
        fitted = _fit(model, work)
    model.eval()
    return fitted


def _fit(model: Any, work: Work) -> Fitted:
    group = parallel.current(work.training.processes)
    run = _start(model, work)
    group.begin(run.whole, run.step, len(work.examples), work.training.device)
    clock = checkpoint.Clock()
    training, last_bar = work.training, 0.0
    order, drawn = [], -1
    batch = training.batch * group.world
    per_epoch = max(len(work.examples) // batch, 1)
    while run.step < training.steps and not _patience_over(run, training):
        epoch, position = divmod(run.step, per_epoch)
        if epoch != drawn:
            order = batches.order(work.examples.lengths, batch, seed=training.seed, epoch=epoch)
            drawn = epoch
        _one_step(run, work, order[position], group)
        run.step += 1
        if run.step % pace.every(training) == 0 or run.step == training.steps:
            if group.leads:
                _validate(run, work)
            run.waited = group.first(run.waited, training.device)
        if time.monotonic() - last_bar > BAR_SECONDS or run.step == training.steps:
            _tell(run, work)
            last_bar = time.monotonic()
        if run.step < training.steps and group.leads and clock.due():
            started = time.monotonic()
            running.save(run, work.resume)
            clock.wrote(time.monotonic() - started)
    if not group.leads:
        return Fitted(math.nan, None, run.step, "raw", run.step, ())
    running.put(run.model, run.best_weights)
    return Fitted(steps=run.step, history=tuple(run.history), **run.best)


def score(model: Any, examples: batches.Examples, work: Work) -> float:
    """Score a model on the rows that have a truth, in points."""
    return _score(_answers(model, examples, work), examples, work)


def _answers(model: Any, examples: batches.Examples, work: Work) -> np.ndarray:
    with simulated(model, work.training.int8_largest):
        return np.concatenate(list(_logits(model, examples, work)))


def _score(found: np.ndarray, examples: batches.Examples, work: Work) -> float:
    known = np.flatnonzero(examples.truth >= 0)
    if not len(known):
        raise DataError("no row has a label to score by")
    metric = work.training.metric
    sums = work.task.statistics(found[known], examples.truth[known], metric).sums()
    return round(float(work.task.score(sums, metric)), 6)


def _divergence(found: np.ndarray, examples: batches.Examples) -> float:
    """Return the mean of KL(teacher || student) over the rows, in nats."""
    import torch
    from torch.nn.functional import kl_div, log_softmax

    total = 0.0
    for start in range(0, len(found), outputs.CHUNK):
        rows = np.arange(start, min(start + outputs.CHUNK, len(found)))
        ours, theirs = (
            log_softmax(torch.from_numpy(each), dim=-1)
            for each in (found[rows], examples.logits(rows))
        )
        total += float(kl_div(ours, theirs, reduction="sum", log_target=True))
    return round(total / len(found), 9)


def seconds(model: Any, work: Work, *, tries: int = 8) -> float:
    """Estimate what `fit` will take, by running some steps of it and one pass of validation.

    In turn those at a quarter and at three quarters of the run: losses that fade out in its first
    half, and a live teacher with them, are half as dear.
    """
    training = work.training
    order = batches.order(work.examples.lengths, training.batch, seed=training.seed, epoch=0)
    spent = []
    with _computing(model, work):
        run = _start(model, work)
        for index in range(tries + 2):
            run.step = training.steps * (3 if index % 2 else 1) // 4
            batch = order[index * len(order) // (tries + 2)]
            _one_step(run, work, batch)  # the first of its length makes the kernels for all others
            started = time.perf_counter()
            _one_step(run, work, batch)
            spent.append(time.perf_counter() - started)
        started = time.perf_counter()
        next(_logits(model, work.validation, work))
        share = min(outputs.CHUNK, len(work.validation)) / len(work.validation)
        validation = (time.perf_counter() - started) / share
    rounds = math.ceil(training.steps / pace.every(training))
    both = 2 if training.average == "ema" else 1
    step = np.mean([np.median(spent[2::2]), np.median(spent[3::2])])
    return float(step) * training.steps + validation * rounds * both


@contextmanager
def _computing(model: Any, work: Work) -> Iterator[None]:
    """Compute as the settings say, and no more of the model than the losses read."""
    brief = getattr(work.family, "only_logits", None)
    inside = set(objective.needs(work.terms)) - {"logits"}
    device = next(model.parameters()).device.type

    def answer() -> Any:
        few = work.encoder.batch(work.examples.rows(_ends(work.examples)))
        return work.task.forward(model, batches.tensors(few, device)).logits

    with (
        compact(model, _pieces(work)) if "input_ids" in work.examples.names else nullcontext(),
        simulated(model, work.training.int8_largest),
        brief(model, answer) if brief and not inside else nullcontext(),
    ):
        yield


# ---------------------------------------------------------------- one step


def _one_step(
    run: Running, work: Work, indices: np.ndarray, group: parallel.Group = parallel.ALONE
) -> None:
    import torch

    training = work.training
    torch.manual_seed(_draw(training.seed, run.step, group.rank))
    run.whole.train()
    terms = group.scaled(work.terms, work.examples, indices)
    indices = group.mine(indices)
    inputs = batches.tensors(work.encoder.batch(work.examples.rows(indices)), training.device)
    truth = torch.from_numpy(work.examples.truth[indices]).to(training.device)
    factor = pace.factor(run.step, training)
    for each, peak in zip(run.optimizer.param_groups, run.peaks, strict=True):
        each["lr"] = peak * factor
    run.optimizer.zero_grad(set_to_none=True)
    with outputs.arithmetic(training.device, training.dtype):
        student = run.taps.take(work.task.forward(run.model, inputs).logits)
        teacher = work.teacher(indices, inputs)
        loss = objective.total(
            terms,
            student,
            teacher,
            {**inputs, "truth": truth},
            share=run.step / max(training.steps - 1, 1),
        )
    loss.backward()
    value = group.average(run.whole.parameters(), float(loss.detach()))
    _finite(value, "loss", run.step + 1, training)
    limit = training.clip or math.inf
    norm = torch.nn.utils.clip_grad_norm_(run.whole.parameters(), limit)
    _finite(float(norm), "gradient", run.step + 1, training)
    run.optimizer.step()
    run.loss += value
    if run.average and group.leads:
        decay = min(training.average_decay, (1 + run.step) / (10 + run.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(run.average.values()), run.averaged, 1 - decay)


def _finite(value: float, what: str, step: int, training: pace.Training) -> None:
    if math.isfinite(value):
        return
    rate = training.rate * pace.factor(step - 1, training)
    raise TrainingError(
        f"the {what} is not a number at step {step} of {training.steps}, "
        f"rate {rate:.2g}: try a lower rate (now {training.rate:.2g})"
    )


def _draw(seed: int, step: int, rank: int) -> int:
    drawn_from = [seed, step, rank] if rank else [seed, step]
    return int(np.random.SeedSequence(drawn_from).generate_state(1, np.uint64)[0]) >> 1


# ---------------------------------------------------------------- validation


def _validate(run: Running, work: Work) -> None:
    since = run.step - (run.history[-1]["step"] if run.history else 0)
    entry: dict[str, Any] = {"step": run.step, "loss": round(run.loss / since, 6)}
    run.loss = 0.0
    before = run.best
    for which in ("raw", "ema") if run.average else ("raw",):
        raw = running.copy_of(run.model)
        if which == "ema":
            running.put(run.model, run.average)
        found = _answers(run.model, work.validation, work)
        entry[which] = _score(found, work.validation, work)
        tried: dict[str, Any] = {"score": entry[which], "from_teacher": None}
        if work.validation.labels:
            far = _divergence(found, work.validation)
            _finite(far, "distance from the teacher", run.step, work.training)
            entry[f"{which}_from_teacher"] = tried["from_teacher"] = far
        # A later one of the same worth is kept: it was trained longer, at a lower rate.
        if _worth(tried, work) >= _worth(run.best, work):
            run.best = {**tried, "step": run.step, "weights": which}
            run.best_weights = running.copy_of(run.model)
        running.put(run.model, raw)
    run.waited = 0 if _worth(run.best, work) > _worth(before, work) else run.waited + 1
    run.history.append(entry)


def _worth(found: Mapping[str, Any], work: Work) -> float:
    """Return what weights are chosen by, the higher the better; of none, less than of any."""
    if not found:
        return -math.inf
    if found["from_teacher"] is not None:
        return -float(found["from_teacher"])
    return float(found["score"] if work.task.HIGHER_IS_BETTER else -found["score"])


def _patience_over(run: Running, training: pace.Training) -> bool:
    return bool(training.patience) and run.waited >= training.patience


def _logits(model: Any, examples: batches.Examples, work: Work) -> Any:
    training = work.training
    return outputs.logits(
        model,
        examples,
        work.task.forward,
        work.encoder,
        dtype=training.dtype,
        device=training.device,
    )


def _tell(run: Running, work: Work) -> None:
    note = f"validation {run.history[-1]['raw']:.1f}" if run.history else ""
    work.progress(
        {
            "kind": "bar",
            "done": run.step,
            "total": work.training.steps,
            "unit": "steps",
            "note": note,
        }
    )


# ---------------------------------------------------------------- start


def _start(model: Any, work: Work) -> Running:
    learned = {term.name: term.learned for term in work.terms if term.learned is not None}
    taps = Taps(model, objective.needs(work.terms), work.family)
    run = running.begin(model, learned, taps, work.training)
    if running.resume(run, work.resume):
        work.progress({"kind": "note", "text": f"goes on from step {run.step}"})
    return run


def _pieces(work: Work) -> np.ndarray:
    """Return every piece number that a batch can hold, padding included."""
    both = [work.examples.used("input_ids"), work.validation.used("input_ids")]
    for examples in (work.examples, work.validation):
        few = work.encoder.batch(examples.rows(_ends(examples)))
        both.append(np.unique(few["input_ids"]))
    return np.unique(np.concatenate(both))


def _ends(examples: batches.Examples) -> list[int]:
    """Return the shortest row and the longest: together they are padded."""
    return [int(np.argmin(examples.lengths)), int(np.argmax(examples.lengths))]
