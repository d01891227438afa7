"""The store's commands as they are typed: what is no store, what goes, what does not hold."""

import json
import os
import time
from pathlib import Path

import pytest

from edgedistill.store import Store

DAY = 86400
KEYS = ("ab" * 32, "cd" * 32)


@pytest.fixture
def store(tmp_path):
    """A store of two sources, one of them not used for ten days."""
    made = Store(tmp_path / "cache")
    for key in KEYS:
        made.bring("arrays", key, lambda out: (out / "model.safetensors").write_text("5"))
    then = time.time() - 10 * DAY
    old = made.root / "v1" / "sources" / KEYS[0]
    for path in (old, *old.rglob("*"), *(made.root / "locks").glob(f"{KEYS[0]}*")):
        os.utime(path, (then, then))
    return made.root


# ---------------------------------------------------------------- what goes


@pytest.mark.parametrize("text", ["3", "30", "3 days", "d", "-3d", "", "0d"])
def test_an_age_has_a_unit(command, store, text):
    said = command("store", "drop", "--unused-for", text, "--store", store)
    assert said.code == 2 and "expected a time with its unit, such as 30d or 12h" in said.error()
    assert len(list((store / "v1" / "sources").iterdir())) == 2


@pytest.mark.parametrize("text", ["3", "0", "5 gb", "-5GB", "GB"])
def test_a_size_has_a_unit(command, store, text):
    said = command("store", "drop", "--down-to", text, "--store", store)
    assert said.code == 2 and "expected a size with its unit, such as 500MB or 5GB" in said.error()
    assert len(list((store / "v1" / "sources").iterdir())) == 2


@pytest.mark.parametrize("age", ["3d", "48h", "4000m", "300000s"])
def test_what_goes_is_said(command, store, age):
    said = command("store", "drop", "--unused-for", age, "--store", store)
    assert said.code == 0
    first, total = said.out.splitlines()
    assert first.split()[:2] == ["sources", KEYS[0][:12]] and total.startswith("dropped 1 entry, ")
    assert [each.name for each in (store / "v1" / "sources").iterdir()] == [KEYS[1]]
    said = command("store", "drop", "--down-to", "0B", "--store", store)
    assert KEYS[1][:12] in said.out and "dropped 1 entry" in said.out
    assert "dropped 0 entries" in command("store", "drop", "--down-to", "1kB", "--store", store).out


def test_one_entry_is_one_entry(command, store):
    assert "2 entries, " in command("store", "list", "--store", store).out
    command("store", "drop", KEYS[0], "--store", store)
    assert "1 entry, " in command("store", "list", "--store", store).out


# ---------------------------------------------------------------- what is no store


@pytest.mark.parametrize("verb", [("list",), ("show", "ab"), ("drop", KEYS[0]), ("verify",)])
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("nothing", "there is no such folder"),
        ("file", "it is a file"),
        ("folder", "it holds no 'v1'"),
        ("newer", "is a store of version 2, this edgedistill reads 1: update it"),
    ],
)
def test_what_is_no_store_is_said(command, tmp_path, monkeypatch, verb, kind, says):
    place = tmp_path / "place"
    if kind == "file":
        place.write_text("mine")
    elif kind != "nothing":
        (place / {"folder": "mine", "newer": "v2"}[kind]).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    said = command("store", *verb, "--store", place)
    assert said.code == 2 and says in said.error() and str(place) in said.error() and not said.out
    assert sorted(tmp_path.rglob("*")) == before
    if kind != "nothing":
        monkeypatch.setenv("EDGEDISTILL_STORE", str(place))
        assert says in command("store", *verb).error()


def test_a_store_that_no_build_has_made_yet_is_empty(command, tmp_path):
    said = command("store", "list")
    assert said.code == 0 and said.out.endswith("(nothing is there yet)\n")
    assert command("store", "verify").code == 0
    (tmp_path / "empty").mkdir()
    assert "0 entries" in command("store", "list", "--store", tmp_path / "empty").out
    (tmp_path / "store" / "arm64").mkdir(parents=True)  # a system to emulate lies beside it
    assert command("store", "list").code == 0


def test_a_newer_store_beside_ours_is_said(command, store):
    (store / "v2").mkdir()
    said = command("store", "verify", "--store", store)
    assert said.code == 0 and "everything holds" in said.out
    assert said.err.startswith("warning") and "version 2" in said.err


# ---------------------------------------------------------------- what does not hold


def test_show_says_what_verify_says(command, store):
    assert "  whole  " in command("store", "show", "abab", "--store", store).out.splitlines()[0]
    Path(store, "v1", "sources", KEYS[0], "model.safetensors").unlink()
    said = command("store", "show", "abab", "--store", store)
    assert "damaged: model.safetensors is missing" in said.out.splitlines()[0]
    told = json.loads(command("store", "show", "abab", "--store", store, "--json").out)
    assert told["state"] == "damaged: model.safetensors is missing" and told["record"]["files"]
    assert "model.safetensors is missing" in command("store", "verify", "--store", store).out
