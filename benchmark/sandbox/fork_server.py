"""The processes of cells: forked from a server that has the heavy imports, and ended with the runner."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import shutil
import sys
import tempfile
from functools import cache
from multiprocessing.util import get_temp_dir
from typing import Any

from ...errors import UserError
from ..processes import keep_memory
from .lifetime import guard

BENCHMARK = __name__.rpartition(".")[0].rpartition(".")[0]

PRELOADED = f"{BENCHMARK}.run.heavy_imports"
GUARD = "tdabench-guard"
LONGEST_SOCKET = 107 if sys.platform.startswith("linux") else 103  # bytes of a path that a socket may have
SOCKET = "/pymp-12345678/listener-12345678"  # as multiprocessing names it, below the folder for temporary files


def forkserver() -> Any:
    """Return the context of cells' processes: forked from a server that has the heavy imports.

    Raises UserError where the folder for temporary files has too long a path for the server's socket.
    """
    if len(os.fsencode(tempfile.gettempdir() + SOCKET)) > LONGEST_SOCKET:
        raise UserError(f"{tempfile.gettempdir()} is too long a path for sockets: set TMPDIR to a shorter one")
    keep_memory()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    return context


@cache
def temporary_of_process() -> str:
    """Return the folder of what is temporary in this process and in what it starts; it goes when this one ends."""
    folder = tempfile.mkdtemp(prefix="tdabench-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def start_guard() -> None:
    """Start the process that ends all cells when this one ends however, unless it is running."""
    if not any(child.name == GUARD for child in multiprocessing.active_children()):
        left = temporary_of_process(), get_temp_dir()
        forkserver().Process(target=guard, args=(left,), name=GUARD, daemon=True).start()
