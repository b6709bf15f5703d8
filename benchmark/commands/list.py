"""The command list: tasks, datasets and methods; no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from rich.table import Column, Table

from ...datasets.find import DatasetListing, card_of, dataset_listings, store_folder
from ...errors import UserError, unknown
from ...methods.registry import listings
from ..tasks.find import find_task, has_assets, known_groups, task_names
from ..tasks.spec import TaskSpec
from .terminal import plain

MISSING = "-"


def show(what: str, plugins: tuple[Path, ...]) -> None:
    """Print tasks, datasets and methods by name, or a table of one of these; raises UserError for another word."""
    if what and what not in TABLES:
        raise unknown("listing", what, TABLES)
    if what:
        for part in TABLES[what](plugins):
            plain.print(part)
        return
    plain.print("tasks: " + ", ".join(task_names(plugins)), soft_wrap=True)
    plain.print("datasets: " + ", ".join(sorted(dataset_listings(plugins))), soft_wrap=True)
    plain.print(*_methods(plugins))


def _methods(plugins: tuple[Path, ...]) -> list[Table | str]:
    table = Table(Column("method", no_wrap=True), "presets", "needs", "what it is")
    for listing in listings(plugins).values():
        table.add_row(listing.name, ", ".join(listing.presets), ", ".join(listing.needs), listing.summary)
    return [table]


def _datasets(plugins: tuple[Path, ...]) -> list[Table | str]:
    table, known = Table(Column("dataset", no_wrap=True), "images", "of", "download", "here"), dataset_listings(plugins)
    for name, listing in sorted(known.items()):
        card = card_of(listing)
        here = not card.get("download") or store_folder(name, card["revision"]).is_dir()
        size = " x ".join(map(str, card.get("shape", ())))
        count = f"{card['items']:,}" if card.get("items") else MISSING
        table.add_row(name, count, size or MISSING, card.get("download") or "none", _yes(here))
    return [table, *_licences(known, known)]


def _tasks(plugins: tuple[Path, ...]) -> list[Table | str]:
    table = Table(Column("task", no_wrap=True), "items and model", "retrained", "truth")
    specs = [find_task(name, plugins) for name in task_names(plugins)]
    for spec in specs:
        what = f"{spec.n_train:,} of {spec.dataset}\n{spec.recipe.model.architecture}, {_process(spec)}"
        table.add_row(spec.label, what, _retrained(spec), _yes(has_assets(spec)))
    return [table, *_licences([spec.dataset for spec in specs], dataset_listings(plugins))]


def _licences(names: Iterable[str], known: Mapping[str, DatasetListing]) -> Iterator[str]:
    """Yield each licence of some datasets after the names of those that have it."""
    found: dict[str, list[str]] = {}
    for name in sorted({*names} & {*known}):
        found.setdefault(card_of(known[name]).get("licence", "no licence named"), []).append(name)
    yield "licences of the data:"
    yield from (f"{', '.join(having)}: {licence}" for licence, having in found.items())


def _retrained(spec: TaskSpec) -> str:
    """Return how many models a task retrains; of groups that only the dataset counts, how many each."""
    try:
        groups = known_groups(spec)
    except UserError:  # a damaged truth, which whoever reads it is told of
        groups = None
    more = f" + {spec.groups.replicates} a group" if spec.groups and groups is None else ""
    return f"{spec.retrained(groups or 0):,}{more}"


def _process(spec: TaskSpec) -> str:
    model = spec.recipe.model
    return f"{model.process.get('kind', 'ddpm')}{', latents' if model.autoencoder else ''}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


Listing = Callable[[tuple[Path, ...]], list[Table | str]]
TABLES: dict[str, Listing] = {
    "tasks": _tasks,
    "datasets": _datasets,
    "methods": _methods,
}
