"""What the chosen file answers on the target's other processors: in the record and its faces."""

import jsonschema
import pytest

from edgedistill import report as reports
from edgedistill.records import OnProcessor
from edgedistill.report import words

FOUND = (
    OnProcessor("x86-64+vnni", None, 3000, 100.0, None, None, "checked", "this host"),
    OnProcessor("arm64", "cortex-a53", 200, 99.5, 95.5, 96.0, "checked"),
    OnProcessor("arm64+dotprod", "cortex-a76", 40, 80.0, 70.0, 96.0, "differs", "90 % of 40 rows"),
    OnProcessor("x86-64+avx2", None, 0, None, None, None, "not_checked", "no qemu <b>"),
    OnProcessor("x86-64", None, 0, None, None, None, "not_checked", "no qemu <b>"),
)
SAID = [
    "checked as x86-64+vnni: this host",
    "as arm64 (cortex-a53, emulated) 99.5 % of 200 validation rows are answered as here, score "
    "95.5 there and 96.0 here",
    "as arm64+dotprod (cortex-a76, emulated) it is not what it is here: 90 % of 40 rows; score "
    "70.0 there and 96.0 here",
    "not checked as x86-64+avx2 and x86-64: no qemu <b>",
]


@pytest.fixture
def told(invent, monkeypatch):
    from edgedistill.report import record

    made = {**invent(), "processors": record._plain(list(FOUND))}
    jsonschema.validate(made, reports.schema())
    return made


def test_every_face_tells_them_and_says_what_was_not_checked(told):
    assert words.on_processors(told) == SAID
    assert all(f" {line}" in reports.table(told).splitlines() for line in SAID)
    page, text = reports.html(told), reports.markdown(told)
    assert "As arm64 (cortex-a53, emulated) 99.5 %" in page and "no qemu &lt;b&gt;." in page
    assert "Not checked as x86-64\\+avx2" in text or "Not checked as x86-64+avx2" in text


def test_reports_from_before_say_nothing_of_them(invented):
    assert invented["processors"] == []
    before = {name: value for name, value in invented.items() if name != "processors"}
    jsonschema.validate(before, reports.schema())
    assert words.on_processors(before) == [] and reports.table(before)
