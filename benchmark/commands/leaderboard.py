"""The command leaderboard: views of rows; no torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from ...errors import UserError
from ...leaderboard.readme import QUERY_SET, update_readme
from ...leaderboard.rows.files import RESULTS, load_rows
from ...leaderboard.views.catalogue import QUERY_SETS, SIMILARITY, VIEWS, build_view
from ...leaderboard.views.sheet import FORMATS, render
from ...store import FolderStore
from .terminal import plain


class Shown(NamedTuple):
    """What of the rows is printed, and in which format."""

    format: str = "table"
    queries: str = QUERY_SET
    view: str = VIEWS[0]
    similarity: str = SIMILARITY


def leaderboard(task: str | None, folder: Path | None, shown: Shown, readme: Path | None) -> None:
    """Print a view of a folder's rows, or write all views into a README that has their markers."""
    _check(shown, readme)
    found, queries = load_rows(rows_folder(folder), task), QUERY_SETS.get(shown.view, shown.queries)
    rows = [row for row in found if row.key.query_set == queries]
    if not rows:
        raise UserError(
            f"no {queries} rows{f' of {task!r}' if task else ''} in {folder or RESULTS}: run `tdabench run` first"
        )
    if readme is not None:
        _update(readme, update_readme(_read(readme), found))
        return
    width = max(plain.width, 100) if sys.stdout.isatty() else 120
    print(render(build_view(shown.view, rows, shown.similarity), shown.format, width))


def _check(shown: Shown, readme: Path | None) -> None:
    for option, name, known in (("format", shown.format, FORMATS), ("view", shown.view, VIEWS)):
        if name not in known:
            raise UserError(f"--{option} {name!r} is none of {', '.join(known)}")
    if readme is not None and shown != Shown():
        raise UserError(f"--readme writes every marked view of the {QUERY_SET} rows: leave out other options")


def rows_folder(folder: Path | None) -> Path:
    """Return where the rows of a run's folder lie, or the committed ones; raises UserError where there is none."""
    if folder is None:
        return RESULTS
    if not folder.is_dir():
        raise UserError(f"results folder {folder} does not exist: check --results")
    return folder / "rows" if (folder / "rows").is_dir() else folder


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _update(path: Path, text: str) -> None:
    FolderStore(path.parent).put(path.name, text.encode())
