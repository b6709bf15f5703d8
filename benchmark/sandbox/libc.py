"""System calls, by the C library that this process has."""

from __future__ import annotations

import ctypes
from functools import cache


def call(number: int, *words: object) -> int:
    """Make a system call by its number; -1 where it fails."""
    return libc().syscall(number, *words)


@cache
def libc() -> ctypes.CDLL:
    """Return the C library."""
    return ctypes.CDLL(None, use_errno=True)
