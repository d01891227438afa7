"""The worker process: one protocol, clear deaths, no writer left, the same bytes in the end."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgedistill.errors import (
    DataError,
    InternalError,
    JobError,
    MissingPackage,
    NoMemory,
    SurroundingsError,
    WorkerDied,
)
from edgedistill.records import Source, Step
from edgedistill.store import Store, keys
from edgedistill.store.runner import Runner

TOY = str(Path(__file__).parent / "toys" / "count.py")
HASH = "ab" * 32
HOUSE = json.dumps([str(Path(keys.__file__).parent.parent.parent)])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def log(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def rows(store: Store) -> Source:
    return store.bring("arrays", HASH, lambda out: (out / "total").write_text("5"))


def chain(store: Store, length: int = 2, **settings) -> list[Step]:
    thing: Step | Source = rows(store)
    made: list[Step] = []
    for number in range(length):
        thing = Step(TOY, {"add": number + 1, **settings}, {"from.0": thing})
        made.append(thing)
    return made


def runner(store: Store) -> Runner:
    return Runner(store.root, threads=1, allow_code=True)


def gone(pid: int) -> bool:
    """Return whether a process has ended (a zombie that nobody has reaped has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def until(held) -> bool:
    end = time.monotonic() + 30
    while not held() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(held())


def test_steps_are_made_in_order_in_another_process(store: Store, log: Path) -> None:
    first, last = chain(store)
    told: list[dict] = []
    with runner(store) as host:
        made = host.run([last], lambda event: told.append(dict(event)))
        assert [artifact.key for artifact in made] == [keys.key(first), keys.key(last)]
        assert made[1].facts == {"total": 8, "nothing": None} and not made[1].cached
        assert made[1].path == store.path(last) and isinstance(made[1].path, Path)
        kinds = [event["kind"] for event in told]
        assert kinds == ["start", "bar", "end", "start", "bar", "end"]
        again = host.run([last, first], lambda event: told.append(dict(event)))
        assert len(told) == 6 and not again[0].cached  # told once, and made by this build
    assert log.read_text().splitlines() == ["start 1 at 0", "start 2 at 0"]
    told.clear()
    with runner(store) as host:
        assert all(artifact.cached for artifact in host.run([last], told.append))
        assert host._worker is None  # what is there needs no worker
    assert [(event["kind"], event["cached"]) for event in told] == [("end", True)] * 2


def test_only_what_something_missing_needs_is_made(store: Store, log: Path) -> None:
    first, last = chain(store)
    with runner(store) as host:
        host.run([last])
    store.path(first).rename(store.root / "dropped")
    log.unlink()
    with runner(store) as host:
        assert [artifact.key for artifact in host.run([last])] == [keys.key(last)]
        assert not log.exists()
        host.run([Step(TOY, {"add": 9}, {"from.0": first})])
    assert log.read_text().splitlines() == ["start 1 at 0", "start 9 at 0"]


def test_damage_above_a_cached_step_is_noticed_and_mended(store: Store, log: Path) -> None:
    first, last = chain(store)
    with runner(store) as host:
        host.run([last])
    (store.path(first) / "total").write_text("7")
    log.unlink()
    told: list[dict] = []
    with runner(store) as host:
        host.run([last], lambda event: told.append(dict(event)))
    assert log.read_text().splitlines() == ["start 1 at 0"]  # its bytes are the same: no more
    assert [event["text"] for event in told if event["kind"] == "note"] != []
    assert store.find(first) and store.find(last)


def test_the_worker_has_the_threads_it_was_given(store: Store, tmp_path: Path) -> None:
    stage = tmp_path / "threads.py"
    stage.write_text(
        '"""Tell the threads."""\n'
        "import os\n"
        "from dataclasses import dataclass\n"
        "INPUTS, OUTPUT, PACKAGES = {}, 'arrays', ()\n"
        "@dataclass(frozen=True)\n"
        "class Settings:\n"
        "    pass\n"
        "def plugins(settings):\n"
        "    return []\n"
        "def run(inputs, settings, out, progress):\n"
        "    names = ('OMP_NUM_THREADS', 'PYTHONHASHSEED')\n"
        "    return {name: os.environ[name] for name in names}\n"
    )
    with Runner(store.root, threads=3, allow_code=True) as host:
        facts = host.run([Step(str(stage), {}, {})])[0].facts
    assert facts == {"OMP_NUM_THREADS": "3", "PYTHONHASHSEED": "0"}


def test_strangers_code_runs_only_where_allowed(store: Store, log: Path) -> None:
    with Runner(store.root) as host, pytest.raises(JobError, match="--allow-code"):
        host.run(chain(store))
    assert not log.exists()


def test_estimate_asks_the_stage_and_leaves_no_trace(store: Store, log: Path) -> None:
    first, last = chain(store, ticks=4, rest_s=0.01)
    with runner(store) as host:
        assert host.estimate(last) == pytest.approx(0.04)
    assert store.find(first) and store.find(last) is None
    assert not list((store.root / "work").iterdir())


# ---------------------------------------------------------------- errors and deaths


@pytest.mark.parametrize(
    ("trouble", "expected", "words"),
    [
        ("user", DataError, "row 3 is empty"),
        ("package", MissingPackage, "pip install toys"),
        ("ours", InternalError, "ZeroDivisionError: a fault of ours"),
        ("full", SurroundingsError, "the disk is full"),
        ("memory", NoMemory, "not enough memory"),
    ],
)
def test_errors_cross_as_what_they_are(store, monkeypatch, trouble, expected, words) -> None:
    first, *_ = chain(store, 1)
    monkeypatch.setenv("TOY_TROUBLE", trouble)
    with runner(store) as host:
        with pytest.raises(expected, match=words) as caught:
            host.run([first])
        assert type(caught.value) is expected and "\n" not in str(caught.value)
        assert "Traceback" in "".join(caught.value.__notes__)
        worker = host._worker
        with pytest.raises(expected):
            host.run([first])
        assert host._worker is worker  # a failed step ends no worker


def test_a_killed_worker_is_a_clear_error_and_the_next_run_goes_on(store, log, monkeypatch) -> None:
    first, *_ = chain(store, 1, ticks=3)
    with runner(store) as host:
        monkeypatch.setenv("TOY_TROUBLE", "killed")
        with pytest.raises(WorkerDied, match=r"step count\.py was killed.*memory") as caught:
            host.run([first])
        assert caught.value.exit_code == 3
        monkeypatch.delenv("TOY_TROUBLE")
        assert host.run([first])[0].facts["total"] == 8
    assert log.read_text().splitlines() == ["start 1 at 0", "start 1 at 3"]


def test_an_interrupt_ends_the_worker(store: Store) -> None:
    first, *_ = chain(store, 1, ticks=500, rest_s=0.02)
    workers = []

    def interrupted(event) -> None:
        if event["kind"] == "bar":
            workers.append(host._worker.pid)
            raise KeyboardInterrupt

    with runner(store) as host:
        with pytest.raises(KeyboardInterrupt):
            host.run([first], interrupted)
        assert gone(workers[0])
    assert (store.root / "work" / keys.key(first) / ".resume" / "state").exists()


def test_an_interrupt_while_the_worker_starts_leaves_none(store: Store, monkeypatch) -> None:
    started: list[int] = []

    class Interrupted(subprocess.Popen):
        def __init__(self, *given, **told) -> None:
            super().__init__(*given, **told)
            started.append(self.pid)
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.2)  # where the main thread is this one, it is interrupted here

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt), runner(store) as running:
        running.run(chain(store))
    assert started and gone(started[0])


def two(store: Store, **settings) -> tuple[Step, Step]:
    """Two steps that need the same first one."""
    (shared,) = chain(store, 1)
    first, second = (Step(TOY, {"add": add, **settings}, {"from.0": shared}) for add in (10, 20))
    return first, second


def test_two_steps_are_made_at_once_and_what_both_need_before(store: Store, log: Path) -> None:
    first, second = two(store, ticks=20, rest_s=0.15)
    told: list[dict] = []
    with runner(store) as host:
        made = host.run_both(first, second, lambda event: told.append(dict(event)))
        assert [artifact.facts["total"] for artifact in made] == [6, 206, 406]
        assert not any(artifact.cached for artifact in made)
        assert len(host.run_both(first, second)) == 3
    starts = log.read_text().splitlines()
    assert starts[0] == "start 1 at 0" and {*starts[1:]} == {"start 10 at 0", "start 20 at 0"}
    keyed = [event["key"] for event in told if event["kind"] == "bar"]
    assert {*keyed} == {keys.key(step) for step in (first, second, first.inputs["from.0"])}
    begun = [event["kind"] for event in told if event["kind"] in ("start", "end")]
    assert begun == ["start", "end", "start", "start", "end", "end"], "one after the other"


def test_where_one_of_two_is_there_the_other_is_made(store: Store, log: Path) -> None:
    first, second = two(store)
    with runner(store) as host:
        host.run([second])
    with runner(store) as host:
        assert [artifact.cached for artifact in host.run_both(first, second)][1:] == [False, True]


@pytest.mark.parametrize("dies", [10, 20])
@pytest.mark.parametrize("how", ["killed", "no memory"])
def test_what_dies_beside_another_is_made_again_alone(store, log, monkeypatch, dies, how) -> None:
    first, second = two(store, ticks=3)
    monkeypatch.setenv("TOY_TROUBLE", f"{how} once {dies}")
    told: list[dict] = []
    with runner(store) as host:
        made = host.run_both(first, second, lambda event: told.append(dict(event)))
    (gone,) = (event for event in told if event["kind"] == "gone")
    assert gone["key"] == keys.key(first if dies == 10 else second) and "memory" in gone["text"]
    assert [artifact.facts["total"] for artifact in made][1:] == [36, 66]
    assert f"start {dies} at 3" in log.read_text().splitlines()


@pytest.mark.parametrize("fails", [10, 20])
def test_an_error_of_either_ends_both(store: Store, log: Path, monkeypatch, fails) -> None:
    (shared,) = chain(store, 1)
    first, second = (
        Step(
            TOY, {"add": add, "ticks": 1 if add == fails else 2000, "rest_s": 0.05}, {"a.0": shared}
        )
        for add in (10, 20)
    )
    monkeypatch.setenv("TOY_TROUBLE", f"user in {fails}")
    told: list[dict] = []
    with runner(store) as host, pytest.raises(DataError, match="row 3 is empty"):
        host.run_both(first, second, lambda event: told.append(dict(event)))
    assert not [event for event in told if event["kind"] == "gone"]
    long = second if fails == 10 else first
    assert store.find(long) is None, "the error was told when the other had ended"
    state = store.root / "work" / keys.key(long) / ".resume" / "state"
    before = state.read_text() if state.exists() else ""
    time.sleep(0.3)
    assert (state.read_text() if state.exists() else "") == before, "it went on"


def test_an_interrupt_ends_both(store: Store, log: Path, monkeypatch) -> None:
    first, second = two(store, ticks=1000, rest_s=0.05)
    begun: set[str] = set()
    pids: list[int] = []

    def interrupted(event) -> None:
        begun.update([event["key"]] if event["kind"] == "bar" else [])
        if {keys.key(first), keys.key(second)} <= begun:
            pids.append(host._worker.pid)
            raise KeyboardInterrupt

    with runner(store) as host, pytest.raises(KeyboardInterrupt):
        host.run_both(first, second, interrupted)
    assert gone(pids[0])
    state = [store.root / "work" / keys.key(step) / ".resume" / "state" for step in (first, second)]
    before = [path.read_text() for path in state]
    time.sleep(0.3)
    assert [path.read_text() for path in state] == before, "one went on"


def test_ctrl_c_is_the_hosts_to_answer(store: Store) -> None:
    first, *_ = chain(store, 1, ticks=3, rest_s=0.01)

    def tell(event) -> None:
        if event["kind"] == "start":
            host._worker.send_signal(signal.SIGINT)

    with runner(store) as host:
        assert host.run([first], tell)[0].facts["total"] == 8


HOST = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
root, toy, length, ticks, rest_s = sys.argv[2:]
from edgedistill.records import Step
from edgedistill.store.runner import Runner
from edgedistill.store import Store
thing = Store(root).bring("arrays", "ab" * 32, lambda out: (out / "total").write_text("5"))
for number in range(int(length)):
    settings = {"add": number + 1, "ticks": int(ticks), "rest_s": float(rest_s)}
    thing = Step(toy, settings, {"from.0": thing})
def tell(event):
    worker = runner._worker.pid if runner._worker else None
    print(json.dumps({**event, "worker": worker}), flush=True)
with Runner(root, threads=1, allow_code=True) as runner:
    runner.run([thing], tell)
"""


def host_process(root: Path, *, length: int, ticks: int, rest_s: float) -> subprocess.Popen[str]:
    told = [HOUSE, str(root), TOY, str(length), str(ticks), str(rest_s)]
    return subprocess.Popen(
        [sys.executable, "-c", HOST, *told],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_killed_host_leaves_no_writer(store: Store) -> None:
    host = host_process(store.root, length=1, ticks=2000, rest_s=0.05)
    line = next(line for line in host.stdout if '"bar"' in line)
    worker = json.loads(line)["worker"]
    assert not gone(worker)
    host.send_signal(signal.SIGKILL)
    host.communicate()
    assert until(lambda: gone(worker))
    [one] = chain(store, 1, ticks=2000, rest_s=0.05)
    state = store.root / "work" / keys.key(one) / ".resume" / "state"
    before = state.read_text()
    time.sleep(0.2)
    assert state.read_text() == before


def contents(root: Path) -> dict[str, bytes]:
    """Return the bytes of all artifacts, records but for their times."""
    found = {}
    for path in sorted((root / "v1").rglob("*")):
        if path.name == "artifact.json":
            record = json.loads(path.read_bytes())
            record = {name: record[name] for name in record.keys() - {"seconds", "created", "seal"}}
            found[str(path.relative_to(root))] = keys.canonical(record)
        elif path.is_file():
            found[str(path.relative_to(root))] = path.read_bytes()
    return found


def test_five_kills_end_with_the_same_bytes_and_nothing_is_done_twice(tmp_path, log) -> None:
    shape = {"length": 6, "ticks": 8, "rest_s": 0.02}
    whole = host_process(tmp_path / "whole", **shape)
    begun = time.monotonic()
    assert whole.communicate(timeout=60)[1] is not None and whole.returncode == 0
    took = time.monotonic() - begun
    log.unlink()
    broken, draw = tmp_path / "broken", random.Random(8)
    placed: set[int] = set()
    kills = 0
    for _ in range(5):
        log.write_text("")
        host = host_process(broken, **shape)
        time.sleep(draw.uniform(0.2, 0.5) * took)
        kills += host.poll() is None
        host.send_signal(signal.SIGKILL)
        host.communicate()
        begun_now = {int(line.split()[1]) for line in log.read_text().splitlines()}
        assert not begun_now & placed  # what lay there before this host is not begun again
        records = (broken / "v1" / "count.py").glob("*/artifact.json")
        placed = {json.loads(path.read_bytes())["settings"]["add"] for path in records}
    assert kills
    last = host_process(broken, **shape)
    _, words = last.communicate(timeout=60)
    assert last.returncode == 0, words
    assert contents(broken) == contents(tmp_path / "whole")
    assert not list((broken / "work").iterdir())


def test_the_pipe_survives_what_stages_print(store: Store, capfd) -> None:
    with runner(store) as host:
        host.run(chain(store, 1))
        until(lambda: len(host._words) >= 2)
        words = list(host._words)
    assert "a library that prints to stdout" in words
    assert "and one that writes past Python" in words
    assert capfd.readouterr().out == ""


def test_a_step_in_use_by_a_runner_is_not_dropped(store: Store) -> None:
    from edgedistill.store import inventory

    first, last = chain(store)
    with runner(store) as host:
        host.run([last])
        assert inventory.drop(Store(store.root), total_bytes=0).dropped == ()
    assert len(inventory.drop(Store(store.root), [keys.key(last)]).dropped) == 1
    assert store.path(first).is_dir()
