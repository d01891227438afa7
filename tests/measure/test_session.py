from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from edgedistill import target
from edgedistill.errors import ModelError, SurroundingsError, UsageError
from edgedistill.measure import host, session, transport
from edgedistill.measure.lane import Effort, Lane, spread_order
from edgedistill.measure.session import Subject, brief, measure
from edgedistill.records import Figures

SESSION = {"threads": 1}
SHORT = Effort(seconds=60.0, rounds=4, runs=8, enough=1, drop=1)
PHONE = target.load("phone")


@pytest.fixture
def subject(make_graph, sample_folder):
    def make(name, layers=2, **more):
        return Subject(name, make_graph(name, layers), SESSION, sample_folder, 5, **more)

    return make


class Killed(transport.Local):
    """A real probe that is killed (or stopped) from outside in its ninth block."""

    victim = ""
    how = signal.SIGKILL

    def put(self, source, name):
        super().put(source, name)
        self.mine = getattr(self, "mine", False) or source.stem == type(self).victim
        self.blocks = 0

    def ask(self, op, *, deadline, **arguments):
        self.blocks = getattr(self, "blocks", 0) + (op == "block")
        if getattr(self, "mine", False) and self.blocks == 5:
            os.kill(self.pid, type(self).how)
            deadline = min(deadline, 1.0)
        return super().ask(op, deadline=deadline, **arguments)


@pytest.fixture
def killing(monkeypatch):
    def arrange(victim, how=signal.SIGKILL):
        monkeypatch.setattr(
            session, "Local", type("Doomed", (Killed,), {"victim": victim, "how": how})
        )

    return arrange


def test_all_figures_of_all_rows_in_one_run(subject):
    products = {"fp32": 2e6, "int8": 0.0}
    subjects = [subject("teacher", 6, products=products), subject("student", 1, products=products)]
    events = []
    found = measure(subjects, PHONE, seed=3, effort=SHORT, progress=events.append)
    assert list(found.figures) == ["teacher", "student"]
    for name, figures in found.figures.items():
        latency = figures.latency
        assert figures.failed is None
        assert latency.rounds == 4 and latency.runs == 4 * 6
        assert 0 < latency.p50 <= latency.p90
        assert latency.p90_low <= latency.p90 <= latency.p90_high
        assert latency.p99 is None and latency.cold > 0
        assert figures.throughput == pytest.approx(1000 / latency.p50)
        assert figures.load_ms > 0 and figures.memory_mb is not None and figures.memory_mb >= 0
        model = next(each.model for each in subjects if each.name == name)
        assert figures.size_mb == model.stat().st_size / 1e6
        assert figures.device.source == "estimate" and figures.device.on == "phone"
        assert figures.device.low < figures.device.latency_p90_ms < figures.device.high
    assert found.figures["teacher"].speedup == (1.0, 1.0, 1.0)
    assert found.figures["student"].speedup.value > 0
    assert found.yardstick.int8_gops > 0 and found.environment["processor"]
    assert "load" in found.environment
    assert {event["kind"] for event in events} <= {"bar", "wait"}


class Told(transport.Local):
    """A real probe; three loads of the student tell 900, 20 and 30 ms, and as many MB."""

    loads = (900.0, 20.0, 30.0)
    ran: ClassVar[list[int]] = []  # of each probe that loads a student, how many rows it ran

    def put(self, source, name):
        super().put(source, name)
        if source.stem == "student":
            self.place = len(Told.ran)
            self.figure = Told.loads[self.place]
            Told.ran.append(0)

    def ask(self, op, *, deadline, **arguments):
        answer = super().ask(op, deadline=deadline, **arguments)
        figure = getattr(self, "figure", None)
        if figure is not None and op == "block":
            Told.ran[self.place] += len(arguments["order"])
        if figure is not None and op == "load":
            return {**answer, "load_ms": figure, "bare_mb": 100.0}
        return {"peak_mb": 100.0 + figure} if figure is not None and op == "memory" else answer


def test_loading_and_memory_are_medians_of_several_processes(subject, monkeypatch):
    monkeypatch.setattr(session, "Local", Told)
    monkeypatch.setattr(Told, "ran", [])
    rows = [subject("teacher"), subject("student", 1)]
    figures = measure(rows, PHONE, effort=SHORT).figures["student"]
    assert len(Told.ran) == 3
    assert figures.load_ms == 30.0 and figures.memory_mb == 30.0
    assert all(rows >= 5 + 6 for rows in Told.ran), "and every row is run before memory is read"
    monkeypatch.setattr(Told, "ran", [])
    once = measure(rows, PHONE, effort=replace(SHORT, loads=1)).figures["student"]
    assert len(Told.ran) == 1 and once.load_ms == 900.0 and once.memory_mb == 900.0


def test_a_model_that_one_process_of_three_cannot_load_is_a_failed_row(subject, monkeypatch):
    class Dying(Told):
        def ask(self, op, *, deadline, **arguments):
            if op == "load" and getattr(self, "figure", None) == 20.0:
                os.kill(self.pid, signal.SIGKILL)
            return super().ask(op, deadline=deadline, **arguments)

    monkeypatch.setattr(session, "Local", Dying)
    monkeypatch.setattr(Told, "ran", [])
    rows = [subject("teacher"), subject("student", 1)]
    found = measure(rows, PHONE, effort=SHORT).figures
    assert "'load'" in found["student"].failed and "SIGKILL" in found["student"].failed
    assert found["teacher"].failed is None


def test_on_the_device_itself_nothing_is_estimated(subject):
    figures = measure([subject("only")], PHONE, on_device=True, effort=SHORT).figures["only"]
    assert figures.device.source == "measured"
    assert figures.device.latency_p90_ms == figures.latency.p90
    assert (figures.device.low, figures.device.high) == (
        figures.latency.p90_low,
        figures.latency.p90_high,
    )


def test_without_products_or_rates_there_is_no_estimate(subject):
    unknown = measure([subject("only")], PHONE, effort=SHORT)
    assert unknown.figures["only"].device is None
    bare = replace(PHONE, device=None)
    counted = subject("only", products={"fp32": 1.0})
    assert measure([counted], bare, effort=SHORT).figures["only"].device is None


def test_a_probe_killed_in_the_middle_is_a_failed_row_with_its_last_words(subject, killing):
    killing("student")
    found = measure([subject("teacher"), subject("student", 1)], PHONE, effort=SHORT)
    assert found.figures["teacher"].latency.rounds == 4
    failed = found.figures["student"].failed
    assert found.figures["student"] == Figures(failed=failed)
    assert "SIGKILL" in failed and "'block'" in failed


def test_a_probe_that_hangs_misses_its_deadline(subject, killing):
    killing("student", signal.SIGSTOP)
    found = measure([subject("teacher"), subject("student", 1)], PHONE, effort=SHORT)
    assert "no answer to 'block' within 1 s" in found.figures["student"].failed


def test_only_the_failure_of_the_baseline_ends_the_run(subject, killing):
    killing("teacher")
    with pytest.raises(SurroundingsError, match=r"baseline 'teacher'.*SIGKILL"):
        measure([subject("teacher"), subject("student", 1)], PHONE, effort=SHORT)


def test_a_file_that_is_no_model_is_a_failed_row_and_as_baseline_an_error(subject, tmp_path):
    garbage = replace(subject("garbage"), model=tmp_path / "garbage.onnx")
    garbage.model.write_bytes(b"\0garbage" * 50)
    found = measure([subject("teacher"), garbage], PHONE, effort=SHORT)
    assert "InvalidProtobuf" in found.figures["garbage"].failed
    assert found.figures["teacher"].latency is not None
    with pytest.raises(ModelError, match="baseline 'garbage' can't be measured"):
        measure([garbage], PHONE, effort=SHORT)


def test_no_folder_and_no_process_is_left(subject, monkeypatch):
    alive, most, folders = set(), [0], []

    class Counted(transport.Local):
        def __init__(self):
            super().__init__()
            alive.add(self)
            folders.append(self.folder)
            most[0] = max(most[0], len(alive))

        def close(self):
            super().close()
            alive.discard(self)
            assert self._process.poll() is not None

    monkeypatch.setattr(session, "Local", Counted)
    monkeypatch.setattr(session, "ALIVE", 4)
    subjects = [subject("teacher"), *(subject(name, 1) for name in ("one", "two", "three"))]
    found = measure(subjects, PHONE, effort=SHORT)
    assert most[0] == 4 and not alive and not any(folder.exists() for folder in folders)
    rounds = {name: figures.latency.rounds for name, figures in found.figures.items()}
    # the baseline takes part in both groups
    assert rounds == {"teacher": 8, "one": 4, "two": 4, "three": 4}


def test_measuring_needs_neither_torch_nor_onnx(make_graph, sample_folder):
    """Commands over bundles run on devices that have numpy and onnxruntime alone."""
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['onnx'] = sys.modules['transformers'] = None\n"
        "from pathlib import Path\n"
        "from edgedistill import target\n"
        "from edgedistill.measure import session\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "one = session.Subject('one', Path(sys.argv[1]), {}, Path(sys.argv[2]), 5)\n"
        "print(session.brief(one, target.load('server')).failed)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, make_graph("one"), sample_folder],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("None", "")


def test_eight_probes_at_most():
    for count in range(0, 20):
        groups = session._groups([object()] * count)
        assert sum(map(len, groups)) == count
        assert all(len(group) + 2 <= 8 for group in groups)
        assert len(groups) == max(1, -(-count // 6))


def test_names_must_differ(subject):
    with pytest.raises(UsageError, match="names of their own"):
        measure([subject("same"), subject("same")], PHONE)


def test_the_row_added_for_memory_alone_is_not_timed(subject):
    only = replace(subject("only"), timed=4)
    latency = measure([only], PHONE, effort=SHORT).figures["only"].latency
    assert latency.runs == 4 * 4


def test_few_rows_make_more_rounds(subject):
    only = replace(subject("only"), timed=2)
    effort = replace(SHORT, runs=20)
    latency = measure([only], PHONE, effort=effort).figures["only"].latency
    assert (latency.rounds, latency.runs) == (10, 20)


def test_rounds_end_when_every_row_has_enough_runs(subject):
    effort = replace(SHORT, seconds=600.0, enough=60)
    latency = measure([subject("only")], PHONE, effort=effort).figures["only"].latency
    assert (latency.rounds, latency.runs) == (10, 60)


def test_the_runs_of_the_baseline_count_over_all_groups(subject, monkeypatch):
    monkeypatch.setattr(session, "ALIVE", 3)
    effort = replace(SHORT, seconds=600.0, enough=60)
    teacher = replace(subject("teacher"), timed=3)  # half as many a round
    found = measure([teacher, subject("one"), subject("two")], PHONE, effort=effort)
    runs = {name: figures.latency.runs for name, figures in found.figures.items()}
    assert runs == {"teacher": 60, "one": 60, "two": 60}


@pytest.mark.parametrize(
    ("usual_ms", "share_s", "count"),
    [
        (6.0, 9.0, 24),  # 500 runs in the 21 rounds that the others take
        (6.0, 5.0, 14),  # no time for that
        (1.0, 9.0, 48),  # as many as it had
    ],
)
def test_the_slowest_row_keeps_up_where_the_others_leave_time(usual_ms, share_s, count):
    def lane(pace):
        made = Lane(subject=None, probe=None, rows=48, usual_ms=pace)
        made.settle(2.1, Effort())
        return made

    baseline, others = lane(usual_ms), [lane(1.0), lane(1.2)]
    assert [each.count for each in others] == [48, 48]
    told = {"effort": Effort(), "most": 500, "share_s": share_s}
    session._keep_up(baseline, others, **told)
    assert baseline.count == count
    baseline.slow = True
    session._keep_up(baseline, others, **told | {"share_s": 1e3})
    assert baseline.count == count


def test_a_brief_look_gives_figures_and_never_raises(subject, tmp_path):
    figures = brief(subject("only", products={"fp32": 1e6}), PHONE)
    assert figures.latency.p90 > 0 and figures.device.latency_p90_ms > 0 and figures.size_mb > 0
    garbage = replace(subject("garbage"), model=tmp_path / "garbage.onnx")
    garbage.model.write_bytes(b"")
    assert "garbage" in brief(garbage, PHONE).failed


@pytest.mark.parametrize(
    ("usual_ms", "share_s", "count", "drop", "slow"),
    [
        (1.0, 4.0, 48, 3, False),  # fast: the whole sample
        (10.0, 4.0, 17, 3, False),  # the share decides
        (50.0, 4.0, 10, 3, False),  # 200 runs in 20 rounds
        (400.0, 4.0, 6, 1, True),  # 60 s
        (9000.0, 4.0, 1, 1, True),  # never under 20 runs
    ],
)
def test_a_block_shrinks_for_slow_models(usual_ms, share_s, count, drop, slow):
    lane = Lane(subject=None, probe=None, rows=48, usual_ms=usual_ms)
    lane.settle(share_s, Effort())
    assert (lane.count, lane.drop, lane.slow) == (count, drop, slow)


@pytest.mark.parametrize("offset", [0.0, 0.37, 0.99])
def test_every_beginning_of_an_order_is_spread_over_the_lengths(offset):
    order = spread_order(48, offset)
    assert sorted(order) == list(range(48))
    for count in (8, 16, 24):
        quarters = [sum(place // 12 == quarter for place in order[:count]) for quarter in range(4)]
        assert max(quarters) - min(quarters) <= 2 and min(quarters) >= 1
    assert spread_order(48, 0.1) != spread_order(48, 0.6)


def test_load_from_elsewhere_makes_latencies_unsteady(subject, monkeypatch):
    monkeypatch.setattr(session._Busy, "elsewhere", lambda self: 0.9)
    found = measure([subject("only")], PHONE, effort=SHORT)
    assert not found.figures["only"].latency.steady
    assert found.environment["load"] == 0.9
    assert "0.9 cores" in found.warnings[0]


def test_what_others_use_is_all_that_was_used_less_what_we_used(monkeypatch):
    now = {"wall": 10.0, "all": 100.0, "ours": 5.0, "probe": 1.0}
    probe = type("Probe", (), {"seconds": lambda self: now["probe"]})()
    monkeypatch.setattr(session.time, "monotonic", lambda: now["wall"])
    monkeypatch.setattr(session.host, "busy_seconds", lambda: now["all"])
    times = type("Times", (), {"user": property(lambda self: now["ours"]), "system": 0.0})
    monkeypatch.setattr(session.os, "times", times)
    busy = session._Busy()
    busy.watch([probe])
    now.update(wall=12.0, all=104.0, ours=5.5, probe=2.0)
    busy.rest()
    assert busy.elsewhere() == pytest.approx((4.0 - 0.5 - 1.0) / 2.0)
    now.update(all=None)
    busy.watch([probe])
    busy.rest()
    assert busy.elsewhere() is None


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_killed_build_leaves_no_probe_and_the_next_one_sweeps_its_folder():
    code = (
        "from edgedistill.measure.transport import Local\n"
        "probe = Local()\n"
        "probe.ask('hello', deadline=60)\n"
        "print(probe.pid, probe.folder, flush=True)\n"
        "input()\n"
    )
    build = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    pid, folder = build.stdout.readline().split(maxsplit=1)
    mine = transport.Local()
    try:
        build.kill()
        build.wait()
        for _ in range(500):
            if host.process_seconds(int(pid)) is None or not host.lives(int(pid)):
                break
            time.sleep(0.02)
        else:
            pytest.fail("the probe outlived its build")
        transport.sweep()  # unless a build beside this test was faster
        assert not Path(folder.strip()).exists()
        assert mine.folder.is_dir()  # of a build that lives
    finally:
        mine.close()
