"""What a cell's process is kept from: truths, caches, results of other cells, the network, and writing elsewhere."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...datasets.truth import SHIPPED
from ...plugins import code_files, is_file
from ...store import home
from .isolation import NONE, shut_in, version

if TYPE_CHECKING:
    from .worker import Spec

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


def enclose(spec: Spec) -> None:
    """Shut this process in as its spec says; raises RuntimeError where that fails, as the row would say otherwise."""
    if spec.temporary is not None:
        use_temporary(spec.temporary)
    if not spec.closed:
        return
    closed, writable = map(Path, spec.closed), [Path(spec.folder), *_own(spec)]
    if (found := shut_in(list(closed), writable, list(_read_later(spec)))) != shelter():
        raise RuntimeError(
            f"the process is shut in by {found}, where {shelter()} was expected: run with --no-isolation"
        )


def _own(spec: Spec) -> Iterator[Path]:
    if spec.kept is not None:
        folder = Path(spec.kept["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    if spec.temporary is not None:
        yield Path(spec.temporary)


def _read_later(spec: Spec) -> Iterator[Path]:
    """Yield what lies in closed folders and is read all the same: weights, members' records and plugins."""
    for pattern in WEIGHTS:
        yield from Path(spec.assets).glob(pattern)
    yield from map(Path, (spec.members or {}).values())
    for plugin in filter(is_file, spec.plugins):
        yield from (Path(plugin).parent / name for name in code_files(plugin))
