import pytest

from edgedistill.data import hub
from edgedistill.errors import DataError, ModelError


@pytest.mark.parametrize("name", ["org/name", "bert-base-uncased"])
def test_hub_ids(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hub.local(name, ModelError) is None


@pytest.mark.parametrize("name", ["./name", "/no/name", "~/no", "a/b/c", "rows/", "rows.csv", ""])
def test_paths_that_do_not_exist(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"does not exist|is no path"):
        hub.local(name, DataError)


def test_what_exists_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert hub.local("model", ModelError) is not None


def test_a_name_that_can_not_be_a_path():
    with pytest.raises(ModelError, match=r"is no path|does not exist"):
        hub.local("/" + "x" * 5000, ModelError)


def test_a_failed_fetch_is_one_clear_line(tmp_path, monkeypatch):
    import huggingface_hub

    def fail(*arguments, **settings):
        raise OSError("no network\nand more")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    with pytest.raises(ModelError, match=r"did you mean 'checkpoint'\?.*hub: no network$"):
        hub.fetch_model("chekpoint", revision=None, pickles=False)


def test_a_model_is_fetched_at_one_commit_and_without_pickles(tmp_path, monkeypatch):
    import huggingface_hub

    asked = {}

    class Info:
        sha = "c0ffee"

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, name, revision: Info)
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download",
        lambda name, **told: asked.update(told) or str(tmp_path),
    )  # fmt: skip
    assert hub.fetch_model("org/name", revision="main", pickles=False) == (tmp_path, "c0ffee")
    assert asked["revision"] == "c0ffee"
    assert not any(".bin" in pattern for pattern in asked["allow_patterns"])


def test_what_was_fetched_before_serves_where_the_hub_is_silent(tmp_path, monkeypatch):
    import huggingface_hub

    def silent(*arguments, **settings):
        raise OSError("offline")

    def cached(name, *, revision, local_files_only):
        assert local_files_only and revision == "v1"
        if name != "org/name":
            raise OSError("not in the cache")
        return str(tmp_path / "snapshots" / "c0ffee")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", silent)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    folder, commit = hub.fetch_model("org/name", revision="v1", pickles=False)
    assert (folder.name, commit) == ("c0ffee", "c0ffee")
    with pytest.raises(ModelError, match=r"hub: offline$"):
        hub.fetch_model("org/other", revision="v1", pickles=False)


def test_the_licence_comes_along():
    from fnmatch import fnmatch

    for name in ("LICENSE", "LICENSE.txt", "README.md"):
        assert any(fnmatch(name, pattern) for pattern in hub.FILES)
