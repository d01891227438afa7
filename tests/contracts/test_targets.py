"""Every file of targets/ keeps the contract of a target."""

from __future__ import annotations

import tomllib

import pytest

from edgedistill import plugins
from edgedistill.target import load

NAMES = plugins.names("targets")
PEAK_GOPS = {"phone": 154, "embedded": 29}  # of the cores they stand for


def test_the_three_that_ship():
    assert {"phone", "embedded", "server"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_value_has_its_reason_beside_it(name):
    table = tomllib.loads(plugins.find_file("targets", name).read_text(encoding="utf-8"))
    for section, values in table.items():
        if not isinstance(values, dict):
            continue
        for key in values:
            if not key.startswith("reason_"):
                reason = values.get(f"reason_{key}", "")
                assert len(reason) > 15, f"{name} [{section}] {key} has no reason"


@pytest.mark.parametrize("name", NAMES)
def test_a_target_is_complete(name):
    made = load(name)
    assert made.name == name and made.about and made.processors
    assert {"max_drop_points", "latency_p90_ms", "memory_mb", "size_mb"} <= set(made.limits)
    assert made.device is not None
    assert made.device.int8_gops > made.device.fp32_gflops
    assert 1 < made.device.uncertainty <= 2
    assert made.device.int8_gops < PEAK_GOPS.get(name, float("inf"))


def test_no_two_targets_share_a_name():
    told = [each for name in NAMES for each in (name, *load(name).aliases)]
    assert len(told) == len(set(told))


def test_the_phone_is_as_the_field_was_measured():
    phone, embedded, server = (load(name) for name in ("phone", "embedded", "server"))
    rates = [(each.device.int8_gops, each.device.fp32_gflops) for each in (phone, embedded, server)]
    assert rates == [(100, 34), (19, 11), (390, 95)]
    assert phone.aliases == ("mobile",) and phone.runtime.onnxruntime == "1.17"
    assert phone.processors == ("arm64+dotprod", "arm64") and embedded.processors == ("arm64",)
    assert server.processors == ("x86-64+avx2", "x86-64+vnni")
    assert embedded.limits["size_mb"] < phone.limits["size_mb"]
    assert embedded.limits["memory_mb"] < phone.limits["memory_mb"]
