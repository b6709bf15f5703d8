"""Scores that others published about a task of theirs which is one of ours too: data beside the rows, and none of them.

They were measured elsewhere under another protocol, so no ranking reads them.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from ...errors import CorruptFile, UserError, unknown
from ...store import FolderStore, read_file
from .listed import check_listed, json_keys, seal_folder
from .strict import Name, Strict, first_problem, parse_json

REPORTED = Path(__file__).parents[1] / "reported"
Kind = Literal["heldout", "generated"]
Text = Annotated[str, Field(min_length=1)]
Link = Annotated[str, Field(pattern=r"^https://\S+$")]
Percent = Annotated[float, Field(ge=-100, le=100)]


class ReportedScore(Strict):
    """An LDS times 100 and, where its authors give it, their standard deviation."""

    mean: Percent
    std: Annotated[float, Field(ge=0, le=100)] | None = None


class ReportedEntry(Strict):
    """What authors report of one method: its name, its setting, and our method that is nearest to it, if one is."""

    name: Text
    setting: str = ""
    method: Name | None = None
    lds: Annotated[dict[Kind, ReportedScore], Field(min_length=1)]


class Reported(Strict):
    """A published table about a task.

    source: where each figure stands, at a pinned revision; protocol: how they were measured; differs: what the task
    here does otherwise, so that the figures are no rows of it.
    """

    task: Name
    task_version: int
    title: Text
    authors: Text
    paper: Link
    source: Link
    source_note: Text
    protocol: Text
    differs: Text
    entries: Annotated[list[ReportedEntry], Field(min_length=1)]

    @property
    def label(self) -> str:
        """``task@version``, which is the file's name too."""
        return f"{self.task}@{self.task_version}"

    @model_validator(mode="after")
    def _entries_differ(self) -> Reported:
        named = [(entry.name, entry.setting) for entry in self.entries]
        if twice := sorted({one for one in named if named.count(one) > 1}):
            raise ValueError(f"{' '.join(twice[0])} is there twice")
        return self

    def check_names(self, tasks: Collection[str], methods: Collection[str]) -> None:
        """Raise UserError for a task, or a method of ours, that does not exist."""
        if self.task not in tasks:
            raise _misnamed(self.label, unknown("task", self.task, tasks))
        for method in filter(None, (entry.method for entry in self.entries)):
            if method not in methods:
                raise _misnamed(self.label, unknown("method", method, methods))


def _misnamed(label: str, error: UserError) -> UserError:
    return UserError(f"reported numbers of {label}: {error}")


def load_reported(task: str | None = None, folder: Path | None = None) -> list[Reported]:
    """Return what is reported about all tasks, or one (``cifar2``, or ``cifar2@1``); folder: None is REPORTED.

    Raises CorruptFile for a file that is no such table, or that has another task's name, and where the folder is not as
    the list beside it says, which the committed tables must have.
    """
    store = FolderStore(folder or REPORTED)
    found = _tables(store)
    check_listed(store, json_keys(store), required=folder is None)
    return [one for one in found if task in (None, one.task, one.label)]


def seal_reported(folder: Path) -> tuple[Path, int]:
    """Write the list of a folder's tables, and return where it lies and how many they are.

    Raises CorruptFile, and writes nothing, where one of them is none.
    """
    _tables(FolderStore(folder))
    return seal_folder(folder)


def _tables(store: FolderStore) -> list[Reported]:
    return [_read(store.path(key)) for key in json_keys(store)]


def _read(path: Path) -> Reported:
    try:
        found = Reported.model_validate(parse_json(read_file(path)))
    except ValidationError as error:
        problem = first_problem(error, "the table")
        raise CorruptFile(f"{path} is no table of reported numbers: {problem}; correct it") from error
    except (OSError, ValueError) as error:
        raise CorruptFile(f"{path} cannot be read as JSON ({error}); correct or delete it") from error
    if path.stem != found.label:
        raise CorruptFile(f"{path} holds the numbers of {found.label}: call it {found.label}.json")
    return found
