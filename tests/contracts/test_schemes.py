"""Every file of schemes/ keeps the contract: attributes, signatures, exactness, a light module."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys

import pytest

from edgedistill import plugins
from edgedistill.errors import JobError
from edgedistill.schemes import Scheme
from edgedistill.settings import coerce, plain

NAMES = plugins.names("schemes")
INT8 = [name for name in NAMES if plugins.find("schemes", name).PRECISION == "int8"]
FUNCTIONS = [
    name
    for name, value in vars(Scheme).items()
    if inspect.isfunction(value) and not name.startswith("_")
]
PROCESSORS = ("arm64+dotprod", "arm64", "x86-64", "x86-64+avx2", "x86-64+vnni")


@pytest.fixture(params=NAMES)
def scheme(request):
    return plugins.find("schemes", request.param)


def test_the_schemes_of_the_contract_are_there():
    assert {"dynamic_int8", "static_qdq", "static_qoperator"} <= set(NAMES)
    served = {"valid", "spared", "word", "for_processors", "exact_on", "quantizable", "apply"}
    served |= {"milder"}
    assert set(FUNCTIONS) == served


def test_attributes(scheme):
    assert scheme.PRECISION in ("int8", "fp16")
    assert isinstance(scheme.CALIBRATES, bool)
    assert scheme.PACKAGES and all(isinstance(name, str) for name in scheme.PACKAGES)


def test_settings_are_declared_and_coerced(scheme):
    assert dataclasses.is_dataclass(scheme.Settings)
    made = coerce(scheme.Settings, {}, "scheme")
    assert coerce(scheme.Settings, plain(made), "scheme") == made
    for field in dataclasses.fields(scheme.Settings):
        assert field.metadata["about"]
    with pytest.raises(JobError):
        coerce(scheme.Settings, {"no such setting": 1}, "scheme")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures(scheme, name):
    """Check the names of the parameters: callers pass them as the contract says."""
    wanted = list(inspect.signature(getattr(Scheme, name)).parameters)[1:]
    assert list(inspect.signature(getattr(scheme, name)).parameters) == wanted
    assert getattr(scheme, name).__doc__


def test_what_is_made_for_processors_is_exact_on_them(scheme):
    from itertools import combinations

    for count in range(1, len(PROCESSORS) + 1):
        for chosen in combinations(PROCESSORS, count):
            told = coerce(scheme.Settings, scheme.for_processors(chosen), "scheme")
            assert set(chosen) <= set(scheme.exact_on(told)), chosen


@pytest.mark.parametrize("name", INT8)
def test_full_range_is_kept_where_it_is_exact(name):
    scheme = plugins.find("schemes", name)
    for processor in ("arm64", "arm64+dotprod", "x86-64+vnni"):
        assert scheme.for_processors((processor,)) == {"reduce_range": False}
    full = coerce(scheme.Settings, {"reduce_range": False}, "scheme")
    assert "x86-64+avx2" not in scheme.exact_on(full)


def test_an_unknown_processor_is_no_place_for_a_scheme(scheme):
    facts = {"family": "any", "convolutional": scheme.CALIBRATES}
    assert scheme.valid(facts, None, "arm64") is None
    assert "riscv" in scheme.valid(facts, None, "riscv")


def test_each_kind_of_network_is_served_and_rows_have_names_of_their_own():
    for convolutional in (True, False):
        facts = {"family": "any", "convolutional": convolutional}
        serving = [
            plugin
            for plugin in (plugins.find("schemes", name) for name in INT8)
            if plugin.valid(facts, None, "arm64") is None
        ]
        words = [plugin.word(facts) for plugin in serving]
        assert len({*words}) == len(words) and words.count("int8") == 1
        assert all(word.startswith("int8") for word in words)
        tried = [plugin for plugin in serving if plugin.spared(facts, None) is None]
        assert "int8" in {plugin.word(facts) for plugin in tried}, "the usual one is tried"


@pytest.mark.parametrize("name", NAMES)
def test_the_module_level_is_light(name):
    code = (
        "import sys, json; from edgedistill import plugins; "
        f"plugins.find('schemes', {name!r}); print(json.dumps(sorted(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(shown.stdout))
    assert not loaded & {"torch", "transformers", "onnx", "onnxruntime", "datasets"}
