"""What a cell's process is kept from: truths, caches, results of other cells, the network, and writing elsewhere."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...datasets.truth import SHIPPED
from ...leaderboard.rows.files import RESULTS
from ...plugins import code_files, is_file
from ...store import home
from .fork_server import TEMPORARY, leave_server, temporary_of_process
from .history import histories
from .isolation import NONE, means, shut_in

PACKAGE = Path(__file__).parents[2]
ENSEMBLES = RESULTS.with_name("ensembles")  # what a search among methods found, of their rows
WEIGHTS = ("weights-*.safetensors", "raw-*.safetensors")  # of the assets, which are read when they are asked for
SUBMISSION = "tdabench-submission-"  # what folders of submissions that are looked at are called
CACHES = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "MPLCONFIGDIR", "NUMBA_CACHE_DIR")  # of packages
_KEPT: set[Path] = set()


def shelter(wanted: bool = True) -> str:
    """Return by what methods are shut in here, as rows name it: "none" where it is not wanted or not possible."""
    return means() if wanted else NONE


def keep_from_methods(*paths: Path) -> None:
    """Let no process of a method that this one starts from now on read what lies there: results, and submissions."""
    _KEPT.update(path.resolve() for path in paths)


def kept_from_methods() -> frozenset[Path]:
    """Return all that this process was told so."""
    return frozenset(_KEPT)


def closed_to_methods(*more: Path) -> tuple[str, ...]:
    """Return what no method reads: truths here and in the repository's past, caches, results, what others are at."""
    own = SHIPPED, RESULTS, ENSEMBLES, home(), Path(temporary_of_process()), *histories(PACKAGE), *kept_from_methods()
    return tuple(sorted(map(str, {*own, *_temporary_of_others(), *more})))


def _temporary_of_others() -> Iterator[Path]:
    for prefix in (TEMPORARY, SUBMISSION):
        yield from Path(tempfile.gettempdir()).glob(f"{prefix}????????")  # as mkdtemp names them


def use_temporary(folder: str) -> None:
    """Make a folder the one that this process and packages put temporary files in."""
    tempfile.tempdir = folder
    os.environ.update(dict.fromkeys(("TMPDIR", *CACHES), folder))


def enclose(closed: Iterable[str], writable: Iterable[Path], readable: Iterable[Path]) -> None:
    """Shut this process in, as ``shut_in`` has it, and cut it from the server that it was forked from.

    Raises RuntimeError where that fails: the row would lie.
    """
    if (found := shut_in(list(map(Path, closed)), list(writable), list(readable))) != shelter():
        raise RuntimeError(f"shut in by {found}, where {shelter()} was expected: run with --no-isolation")
    leave_server()


def read_later(assets: Path, members: Iterable[str], plugins: Iterable[str]) -> Iterator[Path]:
    """Yield what may lie in closed folders and is read all the same: weights, members' records and plugins."""
    for pattern in WEIGHTS:
        yield from assets.glob(pattern)
    yield from map(Path, members)
    yield from code_beside(plugins)


def code_beside(plugins: Iterable[str]) -> Iterator[Path]:
    """Yield the files of plugins, and what these import from beside them, but for links, which lead anywhere."""
    for plugin in map(Path, filter(is_file, plugins)):
        files = (plugin.resolve().parent / name for name in code_files(str(plugin)))
        yield from (file for file in files if file.resolve() == file)
