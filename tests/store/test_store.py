"""The store: whole or not at all, checked before every use, never dropped under a reader."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgedistill.errors import InternalError, JobError, SurroundingsError, UsageError
from edgedistill.records import Artifact, Source, Step
from edgedistill.store import Store, execute, inventory, keys, locks, seal
from edgedistill.store.shelf import Shelf, default_root

TOY = str(Path(__file__).parent / "toys" / "count.py")
HASH = "ab" * 32


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def rows(store: Store, total: int = 5, hash: str = HASH) -> Source:
    return store.bring(
        "arrays", hash, lambda out: (out / "total").write_text(str(total)), name="five.csv"
    )


def step(*inputs: Step | Source, **settings) -> Step:
    return Step(TOY, settings, {f"from.{index}": each for index, each in enumerate(inputs)})


def events(store: Store, one: Step) -> tuple[Artifact, list[dict]]:
    told: list[dict] = []
    return store.run(one, lambda event: told.append(dict(event))), told


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


# ---------------------------------------------------------------- sources


def test_a_source_is_brought_once_and_found_again(store: Store) -> None:
    calls = []

    def fill(out: Path) -> None:
        calls.append(out)
        (out / "total").write_text("5")

    first = store.bring("rows", HASH, fill, name="train.csv", facts={"rows": 3})
    again = Store(store.root).bring("rows", HASH, fill, name="other.csv")
    assert len(calls) == 1 and first == again
    assert first.path == store.root / "v1" / "sources" / HASH
    lies = store.source(HASH)
    assert lies is not None and (lies.kind, lies.name, lies.facts) == (
        "rows",
        "train.csv",
        {"rows": 3},
    )
    assert store.source("cd" * 32) is None


def test_a_damaged_source_is_brought_again(store: Store) -> None:
    told: list[dict] = []
    source = rows(store)
    (source.path / "total").write_text("6")
    assert store.source(HASH) is None
    store.bring(
        "arrays",
        HASH,
        lambda out: (out / "total").write_text("5"),
        name="five.csv",
        progress=lambda event: told.append(dict(event)),
    )
    assert (source.path / "total").read_text() == "5"
    assert [event["kind"] for event in told] == ["note"]
    assert "five.csv" in told[0]["text"] and "total is damaged" in told[0]["text"]


def test_a_source_that_fails_leaves_nothing(store: Store) -> None:
    def fill(out: Path) -> None:
        (out / "half").write_text("x")
        raise ValueError("a bad row")

    with pytest.raises(ValueError, match="bad row"):
        store.bring("rows", HASH, fill)
    assert store.source(HASH) is None
    assert not list((store.root / "work").rglob("half"))
    rows(store)
    assert store.source(HASH)


def test_a_source_of_another_kind_or_no_hash_is_our_fault(store: Store) -> None:
    rows(store)
    with pytest.raises(InternalError):
        store.bring("model", HASH, lambda out: None)
    with pytest.raises(InternalError):
        store.bring("model", "../../etc", lambda out: None)


# ---------------------------------------------------------------- steps


def test_a_step_is_made_once_and_says_what_the_contract_says(store: Store) -> None:
    first = step(rows(store), add=2, ticks=3)
    made, told = events(store, first)
    assert (made.path / "total").read_text() == "11" and made.facts["total"] == 11
    assert [event["kind"] for event in told if event["kind"] != "bar"] == ["start", "end"]
    assert told[0]["about"].startswith("Count up from what the inputs hold")
    record = json.loads((made.path / "artifact.json").read_bytes())
    known = "code created digest facts files format inputs key packages seal seconds settings stage"
    assert " ".join(sorted(record)) == known
    assert sorted(record["files"]) == ["deep/flat.bin", "total"]
    assert record["files"]["deep/flat.bin"]["bytes"] == 64
    assert record["inputs"] == {"from.0": {"key": HASH, "digest": seal_of(store, HASH)}}
    assert record["settings"] == {"add": 2, "ticks": 3, "rest_s": 0.0, "loss": ""}
    assert str(store.root) not in json.dumps(record)
    again, told = events(store, first)
    assert [(event["kind"], event["cached"]) for event in told] == [("end", True)]
    assert again.cached and not made.cached and again.digest == made.digest
    assert store.find(first) == again and store.seconds(first) == made.seconds
    assert store.has(keys.key(first), TOY) and not list((store.root / "work").iterdir())


def seal_of(store: Store, hash: str) -> str:
    return json.loads((store.root / "v1/sources" / hash / "source.json").read_bytes())["digest"]


def test_the_store_is_its_users_alone(store: Store) -> None:
    made = store.run(step(rows(store)))
    for place in (store.root, store.root / "v1", store.root / "work", store.root / "locks"):
        assert place.stat().st_mode & 0o777 == 0o700
    assert (made.path / "total").stat().st_mode & 0o077 == 0


def test_missing_inputs_are_made_and_cached_ones_are_not(store: Store, tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    first = step(rows(store), add=1)
    last = step(first, add=2)
    assert store.find(last) is None
    store.run(last)
    assert lines(tmp_path / "log") == ["start 1 at 0", "start 2 at 0"]
    store.run(step(first, add=3))
    assert lines(tmp_path / "log")[2:] == ["start 3 at 0"]


def test_find_and_the_rest_of_reading_write_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")
    one = step(Source("arrays", HASH, tmp_path))
    assert store.find(one) is None and store.seconds(one) is None and store.source(HASH) is None
    assert store.decision("plan") is None and store.free_bytes() > 0
    assert not store.has(keys.key(one), TOY) and inventory.entries(store) == []
    assert not (tmp_path / "none").exists()


def test_the_default_place(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEDISTILL_STORE", str(tmp_path / "told"))
    assert Store().root == tmp_path / "told"
    monkeypatch.delenv("EDGEDISTILL_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert default_root() == tmp_path / "cache" / "edgedistill"


# ---------------------------------------------------------------- damage


def test_every_flipped_byte_is_noticed(store: Store) -> None:
    one = step(rows(store))
    made = store.run(one)
    for file in ("total", "deep/flat.bin", "artifact.json"):
        path = made.path / file
        whole = path.read_bytes()
        for index in range(0, len(whole), 7 if file == "artifact.json" else 1):
            for bit in (1, 0x20):
                path.write_bytes(whole[:index] + bytes([whole[index] ^ bit]) + whole[index + 1 :])
                assert isinstance(store.condition(one), str), (file, index, bit)
        path.write_bytes(whole)
        assert store.find(one), file


def test_a_record_has_one_spelling(store: Store) -> None:
    one = step(rows(store))
    path = store.run(one).path / "artifact.json"
    path.write_bytes(path.read_bytes().replace(b"\n ", b"\n\t", 1))  # the same JSON, another byte
    assert store.condition(one) == "artifact.json is damaged"


def test_a_flip_is_noticed_after_a_check_though_size_and_time_are_the_same(store: Store) -> None:
    one = step(rows(store))
    made = store.run(one)
    path = made.path / "deep" / "flat.bin"
    time.sleep(2 * seal.SETTLED_S)
    assert store.find(one) and str(made.path) in seal._LOOKED_AT
    about = path.stat()
    with path.open("r+b") as file:
        file.write(b"\xff")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert store.condition(one) == "deep/flat.bin is damaged"


def test_whole_files_are_hashed_once_in_a_process(store: Store, monkeypatch) -> None:
    one = step(rows(store))
    store.run(one)
    time.sleep(2 * seal.SETTLED_S)
    assert store.find(one)
    monkeypatch.setattr(seal, "sha256", lambda path: pytest.fail("hashed again"))
    assert store.find(one)


@pytest.mark.parametrize("harm", ["extra", "missing", "link", "no record", "other step's"])
def test_other_damage_is_noticed_and_mended(store: Store, harm: str) -> None:
    one, other = step(rows(store)), step(rows(store), add=7)
    made, foreign = store.run(one), store.run(other)
    if harm == "extra":
        (made.path / "config.json").write_text("{}")
    elif harm == "missing":
        (made.path / "total").unlink()
    elif harm == "link":
        (made.path / "total").rename(store.root / "total")
        (made.path / "total").symlink_to(store.root / "total")
    elif harm == "no record":
        (made.path / "artifact.json").unlink()
    else:
        (made.path / "artifact.json").write_bytes((foreign.path / "artifact.json").read_bytes())
    assert store.find(one) is None
    again, told = events(store, one)
    assert again.digest == made.digest and not again.cached and store.find(one)
    notes = [event["text"] for event in told if event["kind"] == "note"]
    assert len(notes) == 1 and "count.py" in notes[0] and "\n" not in notes[0]
    aside = store.root / "damaged" / f"count.py-{keys.key(one)}"
    assert aside.is_dir() and str(aside) in notes[0]


def test_a_hit_needs_the_inputs_that_it_was_made_from(store: Store, monkeypatch) -> None:
    first = step(rows(store))
    last = step(first, add=2)
    store.run(last)
    made = store.path(first)
    (made / "total").write_text("100")  # as if it were made with other bytes under the same key
    (made / "artifact.json").unlink()
    record = {**keys.recipe(first), "key": keys.key(first), "facts": {}, "seconds": 1.0}
    inputs = {"from.0": {"key": HASH, "digest": seal_of(store, HASH)}}
    seal.close(made, made / "artifact.json", {**record, "inputs": inputs, "created": ""})
    assert store.find(first)
    assert store.condition(last) == "it was made from other bytes of from.0"
    assert (store.run(last).path / "total").read_text() == "102"


def test_a_step_whose_source_is_gone_says_so(store: Store) -> None:
    one = step(rows(store))
    store.path(one.inputs["from.0"]).rename(store.root / "elsewhere")
    with pytest.raises(SurroundingsError, match=r"five\.csv is gone"):
        store.run(one)


# ---------------------------------------------------------------- killed, failed, refused


def test_checkpoints_outlive_a_failure_and_go_with_the_artifact(
    store: Store, tmp_path, monkeypatch
):
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("TOY_TROUBLE", "ours")
    one = step(rows(store), ticks=3)
    work = store.root / "work" / keys.key(one)
    with pytest.raises(ZeroDivisionError):
        store.run(one)
    assert [path.name for path in work.iterdir()] == [".resume"]
    (work / "garbage").mkdir()
    (work / "garbage" / "file").write_text("x")
    monkeypatch.delenv("TOY_TROUBLE")
    made = store.run(one)
    assert lines(tmp_path / "log") == ["start 1 at 0", "start 1 at 3"]
    assert sorted(path.name for path in made.path.iterdir()) == ["artifact.json", "deep", "total"]
    assert not work.exists()


def test_what_was_sealed_and_not_renamed_is_not_made_again(store: Store, tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    one = step(rows(store))

    class Killed(BaseException):
        pass

    def killed(*paths) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Shelf, "place", killed)
        with pytest.raises(Killed):
            store.run(one)
    assert store.find(one) is None
    made = store.run(one)
    assert lines(tmp_path / "log") == ["start 1 at 0"] and not made.cached
    assert store.find(one) and not (made.path / ".resume").exists()


def test_what_was_sealed_and_then_damaged_is_made_again(store: Store, tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    one = step(rows(store), ticks=2)
    with monkeypatch.context() as patch:
        patch.setattr(Shelf, "place", lambda *paths: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.run(one)
    (store.root / "work" / keys.key(one) / "total").write_text("99")
    assert (store.run(one).path / "total").read_text() == "7"
    assert lines(tmp_path / "log") == ["start 1 at 0", "start 1 at 2"]


@pytest.mark.parametrize("kind", ["full", "said full", "memory"])
def test_a_full_disk_or_memory_is_one_line_and_leaves_a_valid_store(
    store, monkeypatch, kind
) -> None:
    one = step(rows(store))
    monkeypatch.setenv("TOY_TROUBLE", kind)
    with pytest.raises(SurroundingsError, match=r"disk is full|not enough memory") as caught:
        store.run(one)
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    assert store.find(one) is None
    work = store.root / "work" / keys.key(one)
    assert {path.name for path in work.iterdir()} <= {".resume"}  # the disk got its room back
    monkeypatch.delenv("TOY_TROUBLE")
    assert store.run(one) and inventory.verify(store) == []


def test_links_never_enter_the_store(store: Store, monkeypatch) -> None:
    monkeypatch.setenv("TOY_TROUBLE", "link")
    with pytest.raises(InternalError, match="never linked"):
        store.run(step(rows(store)))


@pytest.mark.parametrize("refusal", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_store_that_cant_be_written_is_one_line(store: Store, monkeypatch, refusal) -> None:
    one = step(rows(store))

    def refuse(path, *rest, **options):
        raise OSError(refusal, os.strerror(refusal), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refuse)
        with pytest.raises(SurroundingsError, match="--store") as caught:
            store.run(one)
        assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        for use in (lambda: store.run(one), lambda: store.decide("plan", {}), lambda: rows(store)):
            with pytest.raises(SurroundingsError, match="--store"):
                use()
    assert store.run(one).cached is False and store.find(one)


def test_a_store_where_a_file_lies_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in ("file", "file/store"):
        with pytest.raises(UsageError, match=r"'\S+file' is no folder"):
            rows(Store(tmp_path / place))


def test_code_that_changes_under_a_run_leaves_nothing(store: Store, tmp_path: Path) -> None:
    stage = tmp_path / "count.py"
    stage.write_text(Path(TOY).read_text())
    one = Step(str(stage), {}, {"from.0": rows(store)})
    keys.key(one)

    def edit(event) -> None:
        if event["kind"] == "start":
            stage.write_text(Path(TOY).read_text() + "# edited\n")

    with pytest.raises(JobError, match="changed while the build ran"):
        store.run(one, edit)
    assert store.find(one) is None


def test_facts_are_plain_json() -> None:
    told = {"a": np.float32(0.5), "b": float("nan"), "c": (1, None), "d": np.arange(2), "e": True}
    assert execute.plain(told) == {"a": 0.5, "b": None, "c": [1, None], "d": [0, 1], "e": True}
    with pytest.raises(InternalError):
        execute.plain({"a": object()})


# ---------------------------------------------------------------- two at once

RACE = """
import json, sys
sys.path[:0] = json.loads(sys.argv[3])
from pathlib import Path
from edgedistill.records import Source, Step
from edgedistill.store import Store
store = Store(sys.argv[1], owner="build " + sys.argv[4])
rows = store.bring("arrays", "ab" * 32, lambda out: (out / "total").write_text("5"))
one = Step(sys.argv[2], {"ticks": 5, "rest_s": 0.1}, {"from.0": rows})
made = store.run(one, lambda event: print(json.dumps(event), flush=True, file=sys.stderr))
"""


def test_two_at_once_make_a_step_once_and_the_waiter_says_whose(store, tmp_path) -> None:
    house = json.dumps([str(Path(keys.__file__).parent.parent.parent)])
    environment = {**os.environ, "TOY_LOG": str(tmp_path / "log")}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(store.root), TOY, house, name],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("A", "B")
    ]
    told = [
        [json.loads(line) for line in each.communicate(timeout=60)[1].splitlines()] for each in both
    ]
    assert [each.returncode for each in both] == [0, 0], told
    assert lines(tmp_path / "log") == ["start 1 at 0"]
    maker = next(index for index, each in enumerate(told) if each[0]["kind"] == "start")
    waiter = told[1 - maker]
    assert waiter[-1]["kind"] == "end" and waiter[-1]["cached"]
    if waiter[0]["kind"] == "wait":  # else it came when all was done
        assert f"build {'AB'[maker]}" in waiter[0]["text"]


def test_a_waiter_is_told_the_holder_and_then_uses_its_result(store: Store) -> None:
    import threading

    one = step(rows(store))
    key = keys.key(one)
    store.run(one)
    aside = store.root / "aside"
    store.path(one).rename(aside)
    told: list[dict] = []
    waiting = threading.Event()

    def hear(event) -> None:
        told.append(dict(event))
        waiting.set()

    with locks.exclusive(store.root / "locks", key, owner="build 12", waiting=lambda who: None):
        thread = threading.Thread(target=lambda: store.run(one, hear))
        thread.start()
        assert waiting.wait(20)
        aside.rename(store.path(one))
    thread.join(20)
    assert [event["kind"] for event in told] == ["wait", "end"] and told[-1]["cached"]
    assert "build 12" in told[0]["text"] and "count.py" in told[0]["text"]


# ---------------------------------------------------------------- decisions


def test_decisions_are_kept_and_a_damaged_one_is_none(store: Store) -> None:
    store.decide("plan", {"order": ["a"], "seconds": 1.5})
    assert Store(store.root).decision("plan") == {"order": ["a"], "seconds": 1.5}
    store.decide("plan", {"order": ["b"]})
    assert store.decision("plan") == {"order": ["b"]}
    path = store.root / "v1" / "decisions" / "plan.json"
    path.write_bytes(path.read_bytes().replace(b'"b"', b'"c"'))
    assert store.decision("plan") is None


# ---------------------------------------------------------------- the inventory


def filled(store: Store) -> list[Step]:
    source = Store(store.root).bring("arrays", HASH, lambda out: (out / "total").write_text("5"))
    first = step(source)
    last = step(first, add=2)
    store.run(last)
    return [first, last]


def test_list_and_show(store: Store, monkeypatch) -> None:
    first, last = filled(store)
    listed = {entry.key: entry for entry in inventory.entries(store)}
    assert set(listed) == {HASH, keys.key(first), keys.key(last)}
    assert listed[HASH].stage == "sources" and listed[keys.key(first)].stage == "count.py"
    assert all(entry.state == "whole" and entry.bytes > 0 for entry in listed.values())
    entry, record = inventory.show(store, keys.key(last)[:10])
    assert entry.key == keys.key(last) and record["facts"]["total"] == 8
    with pytest.raises(UsageError, match=r"no entry 'zz' .*known: "):
        inventory.show(store, "zz")
    monkeypatch.setattr(inventory, "SHOWN", 2)
    with pytest.raises(UsageError, match="it has 3: edgedistill store list"):
        inventory.show(store, "zz")


def test_drop_by_key_stage_age_and_total(store: Store) -> None:
    first, last = filled(store)
    with pytest.raises(UsageError, match="nothing to drop"):
        inventory.drop(store)
    with pytest.raises(UsageError, match=r"did you mean 'count\.py'"):
        inventory.drop(store, stages=["count"])
    dropped = inventory.drop(store, [keys.key(last)[:12]])
    assert [entry.key for entry in dropped.dropped] == [keys.key(last)] and dropped.bytes > 0
    assert store.find(last) is None and store.find(first)
    assert not inventory.drop(store, unused_for_s=3600).dropped
    old = time.time() - 7200
    for path in [*store.path(first).rglob("*"), store.path(first)]:
        os.utime(path, (old, old))
    os.utime(store.root / "locks" / f"{keys.key(first)}.reading.lock", (old, old))
    assert [e.key for e in inventory.drop(store, unused_for_s=3600).dropped] == [keys.key(first)]
    assert store.run(last) and len(inventory.entries(store)) == 3
    assert {e.stage for e in inventory.drop(store, stages=["count.py"]).dropped} == {"count.py"}
    store.run(last)
    sizes = sum(entry.bytes for entry in inventory.entries(store))
    assert inventory.drop(store, total_bytes=sizes).dropped == ()
    assert len(inventory.drop(store, total_bytes=sizes - 1).dropped) == 1
    assert len(inventory.drop(store, total_bytes=0).dropped) == 2
    assert inventory.entries(store) == [] and not list((store.root / "work").iterdir())


def test_drop_leaves_what_is_read_or_made(store: Store) -> None:
    first, last = filled(store)
    mine = Store(store.root)
    held = rows(mine)
    with mine.reading([keys.key(first)]):
        done = inventory.drop(store, total_bytes=0)
        assert {entry.key for entry in done.in_use} == {HASH, keys.key(first)}
        assert {entry.key for entry in done.dropped} == {keys.key(last)}
        assert store.find(first) and store.source(HASH)
    key = keys.key(first)
    with locks.exclusive(store.root / "locks", key, owner="me", waiting=lambda who: None):
        assert [entry.key for entry in inventory.drop(store, [key]).in_use] == [key]
    assert inventory.drop(store, [key]).dropped
    assert held.path.exists()
    del mine
    assert inventory.drop(store, [HASH]).dropped


def test_drop_takes_unfinished_and_damaged_too(store: Store, monkeypatch) -> None:
    first, last = filled(store)
    (store.path(last) / "total").write_text("0")
    store.run(last)
    monkeypatch.setenv("TOY_TROUBLE", "ours")
    with pytest.raises(ZeroDivisionError):
        store.run(step(first, add=9))
    states = sorted(entry.state for entry in inventory.entries(store))
    assert states == ["damaged", "unfinished", "whole", "whole", "whole"]
    total = sum(entry.bytes for entry in inventory.entries(store))
    assert [e.state for e in inventory.drop(store, total_bytes=total - 1).dropped] == ["damaged"]
    assert [e.state for e in inventory.drop(store, stages=["work"]).dropped] == ["unfinished"]


def test_verify_names_what_does_not_hold(store: Store) -> None:
    first, last = filled(store)
    assert inventory.verify(store) == []
    (store.path(first) / "deep" / "flat.bin").write_bytes(bytes(64))
    store.path(last).rename(store.path(last).with_name("ff" * 32))
    wrong = {entry.key: reason for entry, reason in inventory.verify(store)}
    assert wrong == {
        keys.key(first): "deep/flat.bin is damaged",
        "ff" * 32: "it lies under another key",
    }


def test_more_locks_than_a_terminal_allows_files(tmp_path):
    """256 is the limit of open files on macOS; a plan of three students has 169 steps."""
    code = (
        "import resource, sys; from edgedistill.store import Store\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))\n"
        "with Store(sys.argv[1]).reading(f'{index:064d}' for index in range(400)):\n"
        "    print(open('/dev/null').fileno() > 400)"
    )
    told = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(told, capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr
