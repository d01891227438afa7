"""The manifest: what a bundle says of itself, made once, read with suspicion."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgedistill import plugins
from edgedistill.bundle import schema, untrusted
from edgedistill.bundle.untrusted import printable
from edgedistill.errors import BundleError

NAME = "manifest.json"
FORMAT = 1
MANIFEST_BYTES = 16_000_000  # a hundred thousand labels of 100 characters


@functools.cache
def rules() -> Mapping[str, Any]:
    """Return the JSON schema of the manifest, which ships in the package."""
    return json.loads(Path(__file__).with_name("manifest.schema.json").read_text("utf-8"))


def read(folder: Path) -> dict[str, Any]:
    """Read a bundle's manifest and hold it against its schema and against itself.

    Raises `BundleError` for a folder that is no bundle, a newer format, and anything unsound.
    """
    if not folder.is_dir():
        why = "it is a file, not a folder"
        if not folder.exists():
            why = f"there is no such folder{printable(plugins.near(folder))}"
        raise BundleError(f"'{printable(folder)}' is no bundle: {why}")
    if not (folder / NAME).exists() and not (folder / NAME).is_symlink():
        raise BundleError(f"'{printable(folder)}' is no bundle: it holds no {NAME}")
    found = untrusted.read_json(folder, NAME, most=MANIFEST_BYTES)
    try:
        _holds(found)
    except BundleError as error:
        raise BundleError(f"'{printable(folder)}': {error}") from None
    return found


def _holds(found: Any) -> None:
    """Hold a manifest against its schema and against itself."""
    if (
        isinstance(found, dict)
        and isinstance(found.get("format"), int)
        and found["format"] > FORMAT
    ):
        raise BundleError(
            f"the bundle's format is {found['format']}, this edgedistill reads {FORMAT}: update it"
        )
    for where, what in schema.problems(found, rules()):
        place = f"{NAME}: {printable(where)}" if where else NAME
        raise BundleError(f"{place}: {printable(what)}")
    _names_agree(found)


def _names_agree(found: Mapping[str, Any]) -> None:
    """Hold the file names in the manifest against its own list of files."""
    named = {found["model"]["file"], found["encode"]["file"], found["golden"]["file"]}
    named |= {"labels.json", *found["ship"]} - {NAME}  # it ships, but can't hold its own hash
    if "fixed" in found["model"]:
        named.add(found["model"]["fixed"])
    if "ort" in found["model"]:
        named |= {found["model"]["ort"][key] for key in ("file", "operators")}
    for name in sorted(named | set(found["files"])):
        untrusted.plain_name(name)
        if name not in found["files"]:
            raise BundleError(f"{NAME}: files: '{printable(name)}' is named but not listed")
        if name.casefold() == NAME:
            raise BundleError(f"{NAME}: files: the manifest can't list itself")
    if len({name.casefold() for name in found["files"]}) != len(found["files"]):
        raise BundleError(f"{NAME}: files: two names differ in case only")
    if found["files"][found["model"]["file"]]["bytes"] != found["model"]["bytes"]:
        raise BundleError(f"{NAME}: model.bytes is not the size of the file that it names")
    points = found["model"].get("products", [])
    if len({point["length"] for point in points}) != len(points):
        raise BundleError(f"{NAME}: model.products names a length twice")
    if found["decide"]["outputs"] not in [each["name"] for each in found["model"]["outputs"]]:
        raise BundleError(f"{NAME}: decide.outputs is not one of the model's outputs")


def check_files(folder: Path, found: Mapping[str, Any], names: Sequence[str] = ()) -> None:
    """Hold the size and hash of files (all, or those named) against the manifest.

    All sizes come first, so that nothing is read of a bundle whose sizes are wrong.
    """
    chosen = {name: found["files"][name] for name in names or sorted(found["files"])}
    for name, listed in chosen.items():
        size = untrusted.size_of(folder, name)
        if size != listed["bytes"]:
            raise BundleError(
                f"'{printable(folder / name)}' holds {size:,} bytes, its manifest says "
                f"{listed['bytes']:,}: the bundle is damaged, build it again"
            )
    for name, listed in chosen.items():
        if untrusted.digest(folder, name) != listed["sha256"]:
            raise BundleError(
                f"'{printable(folder / name)}' is not what its manifest says (SHA-256 differs): "
                "the bundle is damaged or altered, build it again"
            )


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Describe every file of a folder but the manifest, by name."""
    return {
        path.name: {
            "bytes": path.stat().st_size,
            "sha256": untrusted.digest(folder, path.name),
        }
        for path in sorted(folder.iterdir())
        if path.name != NAME
    }


def payload(files: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str:
    """Digest what is the same bytes whenever the same choice is built again.

    The SHA-256 over lines "sha256  name" of model, encoder, labels and golden vectors, by name.
    """
    lines = (f"{files[name]['sha256']}  {name}\n" for name in sorted(set(names)))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def payload_names(found: Mapping[str, Any]) -> list[str]:
    """Name the files that the payload covers."""
    names = [found["model"]["file"], found["encode"]["file"], "labels.json"]
    names.append(found["golden"]["file"])
    return names + ([found["model"]["fixed"]] if "fixed" in found["model"] else [])


def dump(value: Any) -> str:
    """Write JSON for people and machines: sorted, indented, no NaN, a newline at the end."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
