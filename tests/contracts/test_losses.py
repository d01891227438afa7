"""Every loss keeps the contract: light to import, one convention, gradients that are numbers."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from edgedistill import plugins, settings
from edgedistill.train import objective

NAMES = plugins.names("losses")
SHAPE = {"layers": 2, "hidden": 8, "heads": 2, "feed_forward": 16}
ROWS, LABELS = 6, 5


def needed(loss):
    """Return drawn tensors for all that a loss reads, by name."""
    draw = torch.Generator().manual_seed(0)
    told = loss.Settings()
    sizes = {"logits": (ROWS, LABELS), "hidden": (ROWS, 7, 8), "attention": (ROWS, 2, 7, 7)}
    both = []
    for _ in range(2):
        names = loss.needs(told, SHAPE, SHAPE)
        sized = {name: sizes.get(name.partition(".")[0], (ROWS, 7, 8)) for name in names}
        both.append({name: torch.randn(*size, generator=draw) for name, size in sized.items()})
    batch = {
        "truth": torch.tensor([0, 1, 2, 3, 4, 0]),
        "attention_mask": torch.ones(ROWS, 7, dtype=torch.int64),
    }
    return told, both[0], both[1] if loss.READS_TEACHER else {}, batch


def value(loss, told, ours, theirs, batch):
    return loss.loss(ours, theirs, batch, told, loss.build(told, SHAPE, SHAPE))


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
    assert all(name for name in loss.needs(loss.Settings(), SHAPE, SHAPE))


def test_it_is_a_scalar_with_a_gradient(loss):
    told, ours, theirs, batch = needed(loss)
    ours = {name: tensor.requires_grad_() for name, tensor in ours.items()}
    found = value(loss, told, ours, theirs, batch)
    assert found.ndim == 0 and found.isfinite() and found.dtype == torch.float32
    found.backward()
    assert all(tensor.grad.isfinite().all() for tensor in ours.values())
    assert any(tensor.grad.abs().max() > 0 for tensor in ours.values())


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
    assert objective.needs(found, of_teacher=True) == (found[0].needs if alpha else ())


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
