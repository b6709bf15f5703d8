"""Worker processes: one thread each, gone when their parent is."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


# glibc returns a small network's activations to the system after every step; keeping them saves a tenth of the time.
# Arrow's own allocator reserves a GiB when a stored dataset is opened, which counts against a cell's limit on memory.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
# Such processes are `python -c`, which would import what lies in the folder that a command is run in, say a submission.
SAFE = {"PYTHONSAFEPATH": "1"}


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on a single thread, as cells and retrainings do, so that what is timed or summed is like theirs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_processes() -> None:
    """Let the processes started from now on keep freed memory, reserve none, and import nothing from their folder."""
    for name, value in (MALLOC | SAFE).items():
        os.environ.setdefault(name, value)


def die_with_parent(parent: int) -> None:
    """End this process within a second of its parent's end, so that a killed run leaves no process behind.

    parent: as the parent knows its pid, since it may have ended before this process asks.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def prepare(parent: int) -> None:
    """Make this process a single-threaded worker: two such beat one process with two threads."""
    die_with_parent(parent)
    import torch

    from ..models.precision import set_precision

    torch.set_num_threads(1)
    set_precision("float32")


def run_jobs(function: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[tuple[Job, Result]]:
    """Yield (job, result) as jobs finish, ``workers`` at a time; an exception ends the others and is raised."""
    prepare_processes()
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=prepare, initargs=(os.getpid(),))
    try:
        with _deaf_to_interrupts():
            pending: dict[Future[Result], Job] = {executor.submit(function, job): job for job in jobs}
        while pending:
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                yield pending.pop(future), future.result()
    finally:
        _stop(executor)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Let no process that is started here see Ctrl-C, which a terminal sends to all: this process ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stop(executor: ProcessPoolExecutor) -> None:
    processes: Any = dict(getattr(executor, "_processes", None) or {})
    executor.shutdown(wait=False, cancel_futures=True)
    for process in processes.values():
        process.terminate()
