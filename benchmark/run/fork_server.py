"""The processes of cells: forked from a server that has the heavy imports, and ended with all that they started."""

from __future__ import annotations

import multiprocessing
import os
import signal
from contextlib import suppress
from typing import Any

from ..processes import keep_memory


def forkserver() -> Any:
    """Return the context of cells' processes: forked from a server that has the heavy imports."""
    keep_memory()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{__package__}.heavy_imports"])
    return context


def kill_group(process: Any) -> None:
    """End a process that leads a group of its own, with all that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(ProcessLookupError):
        process.kill()
    process.join()
