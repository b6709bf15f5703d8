"""What the page says of tasks and methods beyond rows: from their files, and pictures where these may be shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .... import __version__
from ....datasets.find import card_of, dataset_listings
from ....errors import UserError
from ....leaderboard.page.facts import Facts, MethodFacts, Sprite, TaskFacts, rows_by_task
from ....leaderboard.rows.reported import Reported
from ....leaderboard.rows.row import Row
from ....methods.registry import Listing, listings
from ...tasks.find import find_task, has_assets, known_groups, open_assets
from ...tasks.spec import TaskSpec

PICTURES = ("free", "all", "none")
NOT_WANTED = "left out by --pictures none"


def known_facts(
    rows: Sequence[Row], pictures: str, plugins: tuple[Path, ...], reported: Sequence[Reported] = ()
) -> Facts:
    """Return what is known of the rows' tasks and methods; ``pictures``: of data free to be shown, all, or none."""
    by_task = rows_by_task(rows, reported)
    tasks = {label: _task(label, own, pictures, plugins) for label, own in by_task.items()}
    methods = {name: _method(listing) for name, listing in listings(plugins).items()}
    return Facts(tasks, methods, tuple(reported), __version__)


def _method(listing: Listing) -> MethodFacts:
    said = (listing.summary, listing.description, listing.citation)
    kind = {"unit": listing.unit, "sign": listing.sign, "presets": listing.presets}
    return MethodFacts(*said, needs=listing.needs, origin=_origin(listing.origin), **kind)


def _origin(origin: str) -> str:
    """Return a method's file as a reader of the repository knows it, and of one from outside no more than its name."""
    package = (__package__ or "").split(".")[0]
    if origin.startswith(f"{package}."):
        return origin.removeprefix(f"{package}.").replace(".", "/") + ".py"
    return Path(origin).name


def _task(label: str, rows: Sequence[Row], pictures: str, plugins: tuple[Path, ...]) -> TaskFacts:
    try:
        spec = find_task(label, plugins)
    except UserError:
        return TaskFacts(label, no_pictures="this task is not known here")
    listing = dataset_listings(plugins).get(spec.dataset)
    card = card_of(listing) if listing else {}
    facts = _facts(spec, str(card.get("title", "")), str(card.get("licence", "")))
    if pictures == "none":
        return TaskFacts(spec.title, facts, no_pictures=NOT_WANTED)
    if pictures == "free" and not card.get("shareable"):
        return TaskFacts(spec.title, facts, no_pictures="the data's licence does not let anybody show them")
    sprite, reason = _sprite(spec, rows, plugins)
    return TaskFacts(spec.title, facts, sprite, reason)


def _facts(spec: TaskSpec, title: str, licence: str) -> dict[str, str]:
    truth, model = spec.truth, spec.recipe.model
    groups = known_groups(spec) or 0
    subsets = f"{spec.retrained(groups):,}, on {truth.report} subsets for reporting and {truth.open} for tuning"
    subsets += f", and without each of {groups} groups" if groups else ""
    said = {
        "Data": title or spec.dataset,
        "Licence of the data": licence,
        "Training items": f"{spec.n_train:,}",
        "Model": f"{model.architecture}, {model.process.get('kind', 'ddpm')}",
        "Models retrained": subsets,
        "Test queries": f"{spec.queries.test} of each kind",
    }
    return {name: value for name, value in said.items() if value}


def _sprite(spec: TaskSpec, rows: Sequence[Row], plugins: tuple[Path, ...]) -> tuple[Sprite | None, str]:
    """Return a task's pictures, or none and the reason."""
    if not has_assets(spec):
        return None, "the task's truth is not here"
    try:
        assets = open_assets(spec)
        if assets.sha256 not in {row.source.truth_sha256 for row in rows}:
            return None, "the truth here is another than that of the rows"
        from .sprites import sprite_of

        return sprite_of(assets.folder, rows, plugins), ""
    except UserError as error:
        return None, str(error)
