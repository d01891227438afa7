"""What is set for a whole training process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FREED = """
import resource
import sys
import torch
from edgedistill.train import outputs
if sys.argv[1] == "prepared":
    outputs.prepare(1)
def step():
    torch.ones(10 * 2**20)  # 40 MB: above what glibc keeps by itself
for _ in range(20):  # until the heap is as large as it gets
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(told):
    command = [sys.executable, "-c", FREED, told]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_memory_of_one_step_is_the_next_ones():
    assert faults("prepared") < faults("plain") / 10
