"""The store: sources, artifacts, unfinished work and locks, in one folder.

    <store>/v1/sources/<hash>/           what the user brought, in one form, with source.json
    <store>/v1/<stage>/<key>/            what a step left, with artifact.json
    <store>/v1/decisions/<plan>.json     what builds decided
    <store>/work/<key>/                  unfinished work: checkpoints under .resume
    <store>/locks/                       kernel locks
    <store>/damaged/<stage>-<key>/       what did not hold, moved aside

An artifact is written in `work`, brought to the disk, sealed, and renamed into place: it is there
whole or not at all. A process killed at any moment leaves a store that holds.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from edgedistill.errors import InternalError, SurroundingsError
from edgedistill.progress import silent
from edgedistill.records import Artifact, Progress, Source, Step
from edgedistill.store import execute, keys, locks, seal
from edgedistill.store.shelf import RESUME, Shelf, default_root


@dataclass(frozen=True, init=False)
class Store:
    """One store. Reading writes nothing but locks; the folders are made when first needed."""

    root: Path
    shelf: Shelf
    owner: str  # who waits for us is told this
    _brought: dict[str, IO[bytes]] = field(repr=False, compare=False)

    def __init__(self, root: Path | str | None = None, *, owner: str | None = None) -> None:
        place = Path(root).expanduser() if root else default_root().expanduser()
        object.__setattr__(self, "root", place.absolute())
        object.__setattr__(self, "shelf", Shelf(place.absolute()))
        object.__setattr__(self, "owner", owner or whose())
        object.__setattr__(self, "_brought", {})

    # ------------------------------------------------------------ where things lie

    def path(self, thing: Step | Source) -> Path:
        """Return the folder of a source or of a step's artifact, whether it is there or not."""
        if isinstance(thing, Source):
            return self.root / "v1" / "sources" / thing.hash
        return self.root / "v1" / keys.stage_name(thing) / keys.key(thing)

    def has(self, key: str, stage: str) -> bool:
        """Return whether an artifact lies there; its files are not looked at."""
        name = Path(stage).name if stage.endswith(".py") else stage
        return (self.root / "v1" / name / key / "artifact.json").is_file()

    def free_bytes(self) -> int:
        """Return the free space where the store is, or will be."""
        return self.shelf.free_bytes()

    def seconds(self, step: Step) -> float | None:
        """Return what a step took when it was made, None where it was not."""
        found = self.shelf.record(self.path(step) / "artifact.json")
        return found["seconds"] if isinstance(found, dict) else None

    # ------------------------------------------------------------ sources

    def bring(
        self,
        kind: str,
        hash: str,
        fill: Callable[[Path], Any],
        *,
        name: str = "",
        facts: Mapping[str, Any] | None = None,
        progress: Progress = silent,
    ) -> Source:
        """Return a source; where it is not there yet, `fill` writes its files into a folder.

        It stays in use, so that nobody drops it, as long as this store's record lives.
        """
        if not re.fullmatch(r"[0-9a-zA-Z_-]{8,128}", hash):
            raise InternalError(f"'{hash}' is not the hash of a source")
        source = Source(kind, hash, self.root / "v1" / "sources" / hash, name, dict(facts or {}))
        with self.shelf.surroundings("writing to"):
            self.shelf.ready()
            if hash not in self._brought:
                self._brought[hash] = locks.shared(self.shelf.locks, hash)
            if self._sound(source):
                return source
            with self._claimed(hash, name, progress):
                wrong = self.shelf.wrong(source.path, "source.json")
                if wrong is None and self._sound(source):
                    return source
                if wrong:
                    self._move_aside(source.path, f"source {name or hash[:12]}", wrong, progress)
                work = self.shelf.fresh(hash)
                try:
                    fill(work)
                    made = {"kind": kind, "hash": hash, "name": name}
                    made_facts = execute.plain(source.facts)
                    seal.close(work, work / "source.json", {**made, "facts": made_facts})
                except Exception:
                    seal.clear(work)
                    raise
                self.shelf.place(work, source.path)
        return source

    def source(self, hash: str) -> Source | None:
        """Return the source of that hash where it lies there whole."""
        place = self.root / "v1" / "sources" / hash
        with self.shelf.surroundings("reading"):
            made = self.shelf.record(place / "source.json")
            if not isinstance(made, dict) or seal.fault(place, place / "source.json", made):
                return None
        return Source(made["kind"], hash, place, made["name"], made["facts"])

    def _sound(self, source: Source) -> bool:
        found = self.source(source.hash)
        if found and found.kind != source.kind:
            raise InternalError(f"the source {source.hash[:12]} is {found.kind} and {source.kind}")
        return found is not None

    # ------------------------------------------------------------ steps

    def find(self, step: Step) -> Artifact | None:
        """Return a step's artifact where it lies there and holds; writes nothing.

        Its record and files must be as they were written, and its inputs those that lie there.
        """
        found = self.condition(step)
        return found if isinstance(found, Artifact) else None

    def condition(self, step: Step) -> Artifact | str | None:
        """Return a step's artifact, None where there is none, or why it does not hold."""
        place = self.path(step)
        with self.shelf.surroundings("reading"):
            made = self.shelf.record(place / "artifact.json")
            if made is None:
                return "artifact.json is missing" if place.exists() else None
            if isinstance(made, str):
                return made
            wrong = self._disagrees(step, made) or self.shelf.wrong(place, "artifact.json")
            return wrong or _artifact(place, made, cached=True)

    def run(self, step: Step, progress: Progress = silent) -> Artifact:
        """Return a step's artifact; where it is not there, make it (and its inputs) here.

        Claims the step's lock, executes in `work`, commits. Who makes it already is waited for.
        """
        name, key = keys.stage_name(step), keys.key(step)
        with self.reading([key, *map(keys.key, step.inputs.values())]):
            found = self.condition(step)
            if isinstance(found, Artifact):
                return _ended(found, progress)
            for each in step.inputs.values():
                if isinstance(each, Step):
                    if self.find(each) is None:
                        self.run(each, progress)
                elif self.source(each.hash) is None:
                    raise SurroundingsError(
                        f"the source {each.name or each.hash[:12]} is gone from the store "
                        f"'{self.root}' or damaged: run the same command again"
                    )
            with (
                self.shelf.surroundings("writing to"),
                self._claimed(key, name, progress),
            ):
                found = self.condition(step)  # whoever we waited for may have made it
                if isinstance(found, str):
                    self._move_aside(self.path(step), f"{name} {key[:12]}", found, progress)
                elif found is not None:
                    return _ended(found, progress)
                return _ended(self._finish(step) or self._make(step, progress), progress)

    def _make(self, step: Step, progress: Progress) -> Artifact:
        name, key = keys.stage_name(step), keys.key(step)
        about = (keys.stage_of(step).__doc__ or name).strip().splitlines()[0]
        progress({"kind": "start", "stage": name, "key": key, "about": about})
        inputs = self._inputs(step)
        work = self.shelf.fresh(key)
        begun = time.monotonic()
        folders = {each: self.path(thing) for each, thing in step.inputs.items()}
        try:
            facts = execute.stage(step, folders, work, progress)
            made_of = keys.recipe(step)
            if keys.digest(made_of) != key:
                raise keys.changed(step)
            about_it = {
                **made_of,
                "key": key,
                "inputs": inputs,
                "facts": facts,
                "seconds": round(time.monotonic() - begun, 3),
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            made = seal.close(work, work / "artifact.json", about_it)
        except Exception:
            seal.clear(work, keep=RESUME)  # a full disk gets its room back, checkpoints stay
            raise
        self.shelf.place(work, self.path(step))
        return _artifact(self.path(step), made, cached=False)

    def _finish(self, step: Step) -> Artifact | None:
        """Place what a killed process had sealed but not yet renamed: it is not made twice."""
        work = self.shelf.work(keys.key(step))
        made = self.shelf.record(work / "artifact.json")
        if not isinstance(made, dict) or self._disagrees(step, made):
            return None
        if seal.fault(work, work / "artifact.json", made):
            return None
        self.shelf.place(work, self.path(step))
        return _artifact(self.path(step), made, cached=False)

    def _inputs(self, step: Step) -> dict[str, dict[str, str | None]]:
        return {
            name: {"key": keys.key(each), "digest": self._digest(each)}
            for name, each in sorted(step.inputs.items())
        }

    def _digest(self, thing: Step | Source) -> str | None:
        record = "source.json" if isinstance(thing, Source) else "artifact.json"
        found = self.shelf.record(self.path(thing) / record)
        return found["digest"] if isinstance(found, dict) else None

    def _disagrees(self, step: Step, made: Mapping[str, Any]) -> str | None:
        """Return why a record is not of this step, or of inputs other than those that lie there."""
        if made.get("key") != keys.key(step):
            return "artifact.json is of another step"
        for name, lies in self._inputs(step).items():
            if lies["digest"] and lies["digest"] != made["inputs"][name]["digest"]:
                return f"it was made from other bytes of {name}"
        return None

    def _move_aside(self, place: Path, name: str, wrong: str, progress: Progress) -> None:
        aside = self.shelf.move_aside(place)
        text = f"{name} in the store does not hold ({wrong}): moved to '{aside}', made again"
        progress({"kind": "note", "text": text})

    # ------------------------------------------------------------ locks and decisions

    def _claimed(self, key: str, name: str, progress: Progress) -> AbstractContextManager[None]:
        def tell(holder: str) -> None:
            text = f"{name} is being made by {holder}: waiting for it"
            progress({"kind": "wait", "text": text})

        return locks.exclusive(self.shelf.locks, key, owner=self.owner, waiting=tell)

    @contextmanager
    def reading(self, keys: Iterable[str]) -> Iterator[None]:
        """Keep artifacts and sources, there or yet to be made, from being dropped."""
        with ExitStack() as stack:
            with self.shelf.surroundings("writing to"):
                self.shelf.ready()
                locks.allow(len(wanted := sorted(set(keys))))
                for key in wanted:
                    stack.enter_context(locks.shared(self.shelf.locks, key))
            yield

    def decision(self, plan: str) -> dict[str, Any] | None:
        """Return what was decided for the plan of that key."""
        found = self.shelf.record(self.root / "v1" / "decisions" / f"{plan}.json")
        return found["decision"] if isinstance(found, dict) else None

    def decide(self, plan: str, decision: Mapping[str, Any]) -> None:
        """Record what was decided for the plan of that key."""
        with self.shelf.surroundings("writing to"):
            self.shelf.ready()
            place = self.root / "v1" / "decisions" / f"{plan}.json"
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            made = {"format": seal.FORMAT, "plan": plan, "decision": dict(decision)}
            seal.write(place, seal.render({**made, "seal": keys.digest(made)}))


def whose() -> str:
    """Return how this process is named to another that waits for it."""
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv[0:] else "python"
    since = datetime.now().strftime("%H:%M")
    return f"process {os.getpid()} ({command[:100]}, since {since})"


def _artifact(place: Path, made: Mapping[str, Any], *, cached: bool) -> Artifact:
    return Artifact(
        stage=made["stage"],
        key=made["key"],
        path=place,
        digest=made["digest"],
        facts=made["facts"],
        seconds=made["seconds"],
        cached=cached,
    )


def _ended(artifact: Artifact, progress: Progress) -> Artifact:
    event = {"stage": artifact.stage, "key": artifact.key, "seconds": artifact.seconds}
    progress({"kind": "end", **event, "cached": artifact.cached})
    return artifact
