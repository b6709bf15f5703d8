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
PIECE = 2**16  # bytes read at a time, so that who never stops talking keeps nobody


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


class Inbox:
    """Messages of a ``Connection`` as far as they have come, so that half of one makes nobody wait.

    The connection is closed where nothing more comes, or a message that is longer than allowed.
    """

    def __init__(self, connection: Any, longest: int = LONGEST) -> None:
        os.set_blocking(connection.fileno(), False)
        self.connection, self._longest, self._left = connection, longest, b""

    def take(self) -> list[bytes]:
        """Return the messages that are whole by now."""
        try:
            piece = os.read(self.connection.fileno(), PIECE)
        except BlockingIOError:
            return []
        except OSError:
            piece = b""
        self._left += piece
        found = []
        while (length := self._next()) is not None:
            found.append(self._left[LENGTH.size : LENGTH.size + length])
            self._left = self._left[LENGTH.size + length :]
        if not piece or self._is_too_long():
            self.connection.close()
        return found

    def _next(self) -> int | None:
        """Return the length of the first message where all of it is here."""
        if len(self._left) < LENGTH.size or self._is_too_long():
            return None
        (length,) = LENGTH.unpack_from(self._left)
        return length if len(self._left) >= LENGTH.size + length else None

    def _is_too_long(self) -> bool:
        return len(self._left) >= LENGTH.size and not 0 <= LENGTH.unpack_from(self._left)[0] <= self._longest


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
