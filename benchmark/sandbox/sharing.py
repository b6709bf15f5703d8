"""Helpers of a cell: processes in its group that each make a share of its rows, on a device each."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ...store import FolderStore

PAUSE = 0.2  # seconds between looks at what helpers have done
RUN = f"{__name__.rpartition('.')[0].rpartition('.')[0]}.run"
CODE = f"from {RUN}.worker import make_share; import sys; make_share(sys.argv[1], int(sys.argv[2]))"


class ShareFailed(RuntimeError):
    """A helper ended without its share."""


def run_helpers(folders: Mapping[Path, str], watch: Callable[[], None]) -> None:
    """Run a helper for the spec in each folder, named by its device, calling ``watch`` now and then until all ended.

    Raises MemoryError or ShareFailed with the reason of the first that failed, once the others have been ended.
    """
    running = {folder: _start(folder) for folder in folders}
    try:
        while running:
            for folder in [folder for folder, process in running.items() if process.poll() is not None]:
                _check(folder, folders[folder], running.pop(folder).returncode)
            watch()
            time.sleep(PAUSE)
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def _start(folder: Path) -> subprocess.Popen[bytes]:
    FolderStore(folder).delete("outcome.json")
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path)}
    return subprocess.Popen([sys.executable, "-c", CODE, str(folder), str(os.getpid())], env=found)


def _check(folder: Path, device: str, code: int) -> None:
    store = FolderStore(folder)
    outcome = store.get_json("outcome.json", sealed=True) if store.exists("outcome.json") else {"status": "gone"}
    if outcome["status"] == "oom" or (outcome["status"] == "gone" and code < 0):
        raise MemoryError(f"{device} ran out of memory: {outcome.get('reason', f'ended by signal {-code}')}")
    if outcome["status"] != "ok":
        raise ShareFailed(f"{device}: {outcome.get('reason', f'ended with code {code} and no result')}")
