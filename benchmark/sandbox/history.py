"""Where the history of a checkout lies, in which all lies that was ever committed to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def histories(checkout: Path) -> set[Path]:
    """Return the folders of git that hold it: of a worktree also the repository, and what it borrows objects from."""
    found: set[Path] = set()
    waiting = [checkout / ".git"]
    while waiting:
        place = waiting.pop()
        if place not in found:
            found.add(place)
            waiting += _named_in(place)
    return found


def _named_in(place: Path) -> Iterator[Path]:
    """Yield what a ``.git`` refers to, as gitrepository-layout(5) has it: a file to a folder, a folder to others."""
    for line in _lines(place):
        yield place.parent / line.removeprefix("gitdir:").strip()
    for line in _lines(place / "commondir"):
        yield Path(os.path.normpath(place / line))
    for line in _lines(place / "objects" / "info" / "alternates"):
        yield Path(os.path.normpath(place / "objects" / line))


def _lines(path: Path) -> list[str]:
    with suppress(OSError):
        return os.fsdecode(path.read_bytes()).splitlines()
    return []
