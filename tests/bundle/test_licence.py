"""The licence of a model is that of its folder, or what its card says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgedistill import bundle


def card(folder: Path, front: str) -> str | None:
    (folder / "README.md").write_text(front)
    return bundle.licence_of(folder)


@pytest.mark.parametrize("name", ["LICENSE", "LICENSE.txt", "license.md", "LICENCE", "COPYING"])
def test_a_licence_file_is_carried_whole(tmp_path: Path, name: str):
    (tmp_path / name).write_text("You may.\n  © Ann Ünal\n", "utf-8")
    card(tmp_path, "---\nlicense: mit\n---\n")
    assert bundle.licence_of(tmp_path) == "You may.\n  © Ann Ünal\n"


def test_all_licence_files_count(tmp_path: Path):
    (tmp_path / "LICENSE-APACHE").write_text("one")
    (tmp_path / "LICENSE-MIT").write_text("two")
    assert bundle.licence_of(tmp_path) == "one\n\ntwo\n"


@pytest.mark.parametrize(
    ("front", "said"),
    [
        ("---\nlanguage: en\nlicense: apache-2.0\n---\n# A model", "apache-2.0"),
        ('---\r\nlicense: "mit"   # yes\r\n---\r\n', "mit"),
        ("---\nlicense:\n- mit\n- cc-by-4.0\ntags:\n- gpl\n---\n", "mit, cc-by-4.0"),
        ("---\nlicense: [mit, 'bsd']\n---\n", "mit, bsd"),
    ],
)
def test_a_model_card_names_it(tmp_path: Path, front: str, said: str):
    assert f"licence: {said}\n" in card(tmp_path, front)


def test_a_licence_of_its_own_comes_with_name_and_link(tmp_path: Path):
    front = "---\nlicense: other\nlicense_name: ours\nlicense_link: https://example.com/l\n---\n"
    said = card(tmp_path, front)
    assert "name: ours\n" in said and "text: https://example.com/l\n" in said


@pytest.mark.parametrize(
    "front",
    ["", "# license: mit", "---\nlicense: mit\n", "---\nlicense:\n---\n", "---\ntags: x\n---\n",
     "text\n---\nlicense: mit\n---\n", "---\ntags:\n  license: mit\n---\n"],
)  # fmt: skip
def test_a_card_that_says_nothing_gives_nothing(tmp_path: Path, front: str):
    assert card(tmp_path, front) is None


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"a\x00b", b"a\x1b[31m", b"a" * 200_001, b" "]
)
def test_what_is_no_text_is_no_licence(tmp_path: Path, content: bytes):
    (tmp_path / "LICENSE").write_bytes(content)
    assert bundle.licence_of(tmp_path) is None


def test_folders_and_pipes_are_passed_over(tmp_path: Path):
    (tmp_path / "LICENSE").mkdir()
    os.mkfifo(tmp_path / "LICENSE.txt")
    assert bundle.licence_of(tmp_path) is None
    assert bundle.licence_of(tmp_path / "none") is None
