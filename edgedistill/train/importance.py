"""What a model's units are worth: |dL/dgate| of each, averaged over batches of training rows.

First-order Taylor terms of leaving a unit out, by the loss that the model is trained by (Molchanov
et al., 2019; Michel et al., 2019). The gates are the family's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgedistill.train import batches, objective, outputs
from edgedistill.train.signals import Taps

if TYPE_CHECKING:
    from edgedistill.train.loop import Work

BATCH = 16  # rows whose terms are added up before their size is taken: of few, little cancels out


def measure(model: Any, work: Work, *, rows: int, draw: int = 0) -> dict[str, Any]:
    """Return the mean of |dL/dgate| over batches of up to `rows` training rows, by group of units.

    Which rows is drawn from (seed, `draw`) alone. The losses count as at the end of the run; what
    they learn is not there yet, so those that learn something count only where no other does.
    """
    import torch

    training = work.training
    model.to(training.device).eval()
    terms = tuple(term for term in work.terms if term.learned is None and term.weight(1.0))
    terms = terms or work.terms
    for term in terms:
        if term.learned is not None:
            term.learned.to(training.device)
    taps = Taps(model, objective.needs(terms), work.family)
    order = batches.order(work.examples.lengths, BATCH, seed=training.seed, epoch=draw)
    order = order[: max(1, rows // BATCH)]
    totals: dict[str, Any] = {}
    with work.family.gated(model) as read:
        for indices in order:
            inputs = batches.tensors(
                work.encoder.batch(work.examples.rows(indices)), training.device
            )
            truth = torch.from_numpy(work.examples.truth[indices]).to(training.device)
            with outputs.arithmetic(training.device, training.dtype):
                student = taps.take(work.task.forward(model, inputs).logits)
                teacher = work.teacher(indices, inputs)
                batch = {**inputs, "truth": truth}
                loss = objective.total(terms, student, teacher, batch, share=1.0)
            loss.backward()
            for name, each in read().items():
                size = each.double().abs().cpu()
                totals[name] = size if name not in totals else totals[name] + size
    return {name: total / len(order) for name, total in totals.items()}
