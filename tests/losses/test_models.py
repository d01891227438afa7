"""Every loss on a real model of every kind: a narrower student of fewer layers learns from each."""

from __future__ import annotations

import pytest
import tiny
import torch

from edgedistill import plugins
from edgedistill.families import family_of
from edgedistill.train import objective, weights
from edgedistill.train.batches import Examples, tensors
from edgedistill.train.signals import Taps

KINDS = [kind for kind in tiny.KINDS if tiny.KINDS[kind].get("model_type", kind) in (
    "bert", "camembert", "deit", "dinov2", "distilbert", "electra", "mpnet", "resnet", "roberta",
    "vit", "xlm-roberta",
)]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_loss_that_a_model_has_parts_for_teaches_a_narrower_student(tmp_path, kind):
    folder = tiny.model(tmp_path / "teacher", kind)
    task = plugins.find("tasks", tiny.task(kind))
    config = weights.config_of(folder)
    family = plugins.find("families", family_of(config))
    teacher, shape = weights.load(folder, task).eval(), family.shape(config)
    wanted = family.parse("2x16", shape)
    layers = family.layers(wanted, shape)
    student, _ = family.shrink(teacher, wanted, layers=layers, init="teacher", seed=0)
    rows = Examples([tiny.rows(tmp_path / "rows", folder, kind, count=6)])
    opened = task.open_encoder(folder, tiny.encoder(folder, kind))
    inputs = tensors(opened.batch(rows.rows(range(6))), "cpu")
    batch = {**inputs, "truth": torch.from_numpy(rows.truth)}
    read = objective.read({name: {} for name in plugins.names("losses")})
    fitting = [told for told in read if not told.lacks(wanted, shape)]
    assert {told.name for told in fitting if told.inside} == (
        {"feature_maps", "attention_transfer"}
        if "stages" in shape
        else {"hidden_states", "embeddings", "attention_maps", "relations"}
    )
    for told in fitting:
        alpha = 1.0 if told.plugin.READS_TEACHER else 0.0
        found = objective.terms(
            {told.name: {}}, alpha=alpha, temperature=4.0, student=wanted, teacher=shape
        )
        ours = Taps(student, objective.needs(found), family)
        theirs = Taps(teacher, objective.needs(found, of_teacher=True), family)
        student.zero_grad()
        with torch.no_grad():
            given = theirs.take(task.forward(teacher, inputs).logits)
        taken = ours.take(task.forward(student, inputs).logits)
        loss = objective.total(found, taken, given, batch, share=0.0)
        loss.backward()
        norm = torch.nn.utils.get_total_norm(
            [one.grad for one in student.parameters() if one.grad is not None]
        )
        assert loss.isfinite() and norm.isfinite() and norm > 0, told.name
        assert not any(one.grad is not None for one in teacher.parameters())
