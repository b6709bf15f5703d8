"""Claims: a file that names the process that holds something, and how others tell that this process is gone."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import nan
from pathlib import Path
from typing import Any, BinaryIO

from .errors import CorruptFile, brief

CLOCKS_DIFFER_S = 2.0  # at most, in what two processes take for the start of a third, where the system counts none
_locked: dict[str, BinaryIO] = {}  # by token: a claim's file, locked until it is released or this process ends
NO_FILE = (errno.ENXIO, errno.EISDIR)  # what opening a pipe that nobody reads, a socket or a folder to write fails by
LONGEST = 2**16  # bytes that are read of a claim
LINUX = sys.platform.startswith("linux")
BROKEN = (ValueError, KeyError, TypeError, OverflowError, RecursionError)  # what reading a claim that is none raises


def try_claim(path: Path, token: str, ttl: float) -> bool:
    """Write this process into a claim, and say whether it holds it now: not where another one does.

    Raises CorruptFile where a folder, a pipe or a device is in its place, or in that of its lock, as do all below.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pid = os.getpid()
    owner = {**_place(), "pid": pid, **_start(pid), "time": time.time(), "token": token}
    with alone(path):
        if path.exists() and not lapsed(path, ttl):
            return False
        with open(path, "w", opener=_plain) as file:
            file.write(json.dumps(owner))
        _locked[token] = file = open(path, "rb", opener=_plain)  # noqa: SIM115
        fcntl.flock(file, fcntl.LOCK_SH)  # shared, for nobody waits for the owner of a claim that lapsed otherwise
        return True


def release(path: Path, token: str) -> None:
    """Give a claim up, unless it lapsed and was taken over."""
    with alone(path), _locked.pop(token), suppress(OSError, CorruptFile, *BROKEN):
        if _owner(path)["token"] == token:
            path.unlink()


def holder(path: Path, ttl: float) -> str | None:
    """Return who holds a claim, as people say it: a process and its host; None where nobody does."""
    try:
        if lapsed(path, ttl):
            return None
        owner = _owner(path)
        since = time.strftime("%Y-%m-%d %H:%M", time.gmtime(float(owner["time"])))
        return brief(f"process {owner['pid']} on {owner['host']}, since {since} UTC")
    except (OSError, *BROKEN):
        return None if not path.exists() else "another process"


def lapsed(path: Path, ttl: float) -> bool:
    """Say whether nobody holds a claim any more.

    Where the owner numbers processes as this one does (one host, boot and PID namespace) it is looked up: its claim
    holds for as long as it lives, whatever the clock says. In another container on the same machine it holds for as
    long as its file is locked, as the kernel knows. Where this machine has booted since, the owner is gone. Of all
    others, also on machines under this host's name, nothing can be seen: their claims lapse ``ttl`` seconds after they
    were made.
    """
    try:
        owner = _owner(path)
        pid, since = int(owner["pid"]), float(owner["time"])
        here = _place()
        there = {"host": owner["host"], **{name: owner.get(name, value) for name, value in here.items()}}
        if there == here:
            return not _lives(pid, owner)
        if here["boot"] and there["boot"] == here["boot"] and "ticks" in owner:
            return not _is_locked(path)
    except FileNotFoundError:
        return True
    except BROKEN:
        return True  # of an owner that died while it wrote, as nobody else writes at that time
    if here["machine"] and {**there, "boot": here["boot"]} == here and since < _booted():
        return True
    return not abs(time.time() - since) <= ttl  # also where the time is none, or one to come


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let one thread of one process at a time do something about a path, such as decide about a claim.

    The lock goes with its process; its empty file, whose time says when it was held last, stays beside the path.
    """
    with open(path.with_suffix(".lock"), "ab", opener=_plain) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        os.utime(file.fileno())
        yield


def _owner(path: Path) -> Any:
    with open(path, "rb", opener=_plain) as file:
        return json.loads(file.read(LONGEST))


def _plain(path: str, flags: int) -> int:
    """Open a file, or refuse what is none, such as a pipe, which would be waited for until another process opens it."""
    try:
        file = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in NO_FILE:
            raise _no_file(path) from error
        raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise _no_file(path)
    return file


def _no_file(path: str) -> CorruptFile:
    return CorruptFile(f"{path} is no plain file: move it elsewhere")


def _is_locked(path: Path) -> bool:
    with open(path, "rb", opener=_plain) as file, suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    return True


def _place() -> dict[str, str | None]:
    """Return where a process number means what it means here; claims of former versions name the host alone."""
    return {
        "host": socket.gethostname(),
        "machine": _line("/etc/machine-id"),
        "boot": _line("/proc/sys/kernel/random/boot_id"),
        "pids": _link("/proc/self/ns/pid"),
    }


def _line(path: str) -> str | None:
    with suppress(OSError):
        return Path(path).read_text(errors="replace").strip() or None
    return None


def _link(path: str) -> str | None:
    with suppress(OSError):
        return os.readlink(path)
    return None


def _booted() -> float:
    """Return when Linux started, in seconds of the epoch."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _lives(pid: int, owner: dict[str, Any]) -> bool:
    """Say whether the process that a claim is of lives, and is no later one of the same number."""
    if "ticks" in owner:
        ticks = _ticks(pid)
        return ticks is not None and ticks == owner["ticks"]
    started = _started(pid)
    return started is not None and abs(started - float(owner.get("started", nan))) <= CLOCKS_DIFFER_S


def _start(pid: int) -> dict[str, float | None]:
    return {"ticks": _ticks(pid)} if LINUX else {"started": _started(pid)}


def _ticks(pid: int) -> int | None:
    """Return when a live process started, in ticks since the boot, which no change of the clock moves."""
    with suppress(OSError, ValueError, IndexError):
        state, *later = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if state in "ZX" else int(later[18])
    return None


def _started(pid: int) -> float | None:
    """Return when a live process started, in seconds of the epoch: later, another process may have its number."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (psutil.Error, ValueError, OverflowError):
        return None
