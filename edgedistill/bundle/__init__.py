"""Bundles: the folder that ships. Written, reloaded and proven; read with suspicion.

    write(out, contents, prove=...) -> Bundle    beside its place, reloaded, proven, exchanged
    replaceable(out)                             raises where a bundle may not be written
    verify(folder) -> Verified                   every hash, the manifest, the golden vectors
    load(folder) -> Bundle                       .predict(rows), .run(batch), .labels, .manifest
    licence_of(folder) -> str | None             of the model's folder, for Contents.licence
    evaluate(bundle, rows) -> outputs            as deployed; digest(example) names a row unseen

The commands over bundles are in `edgedistill.bundle.commands`: check, eval_.
"""

from __future__ import annotations

from edgedistill.bundle.contents import Contents, Decide, Evidence, Graph, Proof
from edgedistill.bundle.evidence import digest
from edgedistill.bundle.exchange import replaceable
from edgedistill.bundle.golden import Agreement
from edgedistill.bundle.licence import licence_of
from edgedistill.bundle.opened import Bundle, load
from edgedistill.bundle.proof import Verified, compare, verify
from edgedistill.bundle.scoring import Evaluated, eval_, evaluate
from edgedistill.bundle.untrusted import printable
from edgedistill.bundle.writing import report_beside, write

__all__ = [
    "Agreement", "Bundle", "Contents", "Decide", "Evaluated", "Evidence", "Graph", "Proof",
    "Verified", "compare", "digest", "eval_", "evaluate", "licence_of", "load", "printable",
    "replaceable", "report_beside", "verify", "write",
]  # fmt: skip
