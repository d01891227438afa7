"""Plans: what is wished of losses, and what they read in teacher and student."""

import shutil
from pathlib import Path

import pytest
from planning import losses_of, network, plan

from edgedistill import losses, plugins
from edgedistill.errors import JobError, TrainingError
from edgedistill.train import recipe


def test_losses_of_the_job_lie_over_the_recipes_loss_by_loss():
    made = plan(settings={"distill.losses.soft_labels.weight": "2"})
    assert losses_of(made) == {"soft_labels": {"weight": 2.0}, "hard_labels": {"weight": 1.0}}
    made = plan(settings={"distill.losses.soft_labels.weight": "[1, 0]"})
    assert losses_of(made)["soft_labels"] == {"weight": [1.0, 0.0]}
    made = plan(settings={"distill.losses.hard_labels.smoothing": "0.1"})
    assert losses_of(made)["hard_labels"] == {"weight": 1.0, "smoothing": 0.1}
    control = next(row for row in made.beside if row.role == "control")
    assert control.training.settings["losses"] == {"hard_labels": {"weight": 1.0, "smoothing": 0.1}}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("losses.soft_label.weight", 1, "did you mean 'soft_labels'"),
        ("losses.soft_labels.wieght", 1, "did you mean 'weight'"),
        ("losses.soft_labels.temperature", -1, "out of range"),
        ("losses.soft_labels.weight", "much", "expected a number of 0 or more, or"),
        ("losses.soft_labels", 1, "expected settings such as weight"),
        ("losses", 1, "expected losses by name"),
        ("copies", 0, "copies: 0 is out of range"),
        ("epochs", "many", "expected a number"),
        ("metric", "acuracy", "did you mean 'accuracy'"),
        ("family", "encodr", "did you mean 'encoder'"),
        ("device", "gpu", "is not one of its values"),
    ],
)
def test_wrong_settings_of_distill_are_found_by_the_plan(name, value, says):
    with pytest.raises(JobError, match=says):
        plan(settings={f"distill.{name}": value})


def test_a_loss_of_other_outputs_than_the_tasks_is_refused(monkeypatch):
    monkeypatch.setattr(plugins.find("losses", "soft_labels"), "OUTPUTS", ("boxes",))
    with pytest.raises(JobError, match=r"'soft_labels' makes no sense for text-class.*reads boxes"):
        plan()


def test_a_loss_is_one_file(tmp_path, monkeypatch):
    """Laid into its folder it can be named in a job: nothing else knows its name."""
    theirs, folder = plugins.folder, Path(shutil.copytree(plugins.folder("losses"), tmp_path / "l"))
    shutil.copyfile(folder / "soft_labels.py", folder / "mine.py")
    monkeypatch.setattr(losses, "__path__", [str(folder)])
    monkeypatch.setattr(
        plugins, "folder", lambda kind: folder if kind == "losses" else theirs(kind)
    )
    assert "mine" in losses_of(plan(settings={"distill.losses.mine.weight": 1}))


def test_without_a_loss_that_counts_there_is_no_plan():
    with pytest.raises(TrainingError, match="no loss"):
        plan(settings={"distill.alpha": 1, "distill.losses.soft_labels.weight": 0})


def test_a_live_teacher_stands_by_where_a_loss_reads_inside_of_it(tmp_path):
    loss = tmp_path / "hidden.py"
    loss.write_text(
        "from edgedistill.losses.soft_labels import *\n"
        "def needs(settings, student_shape, teacher_shape):\n    return ('hidden.1',)\n"
    )
    made = plan(allow_code=True, settings={"distill.losses": {str(loss): {"weight": 1}}})
    row = next(row for row in made.candidates if row.role == "candidate")
    assert row.training.inputs["teacher.0"] is made.baseline.model
    with pytest.raises(JobError, match="--allow-code"):
        plan(settings={"distill.losses": {str(loss): {"weight": 1}}})


def test_layers_that_can_not_be_are_found_by_the_plan():
    made = plan(settings={"distill.losses.hidden_states.map": "1,3"}, student="2")
    assert losses_of(made)["hidden_states"] == {"weight": 1.0, "map": [1, 3]}
    for name, value, says in (
        (
            "hidden_states.map",
            "1,6",
            r"hidden_states\.map: expected a layer of the teacher, 0 to 5",
        ),
        ("hidden_states.map", "lats", "did you mean 'last'"),
        ("relations.heads", 5, "5 heads don't divide"),
        ("relations.teacher_layer", 6, "expected -6 to 5"),
        ("relations.of", "query,keys", "did you mean 'key'"),
    ):
        with pytest.raises(JobError, match=says):
            plan(settings={f"distill.losses.{name}": value}, student="2")


@pytest.mark.parametrize(
    ("name", "text", "image"),
    [
        ("features", {"hidden_states", "embeddings"}, {"feature_maps"}),
        ("attention", {"attention_maps"}, {"attention_transfer"}),
        ("hybrid", {"relations", "hidden_states"}, {"feature_maps", "attention_transfer"}),
    ],
)
def test_of_a_recipe_count_the_losses_that_find_what_they_read(name, text, image):
    both = (plan(known={"recipe": recipe.read(name)}), network(recipe=name))
    for made, inside in zip(both, (text, image), strict=True):
        trained = next(row.training for row in made.candidates if row.role == "candidate")
        assert set(trained.settings["losses"]) == {"soft_labels", "hard_labels", *inside}
        assert trained.inputs["teacher.0"] is made.baseline.model
        controls = [row.training for row in made.beside if row.role == "control"]
        assert controls and not any("teacher.0" in step.inputs for step in controls)


def test_a_recipe_that_finds_nothing_to_read_names_those_that_do():
    says = (
        r"recipe 'relations' reads nothing of such a model: 'relations' reads its layers, hidden, "
        r"heads; recipes that do: attention, features, hybrid, logits"
    )
    with pytest.raises(JobError, match=says):
        network(recipe="relations")


def test_a_loss_that_reads_what_the_models_have_not_is_refused():
    with pytest.raises(JobError, match="'feature_maps' reads stages, channels of both models"):
        plan(settings={"distill.losses.feature_maps.weight": 1})
