"""The losses of a recipe as one."""

from __future__ import annotations

import pytest
import torch

from edgedistill.errors import JobError, TrainingError
from edgedistill.train import objective

BOTH = {"soft_labels": {"weight": 1.0}, "hard_labels": {"weight": 2.0}}
OURS, THEIRS = torch.tensor([[1.0, 2.0, 0.5]]), torch.tensor([[0.0, 3.0, 1.0]])
BATCH = {"truth": torch.tensor([2])}


def terms(losses, alpha=0.75, temperature=2.0):
    return objective.terms(losses, alpha=alpha, temperature=temperature, student={}, teacher={})


def value(found, share=0.0):
    student, teacher = {"logits": OURS}, {"logits": THEIRS}
    return objective.total(found, student, teacher, BATCH, share=share).item()


def one(name, **settings):
    whole = terms({name: settings}, alpha=1.0 if name == "soft_labels" else 0.0)
    return value(whole)


def test_it_is_alpha_of_the_teachers_and_the_rest_of_the_truths():
    expected = 0.75 * one("soft_labels") + 0.25 * 2 * one("hard_labels")
    assert value(terms(BOTH)) == pytest.approx(expected, rel=1e-6)


def test_the_control_is_the_truth_alone():
    assert value(terms({"hard_labels": {"weight": 1.0}}, alpha=0.0)) == pytest.approx(
        torch.nn.functional.cross_entropy(OURS, BATCH["truth"]).item(), rel=1e-6
    )
    found = terms(BOTH, alpha=0.0)
    assert [term.name for term in found] == ["hard_labels"]
    assert objective.needs(found, of_teacher=True) == ()


def test_the_recipes_temperature_unless_the_loss_names_its_own():
    assert terms({"soft_labels": {}})[0].settings.temperature == 2.0
    assert terms({"soft_labels": {"temperature": 7}})[0].settings.temperature == 7.0
    # of logits that are standardized, a deviation is 1
    assert terms({"standardized_labels": {}}, temperature=9.0)[0].settings.temperature == 2.0
    assert terms({"standardized_labels": {"temperature": 5}})[0].settings.temperature == 5.0


def test_a_weight_can_move_over_the_run():
    found = terms({"soft_labels": {"weight": [1.0, 0.0]}}, alpha=1.0)
    assert value(found, 0.25) == pytest.approx(0.75 * one("soft_labels"), rel=1e-6)
    found = terms({"soft_labels": {"weight": [1.0, 0.5, 0.4]}}, alpha=1.0)
    for share, weight in ((0.0, 1.0), (0.2, 0.75), (0.4, 0.5), (0.9, 0.5)):
        assert found[0].weight(share) == pytest.approx(weight)


def test_losses_that_have_all_faded_out_end_as_zero():
    found = terms({"soft_labels": {"weight": [1, 0]}, "logit_matching": {"weight": [2, 0]}}, 1.0)
    assert value(found, 1.0) == 0 < value(found, 0.5)


def test_each_loss_gets_what_it_reads_the_teachers_beside_the_students():
    class Loss:
        READS_TEACHER, DIMENSIONS = True, ("layers",)

        @staticmethod
        def loss(student, teacher, batch, settings, learned):
            assert list(student) == list(teacher) == ["hidden.0", "hidden.1"]
            assert student["hidden.1"] == 10 and teacher["hidden.0"] == teacher["hidden.1"] == 3
            return torch.tensor(5.0)

    pairs = {"hidden.0": "hidden.4", "hidden.1": "hidden.4"}
    found = (objective.Term("it", Loss, None, 1.0, 1.0, pairs, None), *terms({"soft_labels": {}}))
    assert objective.needs(found) == ("hidden.0", "hidden.1", "logits")
    assert objective.needs(found, of_teacher=True) == ("hidden.4", "logits")
    student = {"hidden.0": 9, "hidden.1": 10, "logits": OURS}
    teacher = {"hidden.4": 3, "logits": THEIRS}
    whole = objective.total(found, student, teacher, BATCH, share=0.0).item()
    assert whole == pytest.approx(5 + 0.75 * one("soft_labels"), rel=1e-6)


@pytest.mark.parametrize(
    "weight", ["much", [1.0], -1, [0, -2], [1, 0, 0], [1, 0, 1.5], [1, 0, 1, 1]]
)
def test_a_weight_that_is_none_is_an_error(weight):
    with pytest.raises(JobError, match=r"losses\.soft_labels\.weight"):
        terms({"soft_labels": {"weight": weight}})


def test_unknown_names_answer_with_the_nearest():
    with pytest.raises(JobError, match="soft_labels"):
        terms({"soft_label": {}})
    with pytest.raises(JobError, match=r"'temperatur'.*temperature"):
        terms({"soft_labels": {"temperatur": 2}})


def test_nothing_to_minimise_is_an_error():
    with pytest.raises(TrainingError, match="no loss"):
        terms({"soft_labels": {"weight": 0.0}})


@pytest.mark.parametrize(
    ("weight", "ends"),
    [
        ("2", (2, 2, 1)),
        (2, (2, 2, 1)),
        ("1,0", (1, 0, 1)),
        ("[1, 0]", (1, 0, 1)),
        ([1, "0.5"], (1, 0.5, 1)),
        ("[1, 0, 0.5]", (1, 0, 0.5)),
    ],
)
def test_weights_of_a_command_line_become_numbers(weight, ends):
    (told,) = objective.read({"soft_labels": {"weight": weight}})
    assert (told.first, told.last, told.until) == ends
    (again,) = objective.read({"soft_labels": told.plain()})
    assert again == told


def test_what_is_told_reads_back(tmp_path):
    losses = {"soft_labels": {"weight": [1, 0], "temperature": "3"}, "hard_labels": {}}
    plain = {one.name: one.plain() for one in objective.read(losses)}
    assert plain["soft_labels"] == {"weight": [1.0, 0.0], "temperature": 3.0}
    assert {one.name: one.plain() for one in objective.read(plain)} == plain
