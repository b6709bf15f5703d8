"""No process outlives what it works for: cells end with their runner, and what cells started ends with them.

A process whose parent has ended is found by prctl(2), which Linux has; elsewhere its process group has to do.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from ...store import remove_tree

CHILD_SUBREAPER = 36
ORPHANS_S = 30.0  # for which what a cell left is looked for


def adopt_orphans() -> None:
    """Become the parent of what the children of this process leave behind, so that it is found and ended."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(CHILD_SUBREAPER, 1, 0, 0, 0)


def guard(temporary: Collection[str]) -> None:
    """Be the process that waits for the runner's end, ends all that was forked from its server, and tidies up.

    temporary: folders that the runner removes itself where it ends in peace.
    A process of its own, since a thread in a cell would wait for what the method's code holds.
    """
    os.setsid()  # Ctrl-C is the runner's
    runner = multiprocessing.parent_process()
    assert runner is not None and runner.pid is not None
    server = server_of(os.getpid(), runner.pid)
    runner.join()
    while left := [child for child in _children(server) if child.pid != os.getpid()]:
        _kill(left)
        psutil.wait_procs(left, timeout=1.0)
    for folder in temporary:
        remove_tree(folder)


def kill_cell(process: Any, server: int | None) -> None:
    """End a cell's process with all that it started, in whatever session, and name on stderr what does not end.

    server: the process that it was forked from, whose children that this process did not ask for are what cells left.
    """
    started = _children(process.pid)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(ProcessLookupError):
        process.kill()
    _kill(started)
    process.join()
    end = time.monotonic() + ORPHANS_S
    while server is not None and (orphans := _orphans(server)):
        if time.monotonic() > end:
            return _name(orphans)
        _kill([*(one for child in orphans for one in _children(child.pid)), *orphans])
    return None


def _name(left: Collection[psutil.Process]) -> None:
    numbers = ", ".join(str(process.pid) for process in left)
    said = f"what cells started lives on after {ORPHANS_S:g} s of ending it: end it yourself (processes {numbers})"
    print(said, file=sys.stderr, flush=True)


def _orphans(server: int) -> list[psutil.Process]:
    """Return what cells left: children of their server that this process did not ask for, and that have not ended.

    Of processes that fork all the time some may have done so since others were listed, so that one look is not enough.
    """
    known = {child.pid for child in multiprocessing.active_children()}
    return [child for child in _children(server, False) if child.pid not in known and _lives(child)]


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def server_of(pid: int, runner: int) -> int | None:
    """Return the runner's server that a process was forked from, None where either is gone.

    A process that lost its parent has another one, often the first of the machine, whose children are everybody.
    """
    with suppress(psutil.Error):
        server = psutil.Process(pid).ppid()
        if psutil.Process(server).ppid() == runner:
            return server
    return None


def _children(pid: int | None, all_below: bool = True) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return [] if pid is None else psutil.Process(pid).children(recursive=all_below)
    return []


def _kill(processes: Collection[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()


def out_of_memory_kills() -> int | None:
    """Return how many processes the kernel killed for want of memory since it started; None where it does not say."""
    with suppress(OSError, ValueError):
        words = Path("/proc/vmstat").read_text().split()
        return int(words[words.index("oom_kill") + 1])
    return None
