"""Names of models and data: a path here, or an id on the hub, resolved to a commit."""

from __future__ import annotations

from pathlib import Path

from edgedistill.errors import MissingPackage, ModelError, UserError, first_line
from edgedistill.plugins import near

FILES = (
    "config.json", "*.safetensors", "model.safetensors.index.json", "tokenizer*", "vocab*",
    "merges.txt", "*.model", "special_tokens_map.json", "*processor_config.json", "image.json",
    "LICENSE*", "LICENCE*", "README.md",
)  # fmt: skip
PICKLES = ("pytorch_model*.bin", "pytorch_model.bin.index.json")


def local(name: str | Path, error: type[UserError]) -> Path | None:
    """Return the path that a name stands for, or None where it is a hub id.

    What exists here is a path. A name with a leading `.`, `/` or `~`, with more than one `/`, one
    at its end, or the suffix of a file is one too: then `error` is raised, with the nearest name.
    """
    path = Path(name).expanduser()
    try:
        if str(name).strip() and path.exists():
            return path
    except (OSError, ValueError) as problem:  # too long, a zero byte
        raise error(f"{str(name)[:80]!r} is no path: {problem}") from None
    if isinstance(name, Path) or is_path(name):
        raise error(f"'{name}' does not exist{near(path)}")
    return None


def is_path(text: str) -> bool:
    """Say whether a text stands for a path, there or not, and not for a hub id (see `local`)."""
    path = Path(text).expanduser()
    spelt = text.startswith((".", "/", "~")) or text.endswith("/") or text.count("/") > 1
    if spelt or path.suffix.lower() in _FILE_SUFFIXES or not text.strip():
        return True
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


_FILE_SUFFIXES = frozenset(
    (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".npz", ".onnx", ".toml", ".txt")
)


def fetch_model(name: str, *, revision: str | None, pickles: bool) -> tuple[Path, str]:
    """Fetch the files of a model that count; returns the folder and the commit.

    Where the hub does not answer, what was fetched before. Raises `ModelError`: no such model, no
    permission, or no network.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise MissingPackage("huggingface_hub", f"fetching '{name}' from the hub") from None
    patterns = [*FILES, *(PICKLES if pickles else ())]
    try:
        commit = huggingface_hub.HfApi().model_info(name, revision=revision).sha
        folder = huggingface_hub.snapshot_download(name, revision=commit, allow_patterns=patterns)
    except Exception as problem:  # network, permission, name: the library raises many kinds
        before = _fetched_before(name, revision)
        if before is None:
            close = near(Path(name)).removeprefix(": ")
            hint = f" ({close})" if "did you mean" in close else ""
            raise ModelError(
                f"'{name}' is no folder here{hint}, "
                f"and can't be fetched from the hub: {first_line(problem)}"
            ) from None
        return before, before.name
    return Path(folder), str(commit)


def _fetched_before(name: str, revision: str | None) -> Path | None:
    """Return the folder of a commit that is in the hub's own cache, which is named after it."""
    import huggingface_hub

    try:
        found = huggingface_hub.snapshot_download(name, revision=revision, local_files_only=True)
    except Exception:  # not there, or no id: what the hub said is told
        return None
    return Path(found)
