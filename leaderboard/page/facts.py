"""What the page says of tasks and methods beyond their rows: handed over by whoever knows tasks and methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..rows.reported import Reported
from ..rows.row import Row


@dataclass(frozen=True)
class Sprite:
    """Pictures of one task in one image: square tiles, ``columns`` to a row, one for each of ``queries`` and ``items``.

    png: the image; tile: a tile's side in pixels; queries and items: the tile of a query's and an item's id, from 0.
    """

    png: bytes
    tile: int
    columns: int
    queries: Mapping[str, int]
    items: Mapping[int, int]


@dataclass(frozen=True)
class TaskFacts:
    """A task: its title, what is said of it by name, and its pictures or, in words, why there are none."""

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    sprite: Sprite | None = None
    no_pictures: str = "its data are not at hand"


@dataclass(frozen=True)
class MethodFacts:
    """A method as its file describes it: one paragraph, the rest of its docstring, citation, needs, presets, file."""

    summary: str = ""
    details: str = ""
    citation: str = ""
    needs: tuple[str, ...] = ()
    unit: str = "item"
    sign: str = ""
    presets: tuple[str, ...] = ()
    origin: str = ""


@dataclass(frozen=True)
class Facts:
    """What is known of tasks, by ``name@version``, and of methods, by name; rows may be of others too.

    reported: tables that others published about tasks, which need not have rows.
    """

    tasks: Mapping[str, TaskFacts] = field(default_factory=dict)
    methods: Mapping[str, MethodFacts] = field(default_factory=dict)
    reported: tuple[Reported, ...] = ()
    version: str = ""


def rows_by_task(rows: Iterable[Row], reported: Iterable[Reported]) -> dict[str, list[Row]]:
    """Return the rows of each task that has some or that others reported about, by ``name@version``."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.key.label, []).append(row)
    for table in reported:
        found.setdefault(table.label, [])
    return found
