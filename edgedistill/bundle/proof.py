"""Verify a bundle: every file, the manifest, the model by its runtime alone, the golden vectors."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from edgedistill.bundle import golden
from edgedistill.bundle import manifest as manifests
from edgedistill.bundle.golden import Agreement
from edgedistill.bundle.opened import Bundle, load
from edgedistill.bundle.outline import outline
from edgedistill.bundle.untrusted import printable, read_json
from edgedistill.errors import BundleError


@dataclass(frozen=True)
class Verified:
    """A bundle that holds what it says."""

    path: Path
    files: int
    bytes: int
    payload: str
    golden: Agreement
    unlisted: tuple[str, ...]  # files beside, of which the manifest knows nothing


def verify(folder: str | PathLike[str]) -> Verified:
    """Check a whole bundle. Raises `BundleError` naming the first thing that is not as it says."""
    bundle = load(folder)
    path, found = bundle.folder, bundle.manifest
    manifests.check_files(path, found)
    if manifests.payload(found["files"], manifests.payload_names(found)) != found["payload"]:
        raise BundleError(f"{manifests.NAME}: payload is not the digest of its files")
    _outlines_agree(bundle)
    agreement = compare(bundle)
    if not agreement.holds:
        raise BundleError(
            f"'{printable(path)}' does not give its golden outputs here: {agreement.reason}"
        )
    sizes = [listed["bytes"] for listed in found["files"].values()]
    extra = tuple(sorted(set(p.name for p in path.iterdir()) - {*found["files"], manifests.NAME}))
    return Verified(path, len(sizes), sum(sizes), found["payload"], agreement, extra)


def compare(bundle: Bundle) -> Agreement:
    """Run the golden vectors of a bundle here. Raises `BundleError` when they are unsound."""
    listed = bundle.manifest["golden"]
    manifests.check_files(bundle.folder, bundle.manifest, [listed["file"]])
    document = read_json(bundle.folder, listed["file"])
    agreement = golden.compare(
        document,
        labels=len(bundle.labels),
        encode=bundle.encoder.encode,
        run=lambda row: bundle.run_rows([row]),
    )
    if (agreement.rows, agreement.tolerance) != (listed["rows"], listed["tolerance"]):
        raise BundleError(f"{manifests.NAME}: golden: {listed['file']} says otherwise")
    return agreement


def _outlines_agree(bundle: Bundle) -> None:
    """Hold opset and IR against the file; the graph of one shape must stand alone too."""
    said = bundle.manifest["model"]
    told = outline(bundle.folder, said["file"])
    if (told.ir, told.opsets.get("")) != (said["ir"], said["opset"]):
        raise BundleError(
            f"{manifests.NAME}: model says opset {said['opset']} and IR {said['ir']}, "
            f"{said['file']} has {told.opsets.get('')} and {told.ir}"
        )
    if "fixed" in said and not outline(bundle.folder, said["fixed"]).self_contained:
        raise BundleError(f"'{printable(said['fixed'])}' reads other files (external data)")
