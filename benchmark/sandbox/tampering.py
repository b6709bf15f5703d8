"""Noticing what a cell that is not shut in changes of what is not its own: the truth, code, other cells."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...datasets.truth import Assets
from ...errors import UserError
from ...plugins import code_files, is_file
from ...store import file_hash
from .enclosure import PACKAGE

CODE = ("datasets", "models", "methods", "benchmark", "leaderboard")  # the package's folders with code
NAMED = 3  # of the files that changed, how many a reason names
State = dict[str, Any]


@dataclass
class Watch:
    """Files that a cell should not change, as they are now.

    claimed: folders of the cells that this run holds; expected: of those that this run itself may write meanwhile.
    A cell that another run held meanwhile is that run's to change; so are metrics in any row.
    """

    assets: Assets
    plugins: tuple[str, ...]
    results: Path
    claimed: frozenset[str]
    expected: set[str]
    _brought: list[Path] = field(init=False)
    _code: State = field(init=False)
    _truth: State = field(init=False)
    _cells: State = field(init=False)

    def __post_init__(self) -> None:
        files = [(Path(plugin).parent, code_files(plugin)) for plugin in filter(is_file, self.plugins)]
        self._brought = [folder / name for folder, names in files for name in names]
        self._code, self._truth, self._cells = self._states()

    def complaint(self) -> str | None:
        """Return a line about what has changed since, None where nothing has."""
        code, truth, cells = self._states()
        found = [*_changed(self._code, code), *self._spoilt(_changed(self._truth, truth)), *self._alien(cells)]
        if not found:
            return None
        named = ", ".join(found[:NAMED]) + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")
        return f"while it ran without isolation, files changed that are not its own: {named}; restore them"

    def _states(self) -> tuple[State, State, State]:
        return _code_state(self._brought), _truth_state(self.assets), dict(_cell_states(self.results))

    def _spoilt(self, names: Iterable[str]) -> Iterator[str]:
        """Yield those of the truth's files that have other bytes: a link to one changes its state, and no byte."""
        for name in names:
            listed = self.assets.manifest["files"].get(Path(name).name)
            if listed is None or _hash(Path(name)) != listed["sha256"]:
                yield name

    def _alien(self, now: State) -> Iterator[str]:
        for name in _changed(self._cells, now):
            folder = self._folder(name, self._cells | now)
            if not Path(name).name.startswith(".") and folder not in self.expected and not self._held(folder, now):
                yield name

    def _folder(self, name: str, states: State) -> str:
        """Return the folder of the cell that a file is of."""
        part, _, key = name.partition("/")
        if part == "rows":
            return f"cells/{key.removesuffix('.json')}"
        above = [path.as_posix() for path in Path(name).parents]
        return next((one for one in above if one in self.expected or f"{one}/.run.lock" in states), above[0])

    def _held(self, folder: str, now: State) -> bool:
        """Say whether another run held a cell since: its claim was or is there, or its lock was used."""
        lock, claim = f"{folder}/.run.lock", f"{folder}/.run.claim"
        another = folder not in self.claimed and (claim in self._cells or claim in now)
        return another or self._cells.get(lock) != now.get(lock)


def _changed(before: State, after: State) -> list[str]:
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _code_state(brought: Iterable[Path]) -> State:
    folders = (path for folder in CODE for path in (PACKAGE / folder).rglob("*.py"))
    return {str(path): _hash(path) for path in (*PACKAGE.glob("*.py"), *folders, *brought)}


def _hash(path: Path) -> str | None:
    """Return the hash of a file, None where there is none to be read."""
    with suppress(OSError, UserError):
        return file_hash(path)
    return None


def _truth_state(assets: Assets) -> State:
    names = ["manifest.json", *assets.manifest["files"]]
    return {str(assets.folder / name): _stat(assets.folder / name) for name in names}


def _cell_states(results: Path) -> Iterator[tuple[str, Any]]:
    for part, state in (("cells", _stat), ("rows", _row_state)):
        for folder, _, names in os.walk(results / part):
            for name in names:
                path = Path(folder, name)
                yield path.relative_to(results).as_posix(), state(path)


def _stat(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat(follow_symlinks=False)
    except OSError:  # gone since it was listed
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _row_state(path: Path) -> Any:
    """Return what a row says but for its metrics, which other commands add; these can be derived again."""
    if path.suffix != ".json":
        return None
    try:
        row = json.loads(path.read_bytes())
        return json.dumps({name: value for name, value in row.items() if name != "metrics"}, sort_keys=True)
    except (OSError, ValueError, RecursionError, AttributeError):
        return "unreadable"
