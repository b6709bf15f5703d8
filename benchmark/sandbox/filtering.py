"""What Landlock does not know of, by seccomp: limits of other processes, files' metadata, networks but TCP.

A filter is a program that is asked about each system call; what it can look at, and its instructions, are those of
https://docs.kernel.org/userspace-api/seccomp_filter.html. It sees numbers and no paths.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import sys
from collections.abc import Sequence
from typing import NamedTuple

from .libc import call

SET_FILTER, IS_KNOWN = 1, 2  # what seccomp(2) does
# For all threads; and without the slower speculation that older kernels give filtered processes, which are timed here.
FLAGS = 1 << 0 | 1 << 2
ALLOW, ERROR = 0x7FFF0000, 0x00050000
REFUSE, UNKNOWN = ERROR | errno.EPERM, ERROR | errno.ENOSYS
PRETEND = ERROR  # with no error's number: the caller reads that it was done
LOAD, EQUAL, ABOVE, RETURN, AND, TO_X, OR_X = 0x20, 0x15, 0x25, 0x06, 0x54, 0x07, 0x4C
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # where a call's number is, and so on
LAST = 469  # of the numbers of calls that were looked at here; who makes newer ones can do without on older kernels
GROUP_OR_USER, IO_GROUP_OR_USER = (1, 2), (2, 3)  # whose priority is set, where it is not one process's
# Of ioctl(2), the letters of file systems' own: attributes (immutable), verity, snapshots and copies by ext4, XFS,
# Btrfs, Bcachefs, F2FS and OCFS2. No driver of GPUs has them.
OF_FILE_SYSTEMS = (*b"fXvo", 0x94, 0xBC, 0xF5)
LETTER = 0xFF00

Step = tuple[int, int, int, int]  # operation, steps to skip where it holds and where not, and a value


class Architecture(NamedTuple):
    """What the kernel calls an architecture, the number of seccomp(2), and of what is filtered."""

    audited: int
    seccomp: int
    numbers: dict[str, int]


COMMON = {"io_uring_setup": 425, "fchmodat2": 452, "setxattrat": 463, "removexattrat": 466, "file_setattr": 469}
# fmt: off
X86_64 = {
    "ioctl": 16, "socket": 41, "socketpair": 53,
    "chmod": 90, "fchmod": 91, "chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260, "fchmodat": 268,
    "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199,
    "utime": 132, "utimes": 235, "futimesat": 261, "utimensat": 280,
    "setpriority": 141, "sched_setparam": 142, "sched_setscheduler": 144, "sched_setaffinity": 203, "ioprio_set": 251,
    "prlimit64": 302, "sched_setattr": 314,
}
AARCH64 = {
    "ioctl": 29, "socket": 198, "socketpair": 199,
    "fchmod": 52, "fchmodat": 53, "fchownat": 54, "fchown": 55,
    "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "removexattr": 14, "lremovexattr": 15, "fremovexattr": 16,
    "utimensat": 88,
    "setpriority": 140, "sched_setparam": 118, "sched_setscheduler": 119, "sched_setaffinity": 122, "ioprio_set": 30,
    "prlimit64": 261, "sched_setattr": 274,
}
# fmt: on
ARCHITECTURES = {
    "x86_64": Architecture(0xC000003E, 317, X86_64 | COMMON),
    "aarch64": Architecture(0xC00000B7, 277, AARCH64 | COMMON),
}


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_char_p)]


def can_filter() -> bool:
    """Say whether this kernel takes filters, and this machine's calls are known here."""
    here = _here()
    return here is not None and not call(here.seccomp, IS_KNOWN, 0, ctypes.byref(ctypes.c_uint32(ERROR)))


def filter_calls() -> bool:
    """Filter what this process asks of the kernel, and all that it starts, and say whether that was possible.

    It must have no new privileges.
    """
    if (here := _here()) is None:
        return False
    steps = b"".join(struct.pack("=HBBI", *step) for step in program(here, os.getpid()))
    given = _Program(len(steps) // 8, steps)
    return not call(here.seccomp, SET_FILTER, FLAGS, ctypes.byref(given))


def _here() -> Architecture | None:
    known = sys.platform.startswith("linux") and sys.maxsize > 2**32  # or calls have the numbers of 32 bits
    return ARCHITECTURES.get(platform.machine()) if known else None


def program(here: Architecture, own: int) -> list[Step]:
    """Return a filter's steps; own: the process that may change what is its own by its number too."""
    unknown = _end(UNKNOWN)
    steps = [_load(ARCHITECTURE), (EQUAL, 1, 0, here.audited), unknown, _load(NUMBER), (ABOVE, 0, 1, LAST), unknown]
    for name, answer in _answers(own).items():
        if name in here.numbers:
            steps += [(EQUAL, 0, len(answer), here.numbers[name]), *answer]
    return [*steps, _end(ALLOW)]


def _answers(own: int) -> dict[str, list[Step]]:
    """Return by name what is answered to a call; each ends with an answer, as it forgets the call's number."""
    return _of_processes(own) | _of_networks() | _of_metadata() | {"io_uring_setup": [_end(UNKNOWN)]}


def _of_processes(own: int) -> dict[str, list[Step]]:
    ours = _unless_own(0, own)
    return {
        "prlimit64": [*_where(_pointer(2), (0,), ALLOW), *ours],  # without new limits it only reads
        "setpriority": [*_where(_word(0), GROUP_OR_USER, REFUSE), *_unless_own(1, own)],
        "ioprio_set": [*_where(_word(0), IO_GROUP_OR_USER, REFUSE), *_unless_own(1, own)],
        **dict.fromkeys(("sched_setparam", "sched_setscheduler", "sched_setattr"), ours),
        # OpenMP pins threads by their numbers, which no filter knows, and ends the process where that fails.
        "sched_setaffinity": _unless_own(0, own, PRETEND),
    }


def _unless_own(argument: int, own: int, answer: int = REFUSE) -> list[Step]:
    return [*_where(_word(argument), (0, own), ALLOW), _end(answer)]


def _of_networks() -> dict[str, list[Step]]:
    answer = [*_where(_word(0), (int(socket.AF_UNIX),), ALLOW), _end(ERROR | errno.EACCES)]
    return dict.fromkeys(("socket", "socketpair"), answer)


def _of_metadata() -> dict[str, list[Step]]:
    """Return answers to what sets modes, owners, attributes and times, of which none can tell whose file it is.

    Copies and archives set these of files that the method made itself, and would fail where it is refused. To say that
    it was done loses nothing that scores depend on. A time that is now, which is not given, may be set.
    """
    changes = ("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat")
    changes += ("setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr")
    times = {"utime": 1, "utimes": 1, "futimesat": 2, "utimensat": 2}
    letters = [letter << 8 for letter in OF_FILE_SYSTEMS]
    return {
        **{name: [_end(PRETEND)] for name in (*changes, "setxattrat", "removexattrat", "file_setattr")},
        **{name: [*_where(_pointer(place), (0,), ALLOW), _end(PRETEND)] for name, place in times.items()},
        "ioctl": [*_where([*_word(1), (AND, 0, 0, LETTER)], letters, REFUSE), _end(ALLOW)],
    }


def _where(load: Sequence[Step], values: Sequence[int], answer: int) -> list[Step]:
    """Give an answer where what is loaded is one of some values, and go on otherwise."""
    return [*load, *(step for value in values for step in ((EQUAL, 0, 1, value), _end(answer)))]


def _word(argument: int) -> list[Step]:
    return [_load(ARGUMENTS + 8 * argument)]  # its lower half, which is all of an int


def _pointer(argument: int) -> list[Step]:
    """Load what is 0 for a null pointer alone."""
    return [*_word(argument), (TO_X, 0, 0, 0), _load(ARGUMENTS + 8 * argument + 4), (OR_X, 0, 0, 0)]


def _load(place: int) -> Step:
    return LOAD, 0, 0, place


def _end(answer: int) -> Step:
    return RETURN, 0, 0, answer
