"""What a process that is not trusted sends through a pipe: nobody waits for the rest of a message, nor for an end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

LENGTH = 4  # bytes before each message of a ``Connection``, which say how many follow
TAKEN = 2**16  # bytes at once, as many as a pipe holds


class Inbox:
    """The messages of a ``Connection`` as they become whole; it is closed at its end, and by a message too long."""

    def __init__(self, connection: Any, longest: int) -> None:
        self.connection = connection
        self._longest, self._buffer = longest, b""
        os.set_blocking(connection.fileno(), False)

    def take(self) -> Iterator[bytes]:
        """Yield the messages that are whole by now."""
        self._buffer += self._read()
        while (size := self._size()) is not None and len(self._buffer) >= LENGTH + size:
            message, self._buffer = self._buffer[LENGTH : LENGTH + size], self._buffer[LENGTH + size :]
            yield message

    def _read(self) -> bytes:
        try:
            data = os.read(self.connection.fileno(), TAKEN)
        except BlockingIOError:
            return b""
        if not data:
            self.connection.close()
        return data

    def _size(self) -> int | None:
        """Return the length of the next message, None where it is not known, or longer than allowed."""
        if len(self._buffer) < LENGTH:
            return None
        size = int.from_bytes(self._buffer[:LENGTH], "big")
        if size <= self._longest:
            return size
        self._buffer = b""
        self.connection.close()
        return None
