"""Exit codes mean something; one document on stdout where asked; a reader may go away."""

import importlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import click
import pytest

from edgedistill import cli, plugins
from edgedistill.errors import DataError, MissingPackage

GOES_ON = "interrupted; the same command goes on where it stopped"


def document(text):
    """Return the one JSON document that a text is."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


# ---------------------------------------------------------------- codes


def test_0_what_was_asked_for_is_done(command):
    said = command("targets")
    assert said.code == 0 and not said.err
    assert [line.split()[0] for line in said.out.splitlines()] == plugins.names("targets")


def test_1_a_limit_is_missed(command, tiny_built):
    assert command("check", tiny_built["out"], "--limit", "min_score_points=1").code == 0
    said = command("check", tiny_built["out"], "--limit", "min_score_points=100")
    assert said.code == 1 and "misses" in said.out and not said.err.count("edgedistill: ")


def test_2_the_user_can_mend_it(command):
    said = command("targets", "fone")
    assert said.code == 2 and said.error().endswith("did you mean 'phone'?") and not said.out


def test_3_the_surroundings(command, monkeypatch, tiny_built):
    def no(*given):
        raise MissingPackage("onnxruntime", "this command")

    monkeypatch.setattr("edgedistill.bundle.verify", no)
    said = command("verify", tiny_built["out"])
    assert said.code == 3 and said.error().endswith("pip install onnxruntime")


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (MemoryError(), 3, "out of memory"),
        (ModuleNotFoundError("no", name="optimun.utils"), 3, "pip install optimun"),
        (ModuleNotFoundError("no", name="json.utils"), 4, "a fault of edgedistill"),
        (OSError(28, "No space left on device", "x.bin"), 3, "the disk is full"),
        (PermissionError(13, "Permission denied", "x.bin"), 3, "no permission while working"),
        (BrokenPipeError(32, "Broken pipe"), 3, "Broken pipe"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_a_command_meets_has_its_code(command, monkeypatch, raised, code, words):
    def meet(*given):
        raise raised

    monkeypatch.setattr(plugins, "names", meet)
    said = command("targets", "--json")
    assert said.code == code and words in said.error()
    assert document(said.out)["error"]["exit_code"] == code


def test_4_our_fault_is_one_line_and_a_log_with_the_traceback(command, monkeypatch):
    def broken(kind):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(plugins, "names", broken)
    said = command("targets")
    assert said.code == 4 and said.error().startswith("RuntimeError: two lines (a fault of")
    log = Path(re.search(r"details: (\S+\.log)", said.err)[1]).read_text()
    assert "Traceback" in log and "in broken" in log


@pytest.mark.parametrize("verb", ["build", "plan"])
@pytest.mark.parametrize(
    ("raised", "pip"),
    [
        (ModuleNotFoundError("no", name="optimum.onnxruntime"), "edgedistill"),
        (MissingPackage("optimum", "the step export"), "edgedistill"),
        (MissingPackage("sklearn", "the starter job", "scikit-learn"), "edgedistill"),
        (MissingPackage("torch-pruning", "pruning", "edgedistill[prune]"), "edgedistill[prune]"),
        (ModuleNotFoundError("no", name="theirs"), "theirs"),
    ],
)
def test_what_a_build_lacks_comes_with_edgedistill(command, monkeypatch, verb, raised, pip):
    """One package by its name is one of ten that are not there either."""

    def meet(**flags):
        raise raised

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "optimum" else find(n))
    monkeypatch.setattr(importlib.import_module("edgedistill.cli.build"), "named", meet)
    said = command(verb, "--target", "phone")
    assert said.code == 3, said
    last = said.error().partition("pip install ")[2]
    assert last == (f"{pip} (with its dependencies)" if pip == "edgedistill" else pip)


# ---------------------------------------------------------------- what is interrupted


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("targets", "interrupted"),
        ("bench text", GOES_ON),
        ("build --target phone", GOES_ON),
        ("plan --target phone", "interrupted"),
        ("predict BUNDLE x", "interrupted"),
    ],
)
def test_only_what_is_kept_goes_on(command, monkeypatch, line, says):
    def meet(*given, **flags):
        raise KeyboardInterrupt

    monkeypatch.setattr(plugins, "names", meet)
    monkeypatch.setattr("edgedistill.suites.run", meet)
    monkeypatch.setattr(importlib.import_module("edgedistill.cli.build"), "named", meet)
    monkeypatch.setattr("edgedistill.bundle.load", meet)
    said = command(*line.split())
    assert (said.code, said.error()) == (130, says)


STOPPED = """
import runpy, sys
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stop())
sys.argv = ["edgedistill", "targets"]
runpy.run_module("edgedistill", run_name="__main__")
"""


@pytest.mark.parametrize("name", ["click", "edgedistill.cli", "edgedistill.plugins"])
def test_an_interruption_while_we_are_loaded_is_one_line(name):
    line = [sys.executable, "-c", STOPPED.format(name=name)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "edgedistill: interrupted\n")


def children(mark):
    """Return the command lines of the processes whose environment holds a mark."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (place / "environ").read_bytes():
                found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def left(scratch):
    """Return what lies in the folder of temporary files (.ses is onnxruntime's own)."""
    return [each.name for each in scratch.iterdir() if each.name != ".ses"]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_130_and_143_leave_nothing_and_the_same_command_goes_on(small, tmp_path):
    names = small.job(tmp_path / "job")
    given = {each.name for each in (tmp_path / "job").iterdir()}
    scratch, mark = tmp_path / "scratch", uuid.uuid4().hex
    scratch.mkdir()
    told = {**os.environ, "TMPDIR": str(scratch), "MARK": mark, "HF_HUB_OFFLINE": "1"}
    line, store = small.command(names), Path(names["store"])
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        running = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=told)
        while running.poll() is None and not any("worker" in each for each in children(mark)):
            time.sleep(0.05)
        running.send_signal(number)
        said = running.communicate(timeout=60)[1]
        assert running.returncode == code, said
        assert said.splitlines()[-1] == f"edgedistill: {GOES_ON}" and "Traceback" not in said
        assert not children(mark), "a process goes on"
        assert {each.name for each in (tmp_path / "job").iterdir()} == given | {"store"}
        assert not left(scratch)
        held = small.run([*line[:3], "store", "verify", "--store", str(store)])
        assert held.returncode == 0, held.stdout
    done = small.run(line, env=told)
    assert done.returncode == 0, done.stderr
    assert (Path(names["out"]) / "manifest.json").is_file()
    assert not left(scratch)
    assert not children(mark)


# ---------------------------------------------------------------- one document


@pytest.mark.parametrize(
    "line",
    [
        "targets",
        "targets phone",
        "store list",
        "store verify",
        "store drop --down-to 5GB",
        "verify BUNDLE",
        "inspect BUNDLE",
        "eval BUNDLE",
        "predict BUNDLE w0 w20",
    ],
)
def test_json_is_one_document_on_success(command, tiny_built, line):
    said = command(*line.replace("BUNDLE", tiny_built["out"]).split(), "--json")
    assert said.code == 0, said.err
    document(said.out)


def test_a_build_a_plan_a_check_and_a_bench_are_one_document_each(command, small, tiny_built):
    for verb in ("plan", "build"):
        said = command(*small.command(tiny_built, verb, "--json")[3:])
        assert said.code == 0 and document(said.out), said.err
    said = command("bench", tiny_built["out"], "--seconds", "0.5", "--json")
    assert said.code == 0 and len(document(said.out)["rows"]) == 1
    said = command("check", tiny_built["out"], "--format", "json")
    assert said.code in (0, 1) and document(said.out)["verdict"]


@pytest.mark.parametrize(
    "line",
    [
        "build --json",
        "build --json --target fone",
        "build --json --targett phone",
        "plan --target --json",
        "targets --json fone",
        "bench --json --seconds soon x",
        "bench --json x",
        "predict --json",
        "verify --json /nowhere",
        "inspect --json /nowhere",
        "eval --json /nowhere",
        "store show --json abc",
        "store drop --json",
        "store --json",
        "--json",
        "store lisst --json",
        "biuld --json",
        "check /nowhere --format json",
        "check /nowhere --format=json",
    ],
)
def test_json_is_one_document_on_failure(command, line):
    said = command(*line.split())
    error = document(said.out)["error"]
    assert said.code == error["exit_code"] == 2
    assert error["message"] == said.error()
    assert set(error) == {"type", "message", "exit_code"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "Missing command"),
        ("biuld", "did you mean 'build'?"),
        ("store lisst", "did you mean 'list'?"),
        ("build --targett phone", "--target"),
        ("bench", "SUITE"),
    ],
)
def test_a_wrong_command_line_is_one_line(command, line, says):
    said = command(*line.split())
    assert said.code == 2 and says in said.error()
    assert len(said.err.splitlines()) == 1 and not said.out


# ---------------------------------------------------------------- readers, terminals


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("--help", 0),
        ("targets phone", 0),
        ("store verify", 0),
        ("targets fone", 2),
        ("check BUNDLE --limit min_score_points=100", 1),
    ],
)
@pytest.mark.parametrize("both", [False, True], ids=["stdout", "stderr too"])
def test_a_reader_that_goes_away_is_no_error(tiny_built, tmp_path, line, code, both):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "edgedistill", *line.replace("BUNDLE", tiny_built["out"]).split()],
        stdout=write,
        stderr=write if both else subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "EDGEDISTILL_STORE": str(tmp_path)},
    )
    os.close(write)
    assert done.returncode == code
    assert not re.search("Traceback|BrokenPipe|Exception", done.stderr or "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("--help", 3),
        ("targets phone", 3),
        ("targets --json", 3),
        ("store verify", 3),
        ("targets fone", 2),
        ("targets fone --json", 2),
    ],
)
@pytest.mark.parametrize("both", [False, True], ids=["stdout", "stderr too"])
def test_a_full_device_is_one_line_and_its_code(tmp_path, line, code, both):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edgedistill", *line.split()],
            stdout=full,
            stderr=full if both else subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "EDGEDISTILL_STORE": str(tmp_path)},
        )
    assert done.returncode == code, done.stderr
    if not both:
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "the disk is full" in done.stderr or code == 2


def terminal(line, **told):
    """Run a command on a terminal of its own; return all that it wrote there."""
    import pty

    parent, child = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-m", "edgedistill", *line],
        stdin=child, stdout=child, stderr=child,
        env={**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, "TERM": "xterm", **told},
    )  # fmt: skip
    os.close(child)
    text = b""
    while True:
        try:
            piece = os.read(parent, 65536)
        except OSError:  # the other end was closed
            break
        if not piece:
            break
        text += piece
    os.close(parent)
    assert running.wait() == 0, text.decode()
    return text.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="makes a terminal")
def test_colours_only_on_a_terminal_and_never_with_no_color(small, tiny_built):
    line = small.command(tiny_built)
    assert "\x1b[" not in (plain := small.run(line)).stdout + plain.stderr
    assert re.search(r"\x1b\[[0-9;]+m", terminal(line[3:])), "a terminal gets colours"
    assert not re.search(r"\x1b\[[0-9;]+m", terminal(line[3:], NO_COLOR="1"))


def test_a_terminal_without_the_characters_gets_escapes(small, tiny_built):
    told = {**os.environ, "PYTHONIOENCODING": "iso8859-5"}
    done = small.run(small.command(tiny_built, "plan"), env=told)
    assert done.returncode == 0 and "\\xb7" in done.stdout


def test_a_benchmark_ends_in_one_line_too(capsys, monkeypatch):
    """What a benchmark script does with its command: `run(main, "its.py")`."""

    @click.command()
    @click.argument("what")
    def main(what):
        raise {"none": DataError("'none' does not exist"), "stop": KeyboardInterrupt()}[what]

    for told, code, line in (
        (["none"], 2, "edgedistill: 'none' does not exist"),
        ([], 2, "edgedistill: Missing argument 'WHAT'. (see 'its.py --help')"),
        (["stop"], 130, "edgedistill: interrupted"),
    ):
        monkeypatch.setattr(sys, "argv", ["its.py", *told])
        with pytest.raises(SystemExit) as ended:
            cli.run(main, "its.py")
        assert (ended.value.code, capsys.readouterr().err.strip()) == (code, line)
