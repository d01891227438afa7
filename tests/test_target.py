from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from edgedistill import plugins
from edgedistill.errors import TargetError
from edgedistill.target import LIMITS, find, limit, load, with_limits

GOOD = """
name = "mine"
aliases = ["own"]
about = "a board"
[runtime]
onnxruntime = "1.17"
integers = "int32"
[processors]
names = ["arm64"]
[device]
int8_gops = 19
reason_int8_gops = "measured"
fp32_gflops = 11
[limits]
size_mb = 10
reason_size_mb = "the update line"
"""


@pytest.fixture
def write(tmp_path):
    def make(text, name="mine.toml") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return make


def test_a_file_becomes_a_frozen_record(write):
    made = load(write(GOOD))
    assert (made.name, made.aliases, made.about) == ("mine", ("own",), "a board")
    assert made.runtime.onnxruntime == "1.17" and made.runtime.integers == "int32"
    assert (made.runtime.threads, made.runtime.batch, made.runtime.spinning) == (1, 1, False)
    assert made.runtime.fixed == 0
    assert made.processors == ("arm64",)
    assert (made.device.int8_gops, made.device.fp32_gflops) == (19.0, 11.0)
    assert (made.device.node_us, made.device.uncertainty) == (None, 1.5)
    assert made.limits == {"size_mb": 10.0}
    assert made.reasons == {"int8_gops": "measured", "size_mb": "the update line"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.name = "other"


def test_an_alias_finds_its_target():
    assert load("mobile") == load("phone")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("phnoe", "did you mean 'phone'?"),
        ("mobil", "did you mean 'mobile'?"),
        ("sever", "did you mean 'server'?"),
        ("../phone", "did you mean 'phone'?"),
        ("", "known: embedded, mobile, phone, server"),
    ],
)
def test_an_unknown_name_answers_with_the_nearest(name, hint):
    with pytest.raises(TargetError, match=re.escape(f"unknown target '{name}': {hint}")):
        load(name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TargetError, match=r"target file '.*none\.toml' does not exist"):
        load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (GOOD.replace("size_mb = 10", "size_mb = = 10"), "line 15"),
        (GOOD + "[limits]\n", "line 17"),
        (GOOD + 'x = "never closed', "line 17"),
        (b"name = 'mine'\nabout = '\xff'\n", "line 2"),
    ],
)
def test_malformed_toml_names_file_and_line(write, text, where):
    with pytest.raises(TargetError) as caught:
        load(write(text))
    assert "mine.toml" in str(caught.value) and where in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("size_mb = 10", "sise_mb = 10", "unknown limit 'sise_mb': did you mean 'size_mb'?"),
        ("size_mb = 10", "size_mb = -1", "size_mb: -1 is out of range: expected from"),
        ("size_mb = 10", "size_mb = 'ten'", "size_mb: expected a number of MB, got 'ten'"),
        ("size_mb = 10", "size_mb = true", "expected a number of MB, got True"),
        ("size_mb = 10", "size_mb = nan", "expected a number of MB"),
        ("[limits]", "[limit]", "unknown key 'limit': did you mean 'limits'?"),
        ("int8_gops = 19", "int8_gop = 19", "unknown key 'int8_gop': did you mean 'int8_gops'?"),
        ("int8_gops = 19", "int8_gops = 0", "int8_gops: 0.0 is out of range"),
        ("fp32_gflops = 11", "", "fp32_gflops is missing"),
        ('reason_size_mb = "', 'reason_size_gb = "', "'reason_size_gb' has no 'size_gb'"),
        ('reason_size_mb = "the update line"', "reason_size_mb = 3", "expected a text, got 3"),
        ('"arm64"', '"arm65"', "'arm65' is not one of its values: did you mean 'arm64'?"),
        ('names = ["arm64"]', "", "names is missing; known: x86-64"),
        ('"1.17"', "1.17", "expected a version as text"),
        ('"1.17"', '"latest"', "expected a version as text"),
        ('onnxruntime = "1.17"', "", "expected a version as text"),
        ('"int32"', '"int16"', "'int16' is not one of its values"),
        ('integers = "int32"', "threads = 0", "threads: 0 is out of range"),
        ('name = "mine"', 'name = "yours"', "its name is 'yours', expected 'mine'"),
        ('name = "mine"', "name = 3", "expected a text, got 3"),
        ('["own"]', '"own"', "aliases: expected a list of texts"),
        ("[processors]\n", "processors = 3\n[other]\n", "unknown key"),
    ],
)
def test_what_can_not_be_taken_is_one_clear_line(write, old, new, message):
    assert old in GOOD
    with pytest.raises(TargetError) as caught:
        load(write(GOOD.replace(old, new, 1)))
    assert message in str(caught.value) and "mine.toml" in str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


@pytest.mark.parametrize("section", ["runtime", "processors", "device", "limits"])
def test_a_section_that_is_no_table_is_said(write, section):
    text = f'{section} = 3\nname = "mine"\n'
    with pytest.raises(TargetError, match=rf"\[{section}\] must be a table"):
        load(write(text))


def test_a_target_without_rates_or_limits_is_one(write):
    made = load(write('[runtime]\nonnxruntime = "1.20"\n[processors]\nnames = ["x86-64"]\n'))
    assert made.device is None and made.limits == {} and made.name == "mine"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_drop", "2", "unknown limit 'max_drop': did you mean 'max_drop_points'?"),
        ("latency", "2", "unknown limit 'latency'"),
        ("max_drop_points", "101", "101 is out of range: expected from 0 to 100 points"),
        ("latency_p90_ms", "0", "0 is out of range"),
        ("size_mb", "", "expected a number of MB, got ''"),
        ("memory_mb", "inf", "expected a number of MB"),
    ],
)
def test_a_limit_that_can_not_be_taken(name, value, message):
    with pytest.raises(TargetError) as caught:
        limit(name, value)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", LIMITS)
def test_every_limit_takes_its_ends_and_nothing_beyond(name):
    about = LIMITS[name]
    assert limit(name, about.low) == about.low and limit(name, str(about.high)) == about.high
    for beyond in (about.low - 1, about.high * 2 + 1):
        with pytest.raises(TargetError, match="out of range"):
            limit(name, beyond)


def test_an_overridden_limit_loses_its_reason(write):
    made = load(write(GOOD))
    changed = with_limits(made, {"size_mb": 5, "load_ms": 100})
    assert changed.limits == {"size_mb": 5.0, "load_ms": 100.0}
    assert "size_mb" not in changed.reasons and "int8_gops" in changed.reasons
    assert made.limits == {"size_mb": 10.0}
    with pytest.raises(TargetError, match="did you mean 'size_mb'"):
        with_limits(made, {"size": 5})


def test_a_copy_of_a_file_is_a_target_of_its_own_name(tmp_path):
    copied = tmp_path / "mine.toml"
    copied.write_text(find("mobile").read_text(encoding="utf-8"), encoding="utf-8")
    made = load(copied)
    assert made.name == "mine" and dataclasses.replace(made, name="phone") == load("phone")


def test_a_target_is_plain_values_throughout():
    made = dataclasses.asdict(load("phone"))
    assert json.loads(json.dumps(made))["limits"]["size_mb"] == 25.0


def test_targets_inside_the_package_come_first(tmp_path, monkeypatch, write):
    """A wheel holds them inside the package: what lies there is found without the checkout."""
    house = tmp_path / "site-packages" / "edgedistill"
    (house / "targets").mkdir(parents=True)
    (house / "targets" / "mine.toml").write_text(GOOD)
    monkeypatch.setattr(plugins, "HOUSE", house)
    assert load("mine").name == load("own").name == "mine"
    with pytest.raises(TargetError, match="unknown target 'phone'"):
        load("phone")
