"""The command leaderboard: views of rows; no torch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ...errors import UserError, shown
from ...leaderboard.readme import QUERY_SET, update_readme
from ...leaderboard.rows.files import RESULTS, load_rows
from ...leaderboard.rows.reported import Reported, load_reported
from ...leaderboard.views.catalogue import QUERY_SETS, SIMILARITY, VIEWS, build_view
from ...leaderboard.views.reported import reported_sheets
from ...leaderboard.views.sheet import FORMATS, Sheet, render
from ...methods.registry import listings
from ...store import FolderStore, read_file
from ..tasks.find import task_names
from .terminal import text_width


class Shown(NamedTuple):
    """What of the rows is printed, and in which format."""

    format: str = "table"
    queries: str = QUERY_SET
    view: str = VIEWS[0]
    similarity: str = SIMILARITY


READ_BY_PEOPLE = ("table", "markdown")  # formats in which a table of others may follow ours


def leaderboard(task: str | None, folder: Path | None, asked: Shown, readme: Path | None) -> None:
    """Print a view of a folder's rows, or write all views into a README that has their markers.

    What others reported about a task follows the table of its LDS, as a table of its own.
    """
    _check(asked, readme)
    found, queries = load_rows(rows_folder(folder), task), QUERY_SETS.get(asked.view, asked.queries)
    rows = [row for row in found if row.key.query_set == queries]
    if not rows:
        others = "; --reported shows what others did" if task and load_reported(task) else ""
        where = f"{f' of {task!r}' if task else ''} in {folder or RESULTS}"
        raise UserError(f"no {queries} rows{where}: run `tdabench run` first{others}")
    if readme is not None:
        _update(readme, update_readme(_read(readme), found))
        return
    sheets = build_view(asked.view, rows, asked.similarity, found)
    if asked.view == VIEWS[0] and asked.format in READ_BY_PEOPLE:
        labels = {row.key.label for row in rows}
        sheets += reported_sheets([one for one in _reported(task) if one.label in labels])
    _print(sheets, asked.format)


def show_reported(task: str | None, folder: Path | None, asked: Shown, readme: Path | None) -> None:
    """Print what others reported, in one of FORMATS; raises UserError where there is nothing about the task."""
    _check(asked, None)
    if folder or readme or asked._replace(format=Shown().format) != Shown():
        raise UserError("--reported shows no rows: of the other options leave only --format")
    if not (tables := _reported(task)):
        known = ", ".join(one.label for one in load_reported())
        raise UserError(f"no numbers are reported of {shown(task)}: there are those of {known}")
    _print(reported_sheets(tables), asked.format)


def _reported(task: str | None) -> list[Reported]:
    tables = load_reported(task)
    for table in tables:
        table.check_names(task_names(), listings())
    return tables


def _print(sheets: list[Sheet], format: str) -> None:
    print(render(sheets, format, text_width()))


def _check(asked: Shown, readme: Path | None) -> None:
    for option, name, known in (("format", asked.format, FORMATS), ("view", asked.view, VIEWS)):
        if name not in known:
            raise UserError(f"--{option} {shown(name)} is none of {', '.join(known)}")
    if readme is not None and asked != Shown():
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
        return read_file(path).decode()
    except FileNotFoundError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8: name a Markdown file with markers") from error


def _update(path: Path, text: str) -> None:
    FolderStore(path.parent).put(path.name, text.encode())
