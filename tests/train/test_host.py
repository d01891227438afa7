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

    def ratio(threads):
        asked.append(threads)
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
    assert host.host_dtype(2) == dtype
    assert claims.asked == [2]


def test_a_processor_without_it_is_not_timed(claims, monkeypatch):
    monkeypatch.setattr(host, "_processor", lambda: ("old", {"avx2"}))
    assert host.host_dtype(1) == "float32"
    assert not claims.asked


def test_the_answer_is_remembered_by_threads(claims, tmp_path):
    memory, claims.ratio = tmp_path / "deep" / "host.json", 2.0
    assert host.host_dtype(1, memory=memory) == "bfloat16"
    claims.ratio = 0.5
    assert host.host_dtype(1, memory=memory) == "bfloat16"
    assert host.host_dtype(2, memory=memory) == "float32"
    assert claims.asked == [1, 2]
    memory.write_text("{damaged")
    assert host.host_dtype(1, memory=memory) == "float32"
    assert len(json.loads(memory.read_text())) == 1


def test_a_real_timing_gives_a_ratio():
    assert host._ratio(1) > 0


def test_importing_loads_no_torch():
    code = (
        "import sys, edgedistill.train.host, edgedistill.train.pace; print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
