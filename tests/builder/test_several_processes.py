"""A build under torchrun: the first process builds, the others train along and end with it."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("small", Path(__file__).parent / "small.py")
small = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small)

pytestmark = pytest.mark.slow
# a training that is still on when a process is killed, however slow or quick the host
LONG = {"finetune.steps": 20_000, "finetune.patience": 0, "run.time_limit": "99h"}


def job(folder):
    """Return a job whose student and control are trained by two processes, its teacher too."""
    names = small.job(folder)
    names["settings"] |= {"finetune.batch": 16, "distill.batch": 16}
    return names


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def started(names, rank, port):
    """Start one of two processes, as torchrun would."""
    told = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 2}
    told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "EDGEDISTILL_CHECKPOINT_SECONDS": 0}
    return subprocess.Popen(
        small.command(names),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **{name: str(value) for name, value in told.items()}},
    )


def train_together(names, first):
    """Wait until the two have made a step together, and its checkpoint."""
    work, deadline = Path(names["store"]) / "work", time.monotonic() + 400
    while not list(work.glob("*/.resume/0*")):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)


def test_torchrun_builds_one_bundle_with_all_its_processes(tmp_path):
    names = job(tmp_path) | {"student": "2", "prune": "0.5"}
    names["settings"] |= {"prune.steps": 12, "prune.rounds": 2, "prune.rows": 64}
    line = small.command(names)[1:]
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = small.run([*run, "--master-port", str(free_port()), *line])
    assert done.returncode == 0, done.stderr
    record = json.loads((Path(names["out"]) / "report.json").read_text())
    assert done.stdout.count("bundle     ") == 1, "only the first process prints"
    trains = ("finetune", "distill", "prune")
    trained = [step for step in record["steps"] if step["stage"] in trains]
    assert {step["stage"] for step in trained} == {*trains}
    assert not any(step["cached"] for step in trained)
    for step in trained:
        place = Path(names["store"]) / "v1" / step["stage"] / step["key"] / "artifact.json"
        assert json.loads(place.read_text())["settings"]["processes"] == 2
    planned = small.run(small.command(names, "plan", "--json"))
    alone = {step["key"] for step in json.loads(planned.stdout)["steps"]}
    assert not alone & {step["key"] for step in trained}, "the number of processes is in the key"


def test_a_follower_that_dies_ends_the_build_with_one_clear_line(tmp_path):
    names = job(tmp_path)
    names["settings"] |= LONG
    port = free_port()
    first, second = started(names, 0, port), started(names, 1, port)
    try:
        train_together(names, first)
        second.kill()
        _, err = first.communicate(timeout=120)
        assert first.returncode == 3, err
        assert "a process that trains beside this one ended" in err and "Traceback" not in err
        assert err.strip().splitlines()[-1].startswith("edgedistill: ")
    finally:
        for each in (first, second):
            each.kill()
            each.wait()


def test_followers_end_with_the_build_that_they_follow(tmp_path):
    names = job(tmp_path)
    names["settings"] |= LONG
    port = free_port()
    first, second = started(names, 0, port), started(names, 1, port)
    try:
        train_together(names, first)
        first.kill()
        _, err = second.communicate(timeout=120)
        assert second.returncode == 0, err
        assert "Traceback" not in err
    finally:
        for each in (first, second):
            each.kill()
            each.wait()
