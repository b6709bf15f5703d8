"""What a cell's process is kept from: truths, caches, results of other cells, the network, and writing elsewhere."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...datasets.truth import SHIPPED
from ...plugins import code_files, is_file
from ...store import home
from .isolation import NONE, shut_in, version

PACKAGE = Path(__file__).parents[2]
WEIGHTS = ("weights-*.safetensors", "raw-*.safetensors")  # of the assets, which are read when they are asked for
CACHES = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "MPLCONFIGDIR", "NUMBA_CACHE_DIR")  # of packages


def shelter(wanted: bool = True) -> str:
    """Return by what methods are shut in here, as rows name it: "none" where it is not wanted or not possible."""
    spoken = version() if wanted else 0
    return f"landlock {spoken}" if spoken else NONE


def closed_to_methods(results: Path, assets: Path) -> tuple[str, ...]:
    """Return the folders that no method reads: truths here and in the repository's past, caches, and results."""
    inside = (results / name for name in ("rows", "cells", "logs", "kept"))
    return tuple(map(str, (assets, SHIPPED, PACKAGE / ".git", home(), *inside)))


def use_temporary(folder: str) -> None:
    """Make a folder the one that this process and packages put temporary files in."""
    tempfile.tempdir = folder
    os.environ.update(dict.fromkeys(("TMPDIR", *CACHES), folder))


def enclose(closed: Iterable[str], writable: Iterable[Path], readable: Iterable[Path]) -> None:
    """Shut this process in, as ``shut_in`` has it; raises RuntimeError where it fails: the row would lie."""
    if (found := shut_in(list(map(Path, closed)), list(writable), list(readable))) != shelter():
        raise RuntimeError(f"shut in by {found}, where {shelter()} was expected: run with --no-isolation")


def read_later(assets: Path, members: Iterable[str], plugins: Iterable[str]) -> Iterator[Path]:
    """Yield what may lie in closed folders and is read all the same: weights, members' records and plugins."""
    for pattern in WEIGHTS:
        yield from assets.glob(pattern)
    yield from map(Path, members)
    for plugin in filter(is_file, plugins):
        yield from (Path(plugin).parent / name for name in code_files(plugin))
