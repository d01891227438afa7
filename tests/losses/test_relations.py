"""Relations: a value worked by hand, heads and layers that can not be."""

from __future__ import annotations

import math

import pytest
import torch

from edgedistill.errors import JobError
from edgedistill.losses import relations

SHAPE = {"layers": 4, "hidden": 96, "heads": 12}


def loss(ours, theirs, mask=None, **told):
    batch = {} if mask is None else {"attention_mask": torch.tensor(mask)}
    both = ({"query.0": ours}, {"query.0": theirs})
    return relations.loss(*both, batch, relations.Settings(**told), None)


def test_value_by_hand():
    # one head of size 1: the teacher's tokens (1, 0) give scores (1 0) and (0 0), the student's
    # zeros always 1/2 and 1/2
    theirs, ours = torch.tensor([[[1.0], [0.0]]]), torch.zeros(1, 2, 1)
    high = math.e / (1 + math.e)
    first = high * math.log(2 * high) + (1 - high) * math.log(2 * (1 - high))
    assert loss(ours, theirs).item() == pytest.approx(first / 2, rel=1e-5)


def test_scores_are_over_the_root_of_the_size_of_a_head():
    theirs, ours = torch.tensor([[[1.0, 1.0, 1.0, 1.0], [0.0] * 4]]), torch.zeros(1, 2, 4)
    for heads, score in ((1, 4 / 2), (2, 2 / math.sqrt(2)), (4, 1)):
        high = 1 / (1 + math.exp(-score))
        first = high * math.log(2 * high) + (1 - high) * math.log(2 * (1 - high))
        assert loss(ours, theirs, heads=heads).item() == pytest.approx(first / 2, rel=1e-5)


def test_kinds_are_added():
    ours, theirs = ({f"{kind}.0": torch.randn(2, 3, 4) for kind in relations.KINDS} for _ in "ab")
    told = relations.Settings()
    whole = relations.loss(ours, theirs, {}, told, None).item()
    each = [
        relations.loss({name: ours[name]}, {name: theirs[name]}, {}, told, None).item()
        for name in ours
    ]
    assert whole == pytest.approx(sum(each), rel=1e-5)


def test_widths_may_differ_and_turning_all_tokens_alike_changes_nothing():
    """What counts is how tokens lie to each other, within a head."""
    theirs = torch.randn(2, 5, 4)
    turned, _ = torch.linalg.qr(torch.randn(4, 4))
    assert loss(theirs @ turned, theirs, heads=1).item() == pytest.approx(0, abs=1e-5)
    assert loss(torch.randn(2, 5, 2), theirs, heads=2).item() > 0


def test_which_layers_are_read():
    student = {**SHAPE, "layers": 2, "hidden": 64, "heads": 8}
    needs = relations.needs(relations.Settings(), student, SHAPE)
    assert needs == {"query.1": "query.3", "key.1": "key.3", "value.1": "value.3"}
    told = relations.Settings(teacher_layer=-2, of=("key",))
    assert relations.needs(told, student, SHAPE) == {"key.1": "key.2"}
    for told, says in (
        ({"teacher_layer": 4}, r"teacher_layer: 4: expected -4 to 3"),
        ({"heads": 12}, r"heads: 12 heads don't divide the widths 64 and 96"),
    ):
        with pytest.raises(JobError, match=says):
            relations.needs(relations.Settings(**told), student, SHAPE)


@pytest.mark.parametrize(("ours", "theirs", "heads"), [(384, 384, 48), (256, 384, 32), (8, 12, 4)])
def test_relation_heads_are_the_most_that_fit_both(ours, theirs, heads):
    assert relations._heads(0, ours, theirs) == heads


def test_the_arithmetic_of_a_training_in_bfloat16_is_not_that_of_relations():
    torch.manual_seed(0)
    theirs = torch.randn(2, 6, 8).bfloat16()
    ours = theirs + 0.01 * torch.randn(2, 6, 8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(ours, theirs)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(loss(ours.float(), theirs.float()).item(), rel=1e-6)
