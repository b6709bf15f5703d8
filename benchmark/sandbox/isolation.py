"""Shutting a cell's process in: files it may not read, few it may write, no network, nothing done to other processes.

By Linux' Landlock, of which the system calls, rights and versions are those of
https://docs.kernel.org/userspace-api/landlock.html, and by a filter of calls where the kernel takes one; what a process
may do can only shrink, and holds for all that it starts.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from .filtering import can_filter, filter_calls
from .libc import call, libc
from .privileges import drop_privileges

NONE = "none"
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION_WANTED, PATH_BENEATH, NO_NEW_PRIVILEGES = 1, 1, 38

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = (1 << bit for bit in range(4))
TRUNCATE, IOCTL = 1 << 14, 1 << 15
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL
READ = EXECUTE | READ_FILE | READ_DIR
RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # of files, how many a version of the interface knows
THREADS_S = 10.0  # in which other threads have to shut themselves in
MAKE_DEVICES = 1 << 6 | 1 << 11
# Of /dev, what programs need, shared memory, and GPUs: of NVIDIA, also of small boards and of Windows, and of AMD.
DEVICES = re.compile(r"null|zero|full|u?random|shm|nvidia.*|nvhost.*|nvmap|nvgpu|dxg|dri|kfd")
HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)
TCP, SCOPES = 0b11, 0b11  # bind and connect, from version 4; abstract sockets and signals, from version 6


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32)]


def version() -> int:
    """Return the version of Landlock that the kernel speaks; 0 where there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, call(CREATE_RULESET, None, 0, VERSION_WANTED))


def means() -> str:
    """Return by what a process can be shut in here, as rows name it."""
    return _named(spoken, can_filter()) if (spoken := version()) else NONE


def _named(spoken: int, filtered: bool) -> str:
    return f"landlock {spoken}, seccomp" if filtered else f"landlock {spoken}"


def shut_in(closed: Collection[Path], writable: Collection[Path], readable: Collection[Path] = ()) -> str:
    """Shut this process in, and all that it starts from now on; return by what, or "none" where that is not possible.

    closed: what can no longer be read, with all below it, but for what is ``readable`` or ``writable`` again; writable:
    the only places where files can be written, beside the few devices that are open. Names of files can be listed
    everywhere. From version 4 on no TCP port can be bound or connected to, and from 6 no process outside can be sent a
    signal. A superuser is left the right to other users' files. With seccomp there is no network, no process outside is
    changed, and no file's metadata.
    """
    if not (spoken := version()):
        return NONE
    known = (1 << RIGHTS[min(spoken, max(RIGHTS))]) - 1
    asked = _Ruleset(known, TCP if spoken >= 4 else 0, SCOPES if spoken >= 6 else 0)
    size = ctypes.sizeof(_Ruleset) if spoken >= 6 else 16 if spoken >= 4 else 8
    ruleset = call(CREATE_RULESET, ctypes.byref(asked), size, 0)
    if ruleset < 0:
        return NONE
    try:
        _allow(ruleset, Path("/"), READ_DIR)
        not_read = {path.resolve() for path in closed}
        for path in (*open_paths(Path("/"), not_read | {Path("/dev")}), *readable):
            _allow(ruleset, path, READ)
        devices = (path for device in _devices() for path in open_paths(device, not_read))
        for path in (*writable, *devices):
            _allow(ruleset, path, known & ~MAKE_DEVICES)
        if not (_others_restricted(ruleset) and _restricted(ruleset)):
            return NONE
    finally:
        os.close(ruleset)
    return _named(spoken, filter_calls())


def _devices() -> list[Path]:
    """Return what a method may need of devices: disks hold all files, terminals obey, and others are the machine's."""
    return [path.resolve() for path in Path("/dev").glob("*") if DEVICES.fullmatch(path.name)]


def _restricted(ruleset: int) -> bool:
    """Shut this thread in, and say whether that was possible."""
    if libc().prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) or call(RESTRICT_SELF, ruleset, 0):
        return False
    return drop_privileges()


def _others_restricted(ruleset: int) -> bool:
    """Have all other threads shut themselves in, which only they can do, and say whether all did.

    A library's idle threads do nothing of their own accord, but a signal makes them: as it could for who is shut in.
    """
    done, asked = set[int](), set[int]()

    def restrict(number: int) -> None:
        if _restricted(ruleset):
            done.add(threading.get_native_id())

    library, handler = libc(), HANDLER(restrict)
    library.signal.restype = ctypes.c_void_p
    before, end = library.signal(int(signal.SIGUSR2), handler), time.monotonic() + THREADS_S
    while (left := _other_threads() - done) and time.monotonic() < end:
        for thread in left - asked:
            library.tgkill(os.getpid(), thread, int(signal.SIGUSR2))
        asked |= left
        time.sleep(0.001)  # lets go of the interpreter, which they need
    library.signal(int(signal.SIGUSR2), ctypes.c_void_p(before))
    return not left


def _other_threads() -> set[int]:
    return set(map(int, os.listdir("/proc/self/task"))) - {threading.get_native_id()}


def open_paths(path: Path, closed: set[Path]) -> Iterator[Path]:
    """Yield the largest files and folders below a path that hold nothing that is closed; links are left out."""
    above = {str(parent) for other in closed for parent in other.parents}
    return map(Path, _open_below(str(path), set(map(str, closed)), above))


def _open_below(path: str, closed: set[str], above: set[str]) -> Iterator[str]:
    if path in closed:
        return
    if path not in above:
        yield path
        return
    with suppress(OSError):
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
            if not entry.is_symlink():  # a rule is about what a link leads to, which has its own
                yield from _open_below(entry.path, closed, above)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    """Add a rule; what is not there, or cannot be opened, needs none."""
    with suppress(OSError):
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            allowed = rights if os.path.isdir(path) else rights & OF_FILES
            call(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(_Beneath(allowed, folder)), 0)
        finally:
            os.close(folder)
