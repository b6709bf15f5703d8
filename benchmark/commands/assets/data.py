"""The commands about datasets: what is known of one, and bringing it here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ....datasets.base import Card
from ....datasets.find import dataset_listings, load_dataset
from ....errors import UserError, unknown
from ....plugins import imported
from ....store import LONG_CLAIM_S, FolderStore, home
from ..terminal import Bar, console


def fetch(name: str, path: Path | None) -> None:
    """Store a dataset of the package here, from the hub or from a copy of its files at ``path``."""
    module = _module(name)
    if not hasattr(module, "fetch"):
        raise UserError(f"dataset {name!r} needs no fetching: it comes with an installed package")
    with FolderStore(home()).claim(f"fetch-{name}", LONG_CLAIM_S) as held:
        if not held:
            raise UserError(f"another process is fetching {name} into {home()}: wait for it, or stop it first")
        with Bar(f"{name}, reading and storing") as bar:
            data = module.fetch(path, bar.update)
    console.print(f"{name}: {len(data):,} images here, fingerprint {data.fingerprint()[:16]}", soft_wrap=True)


def info(name: str, plugins: tuple[Path, ...]) -> None:
    """Print a dataset's card, and its size and fingerprint where it is here."""
    module = _module(name, plugins)
    try:
        data = load_dataset(name, plugins)
    except UserError as error:
        if not hasattr(module, "fetch"):
            raise
        _print_card(module.CARD)
        console.print(str(error), soft_wrap=True, markup=False)
        return
    _print_card(data.card)
    shape = " x ".join(map(str, data.images.shape[1:]))
    conditions = ", ".join(f"{name} {list(value.shape[1:])}" for name, value in data.cond.items()) or "none"
    console.print(f"images: {len(data):,} of {shape}, {len(data.classes.unique())} classes; conditions: {conditions}")
    console.print(f"fingerprint: {data.fingerprint()}", soft_wrap=True)


def _print_card(card: Card) -> None:
    for label in ("title", "source", "licence", "revision", "transform"):
        console.print(f"{label}: {getattr(card, label)}", soft_wrap=True, markup=False)


def _module(name: str, plugins: tuple[Path, ...] = ()) -> Any:
    listings = dataset_listings(plugins)
    if name not in listings:
        raise unknown("dataset", name, listings)
    return imported(listings[name].origin)
