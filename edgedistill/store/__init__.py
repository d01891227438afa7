"""The store: what was made is kept under the hash of all that went into it.

keys        what goes into a step decides its name (code: of the files that it runs)
artifacts   `Store`: sources and artifacts found, made, claimed and committed
shelf       the folders: filled in `work`, renamed into place, moved aside
seal        records and digests: what lies there is what was written
locks       kernel locks
execute     one stage run into a folder
crew        the other processes of torchrun, that train along
runner      the host's side of the worker process; worker is the process itself
inventory   list, show, drop, verify
"""

from __future__ import annotations

from edgedistill.store.artifacts import Store

__all__ = ["Store"]
