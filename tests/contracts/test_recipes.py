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


def test_there_is_the_default():
    assert "logits" in NAMES


def test_it_has_the_sections_and_no_others(recipe):
    assert recipe["about"] and set(recipe) <= KEYS and recipe["losses"]


def test_its_optimisation_is_settings_of_distill(recipe):
    stage = plugins.find("stages", "distill")
    told = {name: value for name, value in recipe["optimisation"].items() if name not in PLANNED}
    settings.coerce(stage.Settings, told, "optimisation")
    assert recipe["optimisation"]["epochs"] > 0


def test_its_losses_are_ones(recipe):
    shape = {"layers": 4, "hidden": 32, "heads": 4, "feed_forward": 64}
    found = objective.terms(
        recipe["losses"],
        alpha=recipe["optimisation"]["alpha"],
        temperature=recipe["optimisation"]["temperature"],
        student={**shape, "layers": 2},
        teacher=shape,
    )
    assert len(found) == len(recipe["losses"])
    assert any(term.plugin.READS_TEACHER for term in found)


def test_its_made_rows_are_kinds_that_a_task_makes(recipe):
    made = recipe.get("augmentation", {}).get("made", [])
    known = {kind for name in plugins.names("tasks") for kind in plugins.find("tasks", name).MADE}
    assert set(made) <= known
    assert recipe.get("augmentation", {}).get("copies", 1) >= 1
