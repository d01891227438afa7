"""Plans of made-up facts, for tests: a BERT of 6 layers x 32, a ResNet, a second teacher."""

import dataclasses
from pathlib import Path

from edgedistill import job, planner, plugins, target
from edgedistill.builder.course import steps_of
from edgedistill.records import Source
from edgedistill.train import recipe

CONFIG = {
    "model_type": "bert",
    "num_hidden_layers": 6,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 100,
}
SHAPE = {"layers": 6, "hidden": 32, "heads": 4, "feed_forward": 64, "vocabulary": 100}
MORE = {
    "rows": {"train": 640, "validation": 50, "test": 50, "unlabelled": 320},
    "splits": {
        name: Source("rows", name[0] * 64, Path(name), name)
        for name in ("train", "validation", "test", "unlabelled")
    },
}
OWN = {
    "rows": {**MORE["rows"], "own_train": 32, "own_validation": 8, "own_test": 8},
    "splits": {
        **MORE["splits"],
        **{
            name: Source("rows", name[4:6] * 32, Path(name), name)
            for name in ("own_train", "own_validation", "own_test")
        },
    },
}


def facts(*, head=True, **changes):
    teacher = planner.Model(
        source=Source("model", "m" * 64, Path("m"), "teacher"),
        encoder_source=Source("encoder", "e" * 64, Path("e"), "teacher"),
        encoder={"max_length": 16},
        config=CONFIG,
        family="encoder",
        shape=SHAPE,
        has_head=head,
    )
    host = planner.Host(
        threads=1, dtype="float32", device="cpu", instructions="x86-64+vnni", opset=17, ir=8
    )
    values = {
        "task": "text-classification",
        "metric": "accuracy",
        "labels": ("a", "b"),
        "rows": {"train": 640, "validation": 50, "test": 50},
        "splits": {
            name: Source("rows", name[0] * 64, Path(name), name)
            for name in ("train", "validation", "test")
        },
        "teacher": teacher,
        "host": host,
        "recipe": recipe.read("logits"),
    }
    return planner.Facts(**{**values, **changes})


def plan(*, head=True, known=None, on="phone", **names):
    asked = job.named(target="phone", model="m", data="d", **names)
    found = target.with_limits(target.load(on), asked.limits)
    return planner.propose(asked, found, facts(head=head, **(known or {})))


def steps_named(made, stage):
    return [step for step in steps_of(made.rows()) if step.stage == stage]


def losses_of(made):
    row = next(row for row in made.candidates if row.name == "student 2x32 int8")
    return row.training.settings["losses"]


def sources(step, kind):
    found = set()
    for each in step.inputs.values():
        if isinstance(each, Source):
            found |= {each.name} if each.kind == kind else set()
        else:
            found |= sources(each, kind)
    return found


def usual(row):
    return row.name.endswith(" int8")


def network(**names):
    """Plan for a ResNet."""
    resnet = {
        "model_type": "resnet",
        "num_channels": 1,
        "embedding_size": 16,
        "hidden_sizes": [16, 32],
        "depths": [2, 2],
        "layer_type": "basic",
    }
    family = plugins.find("families", "resnet")
    told = facts(task="image-classification", recipe=recipe.read(names.pop("recipe", "logits")))
    teacher = dataclasses.replace(
        told.teacher, config=resnet, family="resnet", shape=family.shape(resnet), encoder={}
    )
    found = target.load("phone")
    return planner.propose(
        job.named(target="phone", model="m", data="d", **names),
        found,
        dataclasses.replace(told, teacher=teacher),
    )


def beside(name="other", tokenizer="f", **changes):
    told = facts().teacher
    return dataclasses.replace(
        told,
        source=Source("model", name[0] * 64, Path(name), name),
        encoder_source=Source("encoder", tokenizer * 64, Path(tokenizer), name),
        labels=("b", "a"),
        **changes,
    )


def row_of(made, name):
    return next(row for row in made.rows() if row.name == name)
