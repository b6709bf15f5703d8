"""The command list: tasks, datasets and methods; no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.table import Column, Table

from ...datasets.find import card_of, dataset_listings, store_folder
from ...errors import unknown
from ...methods.registry import listings
from ..tasks.find import find_task, has_assets, task_names
from ..tasks.spec import TaskSpec
from .terminal import plain

MISSING = "-"


def show(what: str, plugins: tuple[Path, ...]) -> None:
    """Print tasks, datasets and methods by name, or a table of one of these; raises UserError for another word."""
    if what and what not in TABLES:
        raise unknown("listing", what, TABLES)
    if what:
        plain.print(TABLES[what](plugins))
        return
    plain.print("tasks: " + ", ".join(task_names(plugins)), soft_wrap=True)
    plain.print("datasets: " + ", ".join(sorted(dataset_listings(plugins))), soft_wrap=True)
    plain.print(_methods(plugins))


def _methods(plugins: tuple[Path, ...]) -> Table:
    table = Table(Column("method", no_wrap=True), "presets", "needs", "what it is")
    for listing in listings(plugins).values():
        table.add_row(listing.name, ", ".join(listing.presets), ", ".join(listing.needs), listing.summary)
    return table


def _datasets(plugins: tuple[Path, ...]) -> Table:
    table = Table(Column("dataset", no_wrap=True), "images", "of", "download", "here", "licence")
    for name, listing in sorted(dataset_listings(plugins).items()):
        card = card_of(listing)
        here = not card.get("download") or store_folder(name, card["revision"]).is_dir()
        size = " x ".join(map(str, card.get("shape", ())))
        count = f"{card['items']:,}" if card.get("items") else MISSING
        table.add_row(
            name, count, size or MISSING, card.get("download") or "none", _yes(here), card.get("licence", MISSING)
        )
    return table


def _tasks(plugins: tuple[Path, ...]) -> Table:
    dataset, model = (Column(name, overflow="fold") for name in ("dataset", "model"))
    table = Table(Column("task", no_wrap=True), dataset, "items", model, "process", "trained", "truth")
    for name in task_names(plugins):
        spec = find_task(name, plugins)
        count = f"{spec.truth.retrainings:,}" if spec.groups is None else f"{spec.truth.retrainings:,} and groups"
        items, truth = f"{spec.n_train:,}", _yes(has_assets(spec))
        table.add_row(spec.label, spec.dataset, items, spec.recipe.model.architecture, _process(spec), count, truth)
    return table


def _process(spec: TaskSpec) -> str:
    model = spec.recipe.model
    return f"{model.process.get('kind', 'ddpm')}{', latents' if model.autoencoder else ''}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


TABLES: dict[str, Callable[[tuple[Path, ...]], Table]] = {"tasks": _tasks, "datasets": _datasets, "methods": _methods}
