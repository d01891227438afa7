"""What lies in the output's place is replaced whole, and only when it is a bundle and no more."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgedistill import bundle
from edgedistill.bundle import Contents, exchange
from edgedistill.errors import BundleError, SurroundingsError


def nothing(opened: bundle.Bundle) -> None:
    pass


def test_nothing_and_an_empty_folder_are_replaceable_and_nothing_is_left(tmp_path: Path):
    bundle.replaceable(tmp_path / "none" / "yet")
    (tmp_path / "empty").mkdir()
    bundle.replaceable(tmp_path / "empty")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_folder_of_the_user_is_refused_by_the_names_in_it(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("words")
    with pytest.raises(BundleError, match=r"not a bundle .*'thesis.tex'"):
        bundle.replaceable(tmp_path)


def test_a_bundle_with_a_foreign_file_folder_or_link_is_refused(copied: Path):
    (copied / ".DS_Store").write_bytes(b"what a desktop leaves")
    bundle.replaceable(copied)
    (copied / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"'notes\.txt'"):
        bundle.replaceable(copied)
    (copied / "notes.txt").unlink()
    (copied / "more").mkdir()
    with pytest.raises(BundleError, match="'more'"):
        bundle.replaceable(copied)
    (copied / "more").rmdir()
    (copied / "report.md").unlink()
    (copied / "report.md").symlink_to(copied / "report.json")
    with pytest.raises(BundleError, match=r"'report\.md'"):
        bundle.replaceable(copied)


def test_a_bundle_that_can_not_be_emptied_is_told_before_the_build(copied: Path, monkeypatch):
    real = exchange.tempfile.TemporaryFile

    def refuses(dir):  # to root, who runs tests too, every folder can be written
        if dir == copied:
            raise PermissionError(13, "Permission denied")
        return real(dir=dir)

    bundle.replaceable(copied)
    monkeypatch.setattr(exchange.tempfile, "TemporaryFile", refuses)
    with pytest.raises(SurroundingsError, match="no permission to write the bundle's folder under"):
        bundle.replaceable(copied)


def test_a_file_a_link_and_a_place_under_a_file_are_refused(tmp_path: Path, made: Path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(made)
    for place in ("file", "link", "file/under"):
        with pytest.raises(BundleError, match=r"no folder|is a file"):
            bundle.replaceable(tmp_path / place)


def test_a_damaged_manifest_is_no_bundle(copied: Path):
    (copied / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match="not sound JSON"):
        bundle.replaceable(copied)


def test_a_foreign_file_that_comes_while_the_build_runs_stops_the_exchange(
    copied: Path, text_contents: Contents
):
    def slowly(opened: bundle.Bundle) -> None:
        (copied / "notes.txt").write_text("mine")

    with pytest.raises(BundleError, match=r"notes.txt"):
        bundle.write(copied, text_contents, prove=slowly)
    assert (copied / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("in_one_call", [True, False])
def test_an_old_bundle_is_exchanged_whole(
    copied: Path, text_contents: Contents, in_one_call: bool, monkeypatch: pytest.MonkeyPatch
):
    if not in_one_call:
        monkeypatch.setattr(exchange, "_exchange", lambda one, other: False)
    elif sys.platform != "linux":
        pytest.skip("only Linux exchanges two folders in one call")
    (copied / "report.md").unlink()
    bundle.write(copied, text_contents, prove=nothing)
    assert bundle.verify(copied).unlisted == ()
    beside = sorted(path.name for path in copied.parent.iterdir())
    assert beside == ["bundle", "bundle.lock"]


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux'")
def test_the_exchange_is_one_call_here(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "one").touch()
    assert exchange._exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b" / "one").exists() and not (tmp_path / "a" / "one").exists()


def test_the_next_start_mends_a_half_exchange(copied: Path):
    old, new = (copied.with_name(f".bundle.{word}") for word in ("old", "new"))
    copied.rename(old)
    new.mkdir()
    (new / "model.onnx").touch()
    bundle.replaceable(copied)
    assert bundle.verify(copied).golden.holds
    assert not old.exists() and not new.exists()


def test_an_exchange_that_was_finished_loses_only_the_old_one(copied: Path):
    old = copied.with_name(".bundle.old")
    old.mkdir()
    (old / "model.onnx").touch()
    bundle.replaceable(copied)
    assert bundle.verify(copied).golden.holds and not old.exists()


def test_who_only_asks_leaves_the_work_of_another_build_alone(tmp_path: Path):
    out = tmp_path / "phone"
    with exchange.locked(out), exchange_new(out) as new:
        asked = threading.Thread(target=bundle.replaceable, args=(out,))
        asked.start()
        asked.join()
        assert new.exists()


def exchange_new(out: Path):
    import contextlib

    @contextlib.contextmanager
    def made():
        new = out.with_name(f".{out.name}.new")
        new.mkdir()
        yield new

    return made()


def test_a_second_writer_waits_and_then_gives_up_in_one_line(tmp_path: Path):
    out = tmp_path / "phone"
    code = (
        "import sys, time; from pathlib import Path; from edgedistill.bundle import exchange\n"
        "with exchange.locked(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout and holder.stdout.readline() == "held\n"
            with (
                pytest.raises(SurroundingsError, match="another build"),
                exchange.locked(out, wait=0.2),
            ):
                pass
        finally:
            holder.kill()
    with exchange.locked(out, wait=5) as ours:  # the lock ends with its process
        assert ours


@pytest.mark.parametrize("moment", ["filled", "proven", "between"])
def test_a_kill_at_any_moment_leaves_a_whole_bundle(copied: Path, text_graph: Path, moment: str):
    """A child is ended (no cleaning up) at that moment; the next start finds a whole bundle."""
    code = """
import os, sys
from pathlib import Path
from edgedistill.bundle import exchange
out, moment = Path(sys.argv[1]), sys.argv[2]
with exchange.locked(out):
    exchange.mend(out)
    new = exchange._new(out)
    new.mkdir()
    (new / "manifest.json").write_text("{}")
    if moment == "filled":
        os._exit(9)
    exchange._settle(new)
    if moment == "proven":
        os._exit(9)
    exchange._exchange = lambda one, other: False
    rename = Path.rename
    def once(self, to):
        rename(self, to)
        os._exit(9)
    Path.rename = once
    exchange.swap(new, out)
"""
    ran = subprocess.run([sys.executable, "-c", code, str(copied), moment], check=False)
    assert ran.returncode == 9
    bundle.replaceable(copied)
    assert bundle.verify(copied).golden.holds
    assert sorted(os.listdir(copied.parent)) == ["bundle", "bundle.lock"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_place_without_permission_is_said_at_the_start(tmp_path: Path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(SurroundingsError, match="no permission"):
            bundle.replaceable(tmp_path / "phone")
    finally:
        tmp_path.chmod(0o755)
