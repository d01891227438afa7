"""Every loss keeps the contract: light to import, one convention, gradients that are numbers."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from edgedistill import plugins, settings
from edgedistill.train import objective

NAMES = plugins.names("losses")
SHAPE = {
    "layers": 2, "hidden": 8, "heads": 2, "feed_forward": 16,
    "stages": 2, "blocks": 2, "channels": 8, "channels.0": 4, "channels.1": 8,
}  # fmt: skip
NARROW = {**SHAPE, "layers": 1, "hidden": 4, "heads": 1, "channels": 6, "channels.1": 6}
ROWS, LABELS, LENGTH = 6, 5, 7


def size(name, shape):
    kind, _, index = name.partition(".")
    return {
        "logits": (ROWS, LABELS),
        "attention": (ROWS, shape["heads"], LENGTH, LENGTH),
        "feature": (ROWS, shape.get(f"channels.{index}"), 6, 6),
    }.get(kind, (ROWS, LENGTH, shape["hidden"]))


def drawn(loss, told, student, teacher):
    """Return drawn tensors for all that a loss reads of both models, by the student's names."""
    draw = torch.Generator().manual_seed(0)
    pairs = objective.Told("it", loss, {}, 1.0, 1.0).needs(4.0, student, teacher)
    both = [{}, {}]
    for ours, theirs in pairs.items():
        for found, name, shape in zip(both, (ours, theirs), (student, teacher), strict=True):
            found[ours] = torch.randn(*size(name, shape), generator=draw)
            if name.startswith("attention"):
                found[ours] = found[ours].softmax(-1)
    return both


def needed(loss, student=SHAPE):
    told = loss.Settings()
    ours, theirs = drawn(loss, told, student, SHAPE)
    batch = {
        "truth": torch.tensor([0, 1, 2, 3, 4, 0]),
        "attention_mask": torch.ones(ROWS, LENGTH, dtype=torch.int64),
    }
    if loss.READS_TEACHER and "logits" in theirs:  # a truth that the teacher knows
        batch["truth"] = theirs["logits"].argmax(-1)
    return told, ours, theirs if loss.READS_TEACHER else {}, batch


def value(loss, told, ours, theirs, batch):
    return loss.loss(ours, theirs, batch, told, objective.learns(loss, told, SHAPE, SHAPE))


@pytest.fixture(params=NAMES)
def loss(request):
    return plugins.find("losses", request.param)


def test_there_are_losses():
    assert {"hard_labels", "soft_labels"} <= set(NAMES)


def test_settings_are_declared_with_a_line_each(loss):
    for field in loss.Settings.__dataclass_fields__.values():
        assert field.metadata["about"], field.name
    assert settings.coerce(loss.Settings, settings.plain(loss.Settings()), "it") == loss.Settings()


def test_flags_and_docstrings_are_there(loss):
    assert isinstance(loss.READS_TEACHER, bool) and isinstance(loss.NEEDS_TRUTH, bool)
    assert loss.__doc__ and loss.loss.__doc__
    assert all(name for name in objective.reads(loss, loss.Settings(), SHAPE, SHAPE))


@pytest.mark.parametrize("shape", [SHAPE, NARROW])
def test_it_is_a_scalar_with_a_gradient(loss, shape):
    """Of a student as wide as the teacher and of a narrower one with fewer layers and heads."""
    told, ours, theirs, batch = needed(loss, shape)
    ours = {name: tensor.requires_grad_() for name, tensor in ours.items()}
    learned = objective.learns(loss, told, shape, SHAPE)
    found = loss.loss(ours, theirs, batch, told, learned)
    assert found.ndim == 0 and found.isfinite() and found.dtype == torch.float32
    found.backward()
    assert all(tensor.grad.isfinite().all() for tensor in ours.values())
    assert all(tensor.grad.abs().max() > 0 for tensor in ours.values())
    for parameter in learned.parameters() if learned is not None else ():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0
    assert not any(tensor.requires_grad for tensor in theirs.values())


def test_half_precision_is_no_trouble(loss):
    told, ours, theirs, batch = needed(loss, NARROW)
    halves = [{name: each.bfloat16() for name, each in one.items()} for one in (ours, theirs)]
    learned = objective.learns(loss, told, NARROW, SHAPE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss.loss(*halves, batch, told, learned)
    assert found.dtype == torch.float32
    exact = loss.loss(ours, theirs, batch, told, learned)
    assert torch.allclose(found, exact, rtol=0.1, atol=0.1)


def test_a_student_that_is_its_teacher_has_nothing_to_lose(loss):
    """No learned part, no truth: then it is at its least, with no gradient."""
    if not loss.READS_TEACHER:
        return
    told, ours, theirs, batch = needed(loss)
    ours = {name: each.clone().requires_grad_() for name, each in theirs.items()}
    assert objective.learns(loss, told, SHAPE, SHAPE) is None, "equal widths need no projection"
    found = value(loss, told, ours, theirs, batch)
    found.backward()
    assert found.item() == pytest.approx(0, abs=1e-4)
    assert all(each.grad.abs().max() < 1e-5 for each in ours.values())


def test_padding_never_counts(loss):
    """Two tokens more that the mask shuts out change nothing, whatever stands there."""
    told, ours, theirs, batch = needed(loss, NARROW)
    learned = objective.learns(loss, told, NARROW, SHAPE)
    once = loss.loss(ours, theirs, batch, told, learned)
    mask = torch.cat([batch["attention_mask"], torch.zeros(ROWS, 2, dtype=torch.int64)], dim=1)

    def padded(name, tensor):
        if name.startswith(("logits", "feature")):
            return tensor
        if name.startswith("attention"):
            tensor = torch.cat([tensor, torch.full((*tensor.shape[:3], 2), 7.0)], dim=-1)
            return torch.cat([tensor, torch.full_like(tensor[:, :, :2], -3.0)], dim=2)
        return torch.cat([tensor, torch.full_like(tensor[:, :2], 50.0)], dim=1)

    both = [{name: padded(name, each) for name, each in one.items()} for one in (ours, theirs)]
    again = loss.loss(*both, {**batch, "attention_mask": mask}, told, learned)
    assert torch.allclose(once, again, rtol=1e-5)


def test_a_batch_without_a_mask_counts_all_tokens(loss):
    told, ours, theirs, batch = needed(loss)
    once = value(loss, told, ours, theirs, batch)
    del batch["attention_mask"]
    assert torch.equal(once, value(loss, told, ours, theirs, batch))


def test_what_it_learns_is_the_seeds(loss):
    name = loss.__name__.rpartition(".")[2]

    def weights(seed):
        (term,) = objective.terms(
            {name: {}}, alpha=1.0 * loss.READS_TEACHER, temperature=2.0,
            student=NARROW, teacher=SHAPE, seed=seed,
        )  # fmt: skip
        return [] if term.learned is None else list(term.learned.parameters())

    torch.manual_seed(1)
    first = weights(3)
    torch.manual_seed(2)
    for one, same, other in zip(first, weights(3), weights(4), strict=True):
        assert torch.equal(one, same) and not torch.equal(one, other)


def test_it_is_a_mean_over_rows(loss):
    """The same rows twice are worth the same: batches of any size weigh alike."""
    told, ours, theirs, batch = needed(loss)
    double = [
        {name: torch.cat([tensor, tensor]) for name, tensor in one.items()}
        for one in (ours, theirs, batch)
    ]
    once = value(loss, told, ours, theirs, batch)
    assert torch.allclose(once, value(loss, told, *double), rtol=1e-4)


def test_rows_without_a_truth_count_only_where_it_is_not_needed(loss):
    told, ours, theirs, batch = needed(loss)
    hidden = {**batch, "truth": batch["truth"].clone()}
    hidden["truth"][ROWS // 2 :] = -1
    known = [{name: tensor[: ROWS // 2] for name, tensor in one.items()} for one in (ours, theirs)]
    some = value(loss, told, ours, theirs, hidden)
    if loss.NEEDS_TRUTH:
        shorter = {name: tensor[: ROWS // 2] for name, tensor in batch.items()}
        assert torch.allclose(some, value(loss, told, *known, shorter), rtol=1e-5)
    else:
        assert torch.allclose(some, value(loss, told, ours, theirs, batch), rtol=1e-5)


def test_the_truth_is_not_read_where_it_is_not_needed(loss):
    if loss.NEEDS_TRUTH:
        return
    told, ours, theirs, batch = needed(loss)
    batch.pop("truth")
    value(loss, told, ours, theirs, batch)


def test_the_objective_takes_it(loss):
    name = loss.__name__.rpartition(".")[2]
    alpha = 1.0 if loss.READS_TEACHER else 0.0
    found = objective.terms(
        {name: {"weight": 1.0}}, alpha=alpha, temperature=2.0, student=SHAPE, teacher=SHAPE
    )
    named = sorted(set(found[0].needs.values()))
    assert objective.needs(found, of_teacher=True) == (tuple(named) if alpha else ())


def test_what_it_reads_of_a_shape_is_declared(loss):
    """A model without those dimensions has nothing to read; one with them alone will do."""
    assert set(loss.DIMENSIONS) <= set(SHAPE)
    inside = any(name != "logits" for name in objective.reads(loss, loss.Settings(), SHAPE, SHAPE))
    assert bool(loss.DIMENSIONS) == inside
    assert bool(loss.OUTPUTS) != inside
    tasks = (plugins.find("tasks", name) for name in plugins.names("tasks"))
    told = objective.Told("it", loss, {}, 1.0, 1.0)
    assert any(told.serves(task.OUTPUTS) for task in tasks)
    assert told.lacks(SHAPE, SHAPE) == () and told.lacks(SHAPE, {}) == loss.DIMENSIONS


@pytest.mark.parametrize("kind", ["losses", "families"])
def test_importing_loads_nothing_heavy(kind):
    code = (
        "import sys\nfrom edgedistill import plugins\n"
        f"[plugins.find({kind!r}, name) for name in plugins.names({kind!r})]\n"
        "heavy = {'torch', 'transformers', 'onnx', 'onnxruntime', 'datasets', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
