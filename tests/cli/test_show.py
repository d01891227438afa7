"""Progress on a terminal: of two steps at once the bar of the first is drawn, then the other's."""

import pytest

from edgedistill.cli.show import Printer


@pytest.fixture
def drawn(monkeypatch, capsys):
    """Send an event to a printer on a terminal; returns what it drew."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    printer = Printer()

    def send(kind, key="", **told):
        event = {"kind": kind, "stage": f"stage{key}", "about": f"about{key}", **told}
        printer(event | ({"key": key} if key else {}))
        return capsys.readouterr().err

    return send


def bar(done):
    return {"done": done, "total": 10, "unit": "steps"}


@pytest.mark.parametrize(
    "over", [{"kind": "end", "seconds": 1.0, "cached": False}, {"kind": "gone", "text": "it died"}]
)
def test_of_two_steps_the_first_is_drawn_until_it_is_over(drawn, over):
    assert "stage1" in drawn("start", "1") and drawn("start", "2") == ""
    assert "about1" in drawn("bar", "1", **bar(3)) and drawn("bar", "2", **bar(4)) == ""
    said = {name: value for name, value in over.items() if name != "kind"}
    assert drawn(over["kind"], "1", **said)
    line = drawn("bar", "2", **bar(5))
    assert "about2" in line and "5/10 steps" in line and "about1" not in line


def test_a_bar_that_is_no_steps_has_no_steps_name(drawn):
    drawn("start", "1")
    drawn("end", "1", seconds=1.0, cached=False)
    line = drawn("bar", **bar(2))
    assert "2/10 steps" in line and "about1" not in line
