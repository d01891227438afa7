"""Every recipe is one that the stage distill takes."""

from __future__ import annotations

import tomllib

import pytest

from edgedistill import plugins, settings
from edgedistill.train import objective

NAMES = plugins.names("recipes")
PLANNED = {"epochs"}  # the planner turns it into steps
KEYS = {"about", "losses", "optimisation", "augmentation"}


@pytest.fixture(params=NAMES)
def recipe(request):
    return tomllib.loads(plugins.find_file("recipes", request.param).read_text())


@pytest.fixture(params=NAMES)
def recipe_text(request):
    return plugins.find_file("recipes", request.param).read_text()


def test_there_is_the_default_and_one_of_each_kind():
    assert {"logits", "features", "attention", "relations", "hybrid"} <= set(NAMES)


def test_it_has_the_sections_and_no_others(recipe):
    assert recipe["about"] and set(recipe) <= KEYS and recipe["losses"]


def test_its_optimisation_is_settings_of_distill(recipe):
    stage = plugins.find("stages", "distill")
    told = {name: value for name, value in recipe["optimisation"].items() if name not in PLANNED}
    settings.coerce(stage.Settings, told, "optimisation")
    assert recipe["optimisation"]["epochs"] > 0


ENCODER = {"layers": 4, "hidden": 32, "heads": 4, "feed_forward": 64}
NETWORK = {
    "stages": 2, "blocks": 4, "channels": 32, "embedding": 16,
    "blocks.0": 2, "blocks.1": 2, "channels.0": 16, "channels.1": 32,
}  # fmt: skip
SMALLER = {"layers": 2, "hidden": 16, "heads": 2, "channels": 16, "channels.0": 8, "channels.1": 16}


@pytest.mark.parametrize("teacher", [ENCODER, NETWORK])
@pytest.mark.parametrize("narrow", [False, True])
def test_its_losses_are_ones_for_what_they_find_in_a_model(recipe, teacher, narrow):
    """Of each family those that count can be built, for a narrower student too."""
    student = {name: SMALLER.get(name, size) if narrow else size for name, size in teacher.items()}
    told = objective.read(recipe["losses"])
    kept = {one.name: one.plain() for one in told if not one.lacks(student, teacher)}
    found = objective.terms(
        kept,
        alpha=recipe["optimisation"]["alpha"],
        temperature=recipe["optimisation"]["temperature"],
        student=student,
        teacher=teacher,
    )
    assert len(found) == len(kept)
    assert any(term.plugin.READS_TEACHER and not term.plugin.DIMENSIONS for term in found)


def test_each_of_its_losses_counts_somewhere_and_of_each_task(recipe):
    for told in objective.read(recipe["losses"]):
        assert not told.lacks(ENCODER, ENCODER) or not told.lacks(NETWORK, NETWORK)
        for name in plugins.names("tasks"):
            assert told.serves(plugins.find("tasks", name).OUTPUTS)


def test_what_reads_the_inside_fades_out_so_that_the_teacher_rests(recipe):
    for told in objective.read(recipe["losses"]):
        assert not told.inside or (told.last == 0 and told.until <= 0.5)


def test_it_says_why(recipe_text):
    comments = [line for line in recipe_text.splitlines() if line.startswith("#")]
    assert len(comments) >= 4 and len(recipe_text.splitlines()[0]) <= 120


def test_its_made_rows_are_kinds_that_a_task_makes(recipe):
    made = recipe.get("augmentation", {}).get("made", [])
    known = {kind for name in plugins.names("tasks") for kind in plugins.find("tasks", name).MADE}
    assert set(made) <= known
    assert recipe.get("augmentation", {}).get("copies", 1) >= 1
