"""The loop: it learns, resumes to the byte, keeps the best, and says when it can't go on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny
import torch

from edgedistill import plugins
from edgedistill.data import arrays
from edgedistill.errors import TrainingError
from edgedistill.train import checkpoint, loop, objective, outputs, pace, signals, weights
from edgedistill.train.batches import Examples

outputs.prepare(1)


class Killed(BaseException):
    """What a test throws where a kill would come."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loop")
    tiny.model(folder / "model", "bert", num_hidden_layers=2)
    tiny.rows(folder / "train", folder / "model", count=300)
    tiny.rows(folder / "validation", folder / "model", count=30, seed=1)
    return folder


def work(place, resume, *, progress=lambda event: None, losses=None, family=None, **told):
    task = plugins.find("tasks", "text-classification")
    settings = {"steps": 24, "batch": 16, "rate": 5e-3, "evaluate_every": 8, **told}
    folder = place / "model"
    return loop.Work(
        task=task,
        encoder=task.open_encoder(folder, tiny.encoder(folder, "bert")),
        examples=Examples([place / "train"]),
        validation=Examples([place / "validation"]),
        terms=losses
        or objective.terms({"hard_labels": {}}, alpha=0.0, temperature=1, student={}, teacher={}),
        training=pace.Training(**settings),
        resume=resume,
        family=family,
        progress=progress,
    )


def model(place):
    return weights.load(place / "model", plugins.find("tasks", "text-classification"))


def same(one, other):
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(tensor, second[name]) for name, tensor in first.items()
    )


def test_it_learns_and_keeps_the_best(place, tmp_path):
    trained = model(place)
    before = loop.score(trained, Examples([place / "validation"]), work(place, tmp_path))
    fitted = loop.fit(trained, work(place, tmp_path, steps=60, embedding_rate=1.0))
    assert fitted.score > 80 > before
    scores = [one[which] for one in fitted.history for which in ("raw", "ema")]
    assert fitted.score == max(scores)
    again = loop.score(trained, Examples([place / "validation"]), work(place, tmp_path))
    assert again == fitted.score
    assert not trained.training
    assert fitted.history[0]["step"] == 8 and fitted.steps == 60


def answered(place, folder, logits):
    """The validation rows with those logits beside them, as a teacher's answers lie there."""
    arrays.write(folder, [{"logits": row.astype(np.float16)} for row in logits])
    return Examples([place / "validation"], [folder])


def told(fitted):
    """What each validation gave: (score, nats from the teacher, step, weights)."""
    return [
        (one[which], one[f"{which}_from_teacher"], one["step"], which)
        for one in fitted.history
        for which in ("raw", "ema")
    ]


def test_beside_a_teacher_the_best_is_what_answers_most_like_it(place, tmp_path):
    """A teacher that errs: the longer the truth is learned, the higher the score, the farther."""
    rows = Examples([place / "validation"])
    wrong = np.eye(3)[(rows.truth + 1) % 3] * 4
    with_answers = answered(place, tmp_path / "wrong", wrong)
    trained = model(place)
    asked = work(place, tmp_path / "r", steps=60, embedding_rate=1.0)
    fitted = loop.fit(trained, dataclasses.replace(asked, validation=with_answers))
    best = (fitted.score, fitted.from_teacher, fitted.step, fitted.weights)
    assert best == min(told(fitted), key=lambda one: one[1])
    assert fitted.score < max(score for score, *_ in told(fitted))
    assert loop.score(trained, rows, asked) == fitted.score
    assert fitted.facts()["best"]["from_teacher"] == fitted.from_teacher


def test_it_stops_when_it_comes_no_nearer_to_its_teacher(place, tmp_path):
    """The score rises until the end here; what is waited for is what weights are chosen by."""
    rows = Examples([place / "validation"])
    wrong = answered(place, tmp_path / "wrong", np.eye(3)[(rows.truth + 1) % 3] * 4)
    asked = work(place, tmp_path / "r", steps=60, evaluate_every=4, patience=3, embedding_rate=1.0)
    fitted = loop.fit(model(place), dataclasses.replace(asked, validation=wrong))
    assert fitted.steps == fitted.step + 3 * 4 < 60


def test_how_far_answers_are_from_the_teachers(place, tmp_path, monkeypatch):
    """KL(teacher || student) by hand, over rows in several parts."""
    monkeypatch.setattr(outputs, "CHUNK", 7)
    theirs = np.random.default_rng(2).normal(size=(30, 3)).astype(np.float16).astype(np.float64)
    examples = answered(place, tmp_path / "t", theirs)
    asked = dataclasses.replace(work(place, tmp_path / "r", steps=1), validation=examples)
    trained = model(place)
    fitted = loop.fit(trained, asked)
    logits = outputs.logits(trained, examples, asked.task.forward, asked.encoder)
    ours = np.concatenate(list(logits)).astype(np.float64)
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (theirs, ours))
    assert fitted.from_teacher == pytest.approx((p * np.log(p / q)).sum(axis=1).mean(), rel=1e-4)


def test_answers_that_are_no_number_are_nobodys_best(place, tmp_path):
    none = np.full((30, 3), np.nan)
    examples = answered(place, tmp_path / "none", none)
    asked = dataclasses.replace(work(place, tmp_path / "r"), validation=examples)
    with pytest.raises(TrainingError, match=r"from the teacher is not a number at step 8 "):
        loop.fit(model(place), asked)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_resumed_run_ends_with_the_same_bytes(place, tmp_path, monkeypatch, dtype):
    whole = model(place)
    straight = loop.fit(whole, work(place, tmp_path / "straight", dtype=dtype))
    monkeypatch.setenv(checkpoint.VARIABLE, "0")
    pieces = model(place)
    for stop in (5, 8, 17):

        def killed(event, stop=stop):
            if event.get("done", 0) >= stop:
                raise Killed

        monkeypatch.setattr(loop, "BAR_SECONDS", 0.0)
        with pytest.raises(Killed):
            loop.fit(model(place), work(place, tmp_path / "r", progress=killed, dtype=dtype))
    told = []
    fitted = loop.fit(pieces, work(place, tmp_path / "r", progress=told.append, dtype=dtype))
    assert {"kind": "note", "text": "goes on from step 16"} in told
    assert same(whole, pieces)
    assert fitted == straight


def test_a_resume_past_a_damaged_checkpoint_ends_with_the_same_bytes(place, tmp_path, monkeypatch):
    whole = model(place)
    loop.fit(whole, work(place, tmp_path / "straight"))
    monkeypatch.setenv(checkpoint.VARIABLE, "0")
    loop.fit(model(place), work(place, tmp_path / "r"))
    newest = sorted((tmp_path / "r").iterdir())[-1] / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:100])
    pieces = model(place)
    loop.fit(pieces, work(place, tmp_path / "r"))
    assert same(whole, pieces)


def test_seeds_decide_everything(place, tmp_path):
    trained = [model(place) for _ in range(3)]
    for index, seed in enumerate((3, 3, 4)):
        torch.manual_seed(index)  # whatever was drawn before does not matter
        loop.fit(trained[index], work(place, tmp_path / str(index), steps=6, seed=seed))
    assert same(trained[0], trained[1])
    assert not same(trained[0], trained[2])


def test_only_pieces_that_occur_are_trained(place, tmp_path):
    trained = model(place)
    table = trained.get_input_embeddings().weight.detach().clone()
    loop.fit(trained, work(place, tmp_path, steps=6))
    now = trained.get_input_embeddings().weight.detach()
    assert now.shape == table.shape
    moved = {index for index in range(len(table)) if not torch.equal(table[index], now[index])}
    used = set(Examples([place / "train"]).used("input_ids").tolist())
    assert moved and moved <= used


def test_a_loss_that_is_no_number_names_step_and_rate(place, tmp_path):
    class Broken:
        READS_TEACHER = False

        @staticmethod
        def loss(student, teacher, batch, settings, learned):
            Broken.calls += 1
            return student["logits"].sum() * (float("nan") if Broken.calls > 3 else 0.0)

    Broken.calls = 0
    broken = objective.Term("broken", Broken, None, 1.0, 1.0, {"logits": "logits"}, None)
    with pytest.raises(TrainingError, match=r"loss is not a number at step 4 of 24, rate 0\.0048"):
        loop.fit(model(place), work(place, tmp_path, losses=(broken,)))


def test_it_stops_when_nothing_gets_better(place, tmp_path):
    fitted = loop.fit(
        model(place), work(place, tmp_path, steps=400, evaluate_every=1, rate=0.0, patience=3)
    )
    assert fitted.steps == 4
    assert fitted.step == 4  # of what is worth the same the later one is kept


def test_it_goes_on_while_it_comes_nearer_to_its_teacher(place, tmp_path):
    """The score has long been what it will be."""
    rows = Examples([place / "validation"])
    right = answered(place, tmp_path / "right", np.eye(3)[rows.truth] * 8)
    asked = work(
        place, tmp_path / "r", steps=240, evaluate_every=12, patience=3, embedding_rate=1.0
    )
    fitted = loop.fit(model(place), dataclasses.replace(asked, validation=right))
    scores = [max(one["raw"], one["ema"]) for one in fitted.history]
    best = scores.index(max(scores))
    assert fitted.steps > 12 * (best + 1 + 3)


def test_a_score_may_be_the_better_the_lower(place, tmp_path):
    class Lower:
        HIGHER_IS_BETTER = False

        def __getattr__(self, name):
            return getattr(plugins.find("tasks", "text-classification"), name)

    asked = work(place, tmp_path, steps=60, embedding_rate=1.0)
    asked = dataclasses.replace(asked, task=Lower())
    fitted = loop.fit(model(place), asked)
    scores = [one[which] for one in fitted.history for which in ("raw", "ema")]
    assert fitted.score == min(scores) < max(scores)


def test_learned_parts_of_losses_are_trained_and_resumed(place, tmp_path, monkeypatch):
    class Learning:
        READS_TEACHER = False

        @staticmethod
        def loss(student, teacher, batch, settings, learned):
            return learned(student["logits"]).square().mean()

    def losses():
        torch.manual_seed(5)
        part = torch.nn.Linear(3, 4)
        return (objective.Term("learning", Learning, None, 1.0, 1.0, {"logits": "logits"}, part),)

    monkeypatch.setenv(checkpoint.VARIABLE, "0")
    monkeypatch.setattr(loop, "BAR_SECONDS", 0.0)
    straight, first = model(place), losses()
    loop.fit(straight, work(place, tmp_path / "a", losses=first, steps=10))

    def killed(event):
        if event.get("done") == 6:
            raise Killed

    with pytest.raises(Killed):
        loop.fit(
            model(place), work(place, tmp_path / "b", losses=losses(), steps=10, progress=killed)
        )
    resumed, last = model(place), losses()
    loop.fit(resumed, work(place, tmp_path / "b", losses=last, steps=10))
    assert same(straight, resumed) and same(first[0].learned, last[0].learned)
    torch.manual_seed(5)
    assert not torch.equal(torch.nn.Linear(3, 4).weight, last[0].learned.weight)
    assert not any("learned" in name for name in resumed.state_dict())


def test_a_live_teacher_and_cached_logits_train_the_same(place, tmp_path):
    from edgedistill.data import arrays

    task = plugins.find("tasks", "text-classification")
    teacher = model(place).eval()
    base = work(place, tmp_path / "x")
    logits = np.concatenate(
        list(outputs.logits(teacher, base.examples, task.forward, base.encoder))
    )
    arrays.write(tmp_path / "labels", [{"logits": row} for row in logits])  # float32: the same
    examples = Examples([place / "train"], [tmp_path / "labels"])
    soft = objective.terms({"soft_labels": {}}, alpha=1.0, temperature=2, student={}, teacher={})
    live = signals.Live(teacher, signals.Taps(teacher, ("logits",), None), task.forward)
    histories = []
    for index, read in enumerate((live.read, signals.Cached(examples, "cpu").read)):
        torch.manual_seed(0)
        student = model(place)
        torch.nn.init.normal_(student.classifier.weight)
        one = work(place, tmp_path / str(index), losses=soft, steps=5, evaluate_every=1)
        one = loop.Work(**{**one.__dict__, "teacher": read})
        histories.append([entry["loss"] for entry in loop.fit(student, one).history])
    assert histories[0] == pytest.approx(histories[1], rel=1e-3)


def test_embeddings_go_at_a_part_of_the_rate(place, tmp_path):
    def moved(factor):
        trained = model(place)
        before = {name: one.detach().clone() for name, one in trained.named_parameters()}
        loop.fit(
            trained,
            work(place, tmp_path / str(factor), steps=1, embedding_rate=factor, average="none"),
        )
        after = dict(trained.named_parameters())
        names = (
            "bert.embeddings.word_embeddings.weight",
            "bert.encoder.layer.0.output.dense.weight",
        )
        return [float((after[name].detach() - before[name]).abs().max()) for name in names]

    (full_table, full_layer), (tenth_table, tenth_layer) = moved(1.0), moved(0.1)
    assert tenth_table == pytest.approx(full_table / 10, rel=0.01)
    assert tenth_layer == pytest.approx(full_layer, rel=1e-3)


def test_the_time_of_a_run_is_estimated(place, tmp_path):
    few = loop.seconds(model(place), work(place, tmp_path / "e", steps=100, evaluate_every=100))
    many = loop.seconds(
        model(place), work(place, tmp_path / "e", steps=100000, evaluate_every=1000)
    )
    assert 0 < few < many
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize("read", ["logits", "hidden.1"])
def test_no_more_of_the_model_is_computed_than_losses_read(place, tmp_path, read):
    """A family says how; what is learned is the same, and a loss inside gets the whole layer."""

    class Reading:
        READS_TEACHER = False

        @staticmethod
        def loss(student, teacher, batch, settings, learned):
            return student[read].square().mean()

    rows = []

    def trained(family):
        one = weights.load(
            place / "model", plugins.find("tasks", "text-classification"), dropout=0.0
        )
        feed_forward = one.bert.encoder.layer[1].output.dense
        feed_forward.register_forward_hook(lambda module, given, output: rows.append(given[0]))
        losses = (objective.Term("reading", Reading, None, 1.0, 1.0, {read: read}, None),)
        loop.fit(one, work(place, tmp_path / str(family), losses=losses, family=family, steps=5))
        return dict(one.named_parameters())

    found = [trained(plugins.find("families", "encoder"))]
    narrow = [each.shape[1] for each in rows if len(each) > 2]  # the trial at the start takes two
    assert (set(narrow) == {1}) == (read == "logits")
    if read == "logits":
        found.append(trained(None))
        for name, tensor in found[0].items():
            assert torch.allclose(found[1][name], tensor, atol=2e-5), name


def test_the_time_is_that_of_the_training_which_has_few_pieces(place, tmp_path, monkeypatch):
    tables = []
    step = loop._one_step

    def seen(run, *others):
        tables.append(len(run.model.get_input_embeddings().weight))
        return step(run, *others)

    monkeypatch.setattr(loop, "_one_step", seen)
    monkeypatch.setattr("edgedistill.train.compact.PAYS_BELOW", 1.0)
    few = work(place, tmp_path / "e")
    one = model(place)
    whole = len(one.get_input_embeddings().weight)
    loop.seconds(one, few)
    estimated, tables[:] = set(tables), []
    assert len(one.get_input_embeddings().weight) == whole
    loop.fit(one, few)
    assert set(tables) == estimated and max(estimated) < whole
