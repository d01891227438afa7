"""The host's side of the worker: which steps are missing, and who makes them.

One worker process makes them all, so that torch never sits beside the probes, a killed build
leaves no writer, and a process killed for memory becomes a clear error. Another runner (several
machines) would keep `run` and `estimate` and nothing else of this.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from edgedistill import errors
from edgedistill.errors import EdgedistillError, InternalError, NoMemory, WorkerDied
from edgedistill.progress import silent
from edgedistill.records import Artifact, Progress, Source, Step
from edgedistill.store import Store, keys

PATIENCE_S = 5.0  # for an idle worker to end by itself
LAST_WORDS = 40  # lines of the worker's stderr that are kept for a report of its death
POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


class Runner:
    """Makes steps in one worker process, started when first needed; use it in a `with`.

    What it was once asked for is kept from being dropped until it closes.
    """

    def __init__(
        self, store_root: Path | str | None = None, *, threads: int = 1, allow_code: bool = False
    ) -> None:
        self.store = Store(store_root)
        self.threads = threads
        self.allow_code = allow_code
        self._worker: subprocess.Popen[str] | None = None
        self._words: deque[str] = deque(maxlen=LAST_WORDS)
        self._made: dict[str, Artifact] = {}
        self._held = ExitStack()
        self._holding: set[str] = set()
        self._stopped = False

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def run(self, steps: Iterable[Step], progress: Progress = silent) -> list[Artifact]:
        """Return the artifacts of steps and of those of their inputs that lie in the store.

        Inputs come first, each once. Only what is missing (or does not hold) is made, and of the
        inputs only those that something missing needs.
        Raises what the stage raised, `WorkerDied` where its process was ended from outside.
        """
        steps = list(steps)
        self.hold(steps)
        found: dict[str, Artifact] = {}
        visited: set[tuple[str, bool]] = set()

        def visit(step: Step, wanted: bool) -> None:
            key = keys.key(step)
            if key in found or (key, wanted) in visited:
                return
            visited.add((key, wanted))
            inputs = [each for each in step.inputs.values() if isinstance(each, Step)]
            for each in inputs:
                visit(each, False)
            lies = self.store.condition(step)
            if isinstance(lies, Artifact):
                found[key] = self._known(lies, progress)
            elif wanted or lies is not None:
                for each in inputs:
                    visit(each, True)
                found[key] = self._made[key] = self._send(step, progress)

        for step in steps:
            visit(step, True)
        return list(found.values())

    def run_both(self, first: Step, second: Step, progress: Progress = silent) -> list[Artifact]:
        """Make two steps at once, the second in a worker process of its own; else as `run`.

        What they need is made before. Where one's process dies (memory that was enough for one),
        that step is made again when the other has ended.
        """
        both = [first, second]
        self.hold(both)
        missing = [step for step in both if self.store.find(step) is None]
        if len(missing) == 2 and keys.key(first) != keys.key(second):
            needed = (each for step in both for each in step.inputs.values())
            self.run([each for each in needed if isinstance(each, Step)], progress)
            self._at_once(first, second, _in_turn(progress))
        return self.run(both, progress)

    def _at_once(self, first: Step, second: Step, progress: Progress) -> None:
        """Make two steps whose inputs are there, each in its worker; an error of either ends both.

        One that dies, or that memory is not enough for, is left to be made again.
        """
        other = Runner(self.store.root, threads=self.threads, allow_code=self.allow_code)
        other._made = self._made  # what either made or told is known to both

        def make(runner: Runner, step: Step) -> None:
            try:
                runner.run([step], progress)
            except (WorkerDied, NoMemory) as error:
                if not runner._stopped:
                    progress({"kind": "gone", "key": keys.key(step), "text": str(error)})

        def ended(beside: Future[None]) -> None:
            if beside.exception() is not None:
                self._stop()

        with other, ThreadPoolExecutor(1) as elsewhere:
            try:
                beside = elsewhere.submit(make, other, second)
                beside.add_done_callback(ended)
                make(self, first)
                beside.result()
            except BaseException:
                other._stop()  # the thread that hears it ends with it
                raise
            finally:
                self._stopped = False

    def estimate(self, step: Step, progress: Progress = silent) -> float | None:
        """Return how many seconds a step would take on this host, None where its stage can't say.

        Inputs that the stage needs for it are made where they are missing.
        """
        self.hold([step])
        needed = keys.estimate_inputs(step).values()
        self.run([each for each in needed if isinstance(each, Step)], progress)
        return self._ask("estimate", step, progress)

    def hold(self, steps: list[Step]) -> None:
        """Keep steps and all that they need, there or yet to be made, from being dropped.

        Each costs an open file, until this runner is closed.
        """
        if not self.allow_code:
            keys.refuse_strangers(steps)
        wanted: set[str] = set()

        def visit(thing: Step | Source) -> None:
            if keys.key(thing) not in wanted:
                wanted.add(keys.key(thing))
                for each in thing.inputs.values() if isinstance(thing, Step) else ():
                    visit(each)

        for step in steps:
            visit(step)
        self._held.enter_context(self.store.reading(wanted - self._holding))
        self._holding |= wanted

    def close(self) -> None:
        """End the worker and let go of what was kept from being dropped."""
        worker, self._worker = self._worker, None
        if worker is not None:
            with suppress(OSError):
                worker.stdin.close()  # type: ignore[union-attr]
            try:
                worker.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                _kill(worker)
            finally:
                worker.stdout.close()  # type: ignore[union-attr]
        self._held.close()
        self._holding.clear()

    def environment(self) -> dict[str, str]:
        """Return the environment of a process that loads torch beside us, with our threads."""
        package = Path(__file__).resolve().parent.parent.parent
        environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONHASHSEED": "0"}
        environment |= dict.fromkeys(POOLS, str(self.threads))
        environment["TOKENIZERS_PARALLELISM"] = "false"
        # Threads that spin while they wait for one that has no core take its core: beside two busy
        # processes on 2 cores a step takes 1,170 ms as OpenMP would have it, and 140 with spins of
        # this length, which on free cores cost nothing (50 ms; 75 with spins of 100).
        environment.setdefault("GOMP_SPINCOUNT", "100000")
        if package.name not in ("site-packages", "dist-packages"):  # a checkout
            path = [str(package), *filter(None, [environment.get("PYTHONPATH")])]
            environment["PYTHONPATH"] = os.pathsep.join(path)
        return environment

    # ------------------------------------------------------------ inside

    def _known(self, artifact: Artifact, progress: Progress) -> Artifact:
        """Return an artifact that was there, told once; as made, where this runner made it."""
        known = self._made.setdefault(artifact.key, artifact)
        if known is artifact:
            event = {"stage": artifact.stage, "key": artifact.key, "seconds": artifact.seconds}
            progress({"kind": "end", **event, "cached": True})
        return known

    def _send(self, step: Step, progress: Progress) -> Artifact:
        answer = self._ask("run", step, progress)
        return Artifact(**{**answer, "path": Path(answer["path"])})

    def _ask(self, op: str, step: Step, progress: Progress) -> Any:
        """Give the worker one order and pass its events on until it answers."""
        packed = keys.pack(step)
        worker = self._worker or self._start()
        try:
            with suppress(BrokenPipeError):  # it is dead: reading tells how it died
                _say(worker, {"op": op, "step": packed})
            while True:
                line = worker.stdout.readline()  # type: ignore[union-attr]
                if not line.endswith("\n"):
                    raise self._died(worker, step)
                message = json.loads(line)
                if "event" in message:
                    progress({"key": keys.key(step), **message["event"]})
                elif "error" in message:
                    break
                else:
                    return message["answer"]
        except BaseException:  # in the middle of an answer: this worker can't be asked again
            self._worker = None
            _kill(worker)
            raise
        raise _error(message["error"])

    def _stop(self) -> None:
        """End what another thread has this runner make: there it is a `WorkerDied`."""
        self._stopped = True  # first: a worker that starts now looks at it
        worker = self._worker
        if worker is not None and worker.returncode is None:
            _end(worker)

    def _start(self) -> subprocess.Popen[str]:
        environment = self.environment()
        self._words.clear()

        with _answered_later():  # in the middle it would leave a process that nobody knows
            self._worker = worker = subprocess.Popen(
                # -P: nothing of the current folder shadows a module
                [sys.executable, "-P", "-m", "edgedistill.store.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                env=environment,
                start_new_session=True,  # Ctrl-C in the terminal reaches the host alone
            )
        threading.Thread(target=self._hear, args=(worker,), daemon=True).start()
        if self._stopped:
            _end(worker)
        with suppress(BrokenPipeError):
            hello = {"root": str(self.store.root), "owner": self.store.owner}
            _say(worker, {"op": "hello", **hello, "allow_code": self.allow_code})
        return worker

    def _hear(self, worker: subprocess.Popen[str]) -> None:
        with worker.stderr as stream:  # type: ignore[union-attr]
            for line in stream:
                self._words.append(line.rstrip())

    def _died(self, worker: subprocess.Popen[str], step: Step) -> EdgedistillError:
        if hasattr(os, "waitid"):  # not on every macOS
            os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
        _kill(worker)  # what it started goes too, while its process id can't be another's
        code = worker.returncode
        name = keys.stage_name(step)
        last = next((line for line in reversed(self._words) if line.strip()), "")
        if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
            error: EdgedistillError = WorkerDied(
                f"the process that ran the step {name} was killed, most likely because memory ran "
                "out: close other programs, or take a smaller batch; the same command goes on"
            )
        elif code < 0:
            what = signal.Signals(-code).name
            error = WorkerDied(f"the process that ran the step {name} was ended by {what}; {last}")
        else:
            error = InternalError(f"the worker ended by itself in the step {name}: {last}")
        error.add_note("\n".join(self._words))
        return error


@contextmanager
def _answered_later() -> Iterator[None]:
    """Answer Ctrl-C and SIGTERM when the block has ended (other threads answer none at all)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    usual = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        for each in usual:
            signal.signal(each, lambda number, frame: came.append(number))
        yield
    finally:
        for each, answer in usual.items():
            signal.signal(each, signal.SIG_DFL if answer is None else answer)
        for number in came:
            signal.raise_signal(number)


def _in_turn(progress: Progress) -> Progress:
    """Return what two threads can call at once."""
    lock = threading.Lock()

    def one(event: Mapping[str, Any]) -> None:
        with lock:
            progress(event)

    return one


def _say(worker: subprocess.Popen[str], message: dict[str, Any]) -> None:
    worker.stdin.write(json.dumps(message) + "\n")  # type: ignore[union-attr]
    worker.stdin.flush()  # type: ignore[union-attr]


def _kill(worker: subprocess.Popen[str]) -> None:
    """End a worker and all that it started, and see it gone: no writer is left behind."""
    if worker.returncode is None:
        _end(worker)
        worker.wait()


def _end(worker: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.pid, signal.SIGKILL)  # it leads a session of its own


def _error(told: dict[str, str]) -> EdgedistillError:
    """Return the error that the worker met, of the same class, its traceback as a note."""
    cls = getattr(errors, told["type"], InternalError)
    if not (isinstance(cls, type) and issubclass(cls, EdgedistillError)):
        cls = InternalError
    error = cls.__new__(cls, told["message"])  # MissingPackage builds its own message
    Exception.__init__(error, told["message"])
    error.add_note(told["traceback"])
    return error
