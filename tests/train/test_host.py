"""Whether bfloat16 pays on this host."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edgedistill.train import host


@pytest.fixture
def claims(monkeypatch):
    """A processor that says it has bfloat16, with the ratio that a test sets."""
    asked = []

    def ratio(device):
        asked.append(claims.ratio)
        return claims.ratio

    monkeypatch.setattr(host, "_processor", lambda: ("a processor", {"avx512_bf16"}))
    monkeypatch.setattr(host, "_ratio", ratio)
    claims.asked = asked
    return claims


@pytest.mark.parametrize(
    ("ratio", "dtype"), [(2.0, "bfloat16"), (1.1, "float32"), (0.01, "float32")]
)
def test_it_is_what_the_timing_says(claims, ratio, dtype):
    claims.ratio = ratio
    assert host.host_dtype() == dtype
    assert claims.asked == [ratio]


def test_a_processor_without_it_is_not_timed(claims, monkeypatch):
    monkeypatch.setattr(host, "_processor", lambda: ("old", {"avx2"}))
    assert host.host_dtype() == "float32"
    assert not claims.asked


def test_the_answer_is_remembered(claims, tmp_path):
    memory, claims.ratio = tmp_path / "deep" / "host.json", 0.5
    assert host.host_dtype(memory, probe=False) == "bfloat16", "the processor's word"
    assert not claims.asked and not memory.exists()
    assert host.host_dtype(memory) == "float32"
    claims.ratio = 2.0
    assert host.host_dtype(memory) == host.host_dtype(memory, probe=False) == "float32"
    assert claims.asked == [0.5]
    memory.write_text("{damaged")
    assert host.host_dtype(memory) == "bfloat16"
    assert len(json.loads(memory.read_text())) == 1


@pytest.mark.parametrize(
    ("ratio", "dtype"), [(3.0, "bfloat16"), (0.9, "float32"), (None, "float32")]
)
def test_a_gpu_is_timed_by_itself(claims, monkeypatch, tmp_path, ratio, dtype):
    """What the processor has tells nothing of it, and without a timing nothing is assumed."""
    memory, asked = tmp_path / "host.json", []
    monkeypatch.setattr(host, "_ratio", lambda device: asked.append(device) or ratio)
    assert host.host_dtype(memory, probe=False, device="cuda") == "float32"
    assert host.host_dtype(memory, device="cuda") == dtype
    assert host.host_dtype(memory, probe=False) == "bfloat16", "the processor's word"
    assert asked == ["cuda"]
    assert host.host_dtype(memory, probe=False, device="cuda") == dtype


def test_a_device_that_torch_does_not_see(monkeypatch):
    assert not host.sees("no_such_device")
    monkeypatch.setattr(host, "SEES", "print(True)")
    assert host.sees("cuda")


def test_a_real_timing_gives_a_ratio():
    assert host._ratio() > 0


def test_importing_loads_no_torch():
    code = (
        "import sys, edgedistill.train.host, edgedistill.train.pace; print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
