from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from edgedistill.measure import host
from edgedistill.progress import silent
from edgedistill.target import PROCESSORS

AVX512 = {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"}


@pytest.mark.parametrize(
    ("flags", "machine", "expected"),
    [
        ({"sse4_1"}, "x86_64", "x86-64"),
        ({"avx2", "fma"}, "AMD64", "x86-64+avx2"),
        (AVX512, "x86_64", "x86-64+avx2"),  # AVX512 without VNNI saturates like AVX2
        (AVX512 | {"avx512_vnni"}, "x86_64", "x86-64+vnni"),
        ({"avx2", "fma", "avx_vnni"}, "x86_64", "x86-64+vnni"),
        ({"avx2", "fma", "avx512_vnni"}, "x86_64", "x86-64+avx2"),
        ({"asimd"}, "aarch64", "arm64"),
        ({"asimd", "asimddp"}, "arm64", "arm64+dotprod"),
        (set(), "riscv64", "riscv64"),
    ],
)
def test_instruction_sets_are_named_as_targets_name_them(flags, machine, expected):
    assert host.instructions(frozenset(flags), machine) == expected
    assert expected in PROCESSORS or expected == "riscv64"


def test_this_host_has_a_name():
    found = host.environment()
    assert found["processor"] and found["cores"] >= 1
    assert found["instructions"] == host.instructions()
    assert {"python", "numpy", "onnxruntime"} <= set(found["versions"])


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="no /proc on this system")
def test_a_process_that_works_is_seen_and_one_that_is_gone_is_not():
    before = host.busy_seconds()
    worker = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        while (host.process_seconds(worker.pid) or 0.0) < 0.1:
            time.sleep(0.02)
    finally:
        worker.kill()
        worker.wait()
    assert host.busy_seconds() >= before + 0.1
    assert host.process_seconds(worker.pid) is None


def test_one_build_measures_at_a_time_and_the_other_says_that_it_waits(tmp_path):
    path, events, order = tmp_path / "lock", [], []
    waiting = threading.Event()

    def second():
        def hear(event):
            events.append(event)
            waiting.set()

        with host.alone(hear, path):
            order.append("second")

    with host.alone(silent, path):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(30)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]
    assert [event["kind"] for event in events] == ["wait"]


def test_a_lock_that_can_not_be_taken_is_said_and_passed(tmp_path):
    events = []
    (tmp_path / "file").write_text("")
    with host.alone(events.append, tmp_path / "file" / "lock"):
        pass
    assert [event["kind"] for event in events] == ["note"]
    assert "can't be taken" in events[0]["text"]
