"""Messages of a process that is not trusted, whole and in time: half of one, or none, makes nobody wait for ever.

What a ``Connection`` sends is a length of four bytes and then so many bytes; it has no deadline for the latter.
"""

from __future__ import annotations

import os
import select
import struct
import time
from typing import Any

LENGTH = struct.Struct("!i")
LONGEST = 2**20  # bytes


def receive(connection: Any, within: float, longest: int = LONGEST) -> bytes:
    """Return the next message, as ``Connection.recv_bytes`` does.

    Raises TimeoutError where it is not whole within so many seconds, EOFError where nothing more comes, and ValueError
    for one that is longer than allowed, after which the connection is of no use.
    """
    end = time.monotonic() + within
    (length,) = LENGTH.unpack(_read(connection, LENGTH.size, end))
    if not 0 <= length <= longest:
        raise ValueError(f"a message of more than {longest:,} bytes")
    return _read(connection, length, end)


def send(connection: Any, message: bytes, within: float) -> None:
    """Send a message, as ``Connection.send_bytes`` does; raises TimeoutError where nobody takes it in time."""
    end, left = time.monotonic() + within, LENGTH.pack(len(message)) + message
    os.set_blocking(connection.fileno(), False)
    while left:
        _wait(connection, select.POLLOUT, end)
        left = left[os.write(connection.fileno(), left) :]


def _read(connection: Any, size: int, end: float) -> bytes:
    found = b""
    while len(found) < size:
        _wait(connection, select.POLLIN, end)
        piece = os.read(connection.fileno(), size - len(found))
        if not piece:
            raise EOFError("the other end is closed")
        found += piece
    return found


def _wait(connection: Any, event: int, end: float) -> None:
    waiting = select.poll()
    waiting.register(connection.fileno(), event)
    if not waiting.poll(max(0.0, end - time.monotonic()) * 1000):
        raise TimeoutError("no whole message in time")
