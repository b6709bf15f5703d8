"""Imported by a fork server alone, before all else: it serves the process that started it, and nobody else.

The server would fork a process outside of all that a cell is shut in by, and run there what it is sent; Landlock does
not keep a cell from its socket.
"""

from __future__ import annotations

import errno
import multiprocessing.forkserver
import os
import socket
import struct
from types import SimpleNamespace
from typing import Any

CREDENTIALS = struct.Struct("3i")  # process, user and group, as Linux has them of who connected


class Listener(socket.socket):
    """A socket that only the parent of its process gets a connection from."""

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next connection; raises ConnectionAbortedError for one of a stranger, which is closed."""
        connection, address = super().accept()
        if _peer(connection) != os.getppid():
            connection.close()
            raise ConnectionAbortedError(errno.ECONNABORTED, "not from the process that started this server")
        return connection, address


def _peer(connection: socket.socket) -> int:
    """Return who connected; systems that do not say it are those on which no cell is shut in."""
    if not hasattr(socket, "SO_PEERCRED"):
        return os.getppid()
    said = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return CREDENTIALS.unpack(said)[0]


server: Any = multiprocessing.forkserver
server.socket = SimpleNamespace(**{**vars(socket), "socket": Listener})
