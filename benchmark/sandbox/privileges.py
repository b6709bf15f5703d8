"""What a superuser's thread gives up before it runs a method: the clock, devices, raw sockets, other users' processes.

Landlock makes sure that no program that is started from then on has more than who starts it.
"""

from __future__ import annotations

import ctypes

from .libc import libc

VERSION = 0x20080522  # of what capset(2) takes: effective, permitted and inheritable bits, for 0 to 31 and the others
DAC_OVERRIDE = 1 << 1  # as superuser one reads volumes of other users, and writes results there, which Landlock limits


def drop_privileges() -> bool:
    """Give up this thread's capabilities but that to open others' files, and say whether that was possible."""
    header, bits = (ctypes.c_uint32 * 2)(VERSION, 0), (ctypes.c_uint32 * 6)()
    if libc().capget(header, bits):
        return False
    effective, permitted = bits[0] & DAC_OVERRIDE, bits[1] & DAC_OVERRIDE
    return not libc().capset(header, (ctypes.c_uint32 * 6)(effective, permitted))
