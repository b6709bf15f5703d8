"""Standard streams that never end a command: closed, full, of few characters, or with nobody who reads on."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Lasting:
    """A text stream; when it can no longer be written to, what follows goes nowhere, and ``lost`` says why."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.lost: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write as far as that is possible."""
        try:
            return self.stream.write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Flush as far as that is possible."""
        try:
            self.stream.flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.lost = self.lost or error
        with suppress(OSError, ValueError):  # what is in its buffer goes there too, and so does what children write
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)

    @property
    def problem(self) -> str | None:
        """What kept people from seeing what was written; None where all was, or where nobody read on."""
        return None if self.lost is None or self.lost.errno == errno.EPIPE else self.lost.strerror


@contextmanager
def lasting_streams() -> Iterator[Lasting]:
    """Put streams that last in place of standard output and standard error, and yield that of output."""
    _reopen_closed()
    before = sys.stdout, sys.stderr
    lasting = Lasting(_stream(before[0], 1)), Lasting(_stream(before[1], 2))
    sys.stdout, sys.stderr = lasting
    try:
        yield lasting[0]
    finally:
        for stream in lasting:
            stream.flush()
        sys.stdout, sys.stderr = before


def _reopen_closed() -> None:
    """Open closed descriptors of standard streams on nothing, or the next file to be opened would become one."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free


def _stream(stream: Any, descriptor: int) -> Any:
    """Return a stream that writes ``?`` for characters that it lacks; one on nothing where there was none."""
    if stream is None:
        return os.fdopen(descriptor, "w", errors="replace", closefd=False)
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")
    return stream
