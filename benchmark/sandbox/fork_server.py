"""The processes of cells: forked from a server that has the heavy imports, and ended with the runner."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing import forkserver as servers
from multiprocessing import resource_tracker
from multiprocessing.util import get_temp_dir
from typing import Any

from ...errors import UserError
from ...store import remove_tree
from ..processes import prepare_processes
from .lifetime import guard

BENCHMARK = __name__.rpartition(".")[0].rpartition(".")[0]

PRELOADED = [f"{BENCHMARK}.sandbox.admission", f"{BENCHMARK}.run.heavy_imports"]
GUARD = "tdabench-guard"
PATH = "PYTHONPATH"
TEMPORARY = "tdabench-run-"  # what folders of temporary files are called, of this process and of others
LONGEST_SOCKET = 107 if sys.platform.startswith("linux") else 103  # bytes of a path that a socket may have
SOCKET = "/pymp-12345678/listener-12345678"  # as multiprocessing names it, below the folder for temporary files


def forkserver() -> Any:
    """Return the context of cells' processes: forked from a server that has the heavy imports.

    Raises UserError where the folder for temporary files has too long a path for the server's socket.
    """
    if len(os.fsencode(tempfile.gettempdir() + SOCKET)) > LONGEST_SOCKET:
        raise UserError(f"{tempfile.gettempdir()} is too long a path for sockets: set TMPDIR to a shorter one")
    prepare_processes()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with _on_path(sys.path):
        servers.ensure_running()
    return context


@contextmanager
def _on_path(paths: list[str]) -> Iterator[None]:
    """Let what is started meanwhile find what this process does, of which multiprocessing tells a server nothing."""
    before = os.environ.get(PATH)
    os.environ[PATH] = os.pathsep.join(path or os.getcwd() for path in paths)
    try:
        yield
    finally:
        os.environ.pop(PATH)
        os.environ.update({} if before is None else {PATH: before})


def leave_server() -> None:
    """Close what a process that was forked from the server has of it: pipes on which a word ends it, or misleads it.

    Raises RuntimeError where the server serves everybody, since it did not find this package when it started.
    """
    server, tracker = vars(servers)["_forkserver"], vars(resource_tracker)["_resource_tracker"]
    if server._forkserver_address is None or server._forkserver_pid is not None:
        return  # started otherwise
    if vars(servers)["socket"] is socket:
        raise RuntimeError("cells could not be shut in: put the folder that holds tdabench on PYTHONPATH")
    for pipe in {server._forkserver_alive_fd, tracker._fd} - {None}:
        os.close(pipe)
    server._forkserver_alive_fd = tracker._fd = None  # whoever needs these starts own ones, which are shut in


@cache
def temporary_of_process() -> str:
    """Return the folder of what is temporary in this process and in what it starts; it goes when this one ends."""
    folder = tempfile.mkdtemp(prefix=TEMPORARY)
    atexit.register(remove_tree, folder)
    return folder


def start_guard() -> None:
    """Start the process that ends all cells when this one ends however, unless it is running."""
    if not any(child.name == GUARD for child in multiprocessing.active_children()):
        left = temporary_of_process(), get_temp_dir()
        forkserver().Process(target=guard, args=(left,), name=GUARD, daemon=True).start()
