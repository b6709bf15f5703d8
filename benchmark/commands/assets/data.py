"""The commands about datasets: what is known of one, and bringing it here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ....datasets.base import HELDOUT, Card, ImageDataset
from ....datasets.find import dataset_listings, load_dataset
from ....datasets.hub import Encode, check_place, read_with
from ....datasets.known import is_original, matching
from ....errors import UserError, unknown
from ....models.pipelines.text import TextEncoder
from ....plugins import imported
from ....store import LONG_CLAIM_S, FolderStore, file_hash, home
from ..terminal import Bar, console

LABELS = ("title", "source", "licence", "revision", "transform", "files", "download")


def fetch(name: str, path: Path | None, text: Path | None = None) -> None:
    """Store a dataset of the package here, from the hub or from a copy of its files at ``path``.

    text: the folder of a tokenizer and a text encoder, for a dataset with captions.
    """
    module = fetched_module(name)
    if hasattr(module, "SOURCE"):
        check_place(module.CARD, module.SOURCE, path)
    more = {"encode": _encoder(name, module.TEXT, text)} if hasattr(module, "TEXT") else {}
    with FolderStore(home()).claim(f"fetch-{name}", LONG_CLAIM_S) as held:
        if not held:
            raise UserError(f"another process is fetching {name} into {home()}: wait for it, or stop it first")
        with Bar(f"{name}, reading and storing") as bar:
            data = module.fetch(path, bar.update, **more)
    console.print(f"{name}: {len(data):,} images here, fingerprint {data.fingerprint()[:16]}", soft_wrap=True)
    if is_original(data) is False:
        console.print(f"{name}: another track than {_originals(data)}", soft_wrap=True)


def _originals(data: ImageDataset) -> str:
    """Return in words what a dataset would be like if it were its card's."""
    if data.card.fingerprint:
        return f"{data.card.fingerprint[:16]}, which its card names"
    found, known = matching(data)
    return f"its card means: {found:,} of {known:,} images that are known of it are here"


def _encoder(name: str, kind: str, text: Path | None) -> Encode:
    if text is None:
        raise UserError(f"dataset {name!r} has captions: name the folder of their tokenizer and encoder by --text")
    folder = text / "text_encoder"
    found = TextEncoder(text / "tokenizer", folder, projected=kind == "vector")
    return Encode(found.encode, {path.name: file_hash(path) for path in sorted(folder.glob("*.safetensors"))})


def info(name: str, plugins: tuple[Path, ...]) -> None:
    """Print a dataset's card, and its size and fingerprint where it is here."""
    module = _module(name, plugins)
    try:
        data = load_dataset(name, plugins)
    except UserError as error:
        if not hasattr(module, "fetch"):
            raise
        _print_card(module.CARD)
        _print_promise(module.CARD)
        console.print(str(error), soft_wrap=True, markup=False)
        return
    _print_card(data.card)
    shape = " x ".join(map(str, data.images.shape[1:]))
    conditions = ", ".join(f"{name} {list(value.shape[1:])}" for name, value in data.cond.items()) or "none"
    held = f", {int(data.groups[HELDOUT].sum()):,} of them held out" if HELDOUT in data.groups else ""
    classes = f"{len(data.classes.unique())} classes"
    console.print(f"images: {len(data):,} of {shape}{held}, {classes}; conditions: {conditions}", soft_wrap=True)
    console.print(f"fingerprint: {data.fingerprint()}", soft_wrap=True)
    if hasattr(module, "TEXT"):
        _print_text_encoder(module.CARD)


def _print_text_encoder(card: Card) -> None:
    for name, found in read_with(card).items():
        console.print(f"text encoder: {name}, SHA-256 {found}", soft_wrap=True, markup=False)


def _print_card(card: Card) -> None:
    for label in LABELS:
        if getattr(card, label):
            console.print(f"{label}: {getattr(card, label)}", soft_wrap=True, markup=False)
    if card.columns:
        console.print(f"columns: {', '.join(card.columns)}", soft_wrap=True, markup=False)


def _print_promise(card: Card) -> None:
    shape = " x ".join(map(str, card.shape))
    conditions = ", ".join(f"{name} {list(value)}" for name, value in card.cond.items()) or "none"
    held = f", {card.heldout:,} of them held out" if card.heldout else ""
    console.print(f"images: {card.items:,} of {shape}{held}; conditions: {conditions}", soft_wrap=True, markup=False)
    if card.fingerprint:
        console.print(f"fingerprint: {card.fingerprint}", soft_wrap=True)


def fetched_module(name: str, plugins: tuple[Path, ...] = ()) -> Any:
    """Return the module of a dataset that is fetched; raises UserError where it is unknown, or needs no fetching."""
    module = _module(name, plugins)
    if not hasattr(module, "fetch"):
        raise UserError(f"dataset {name!r} needs no fetching: it comes with an installed package")
    return module


def _module(name: str, plugins: tuple[Path, ...] = ()) -> Any:
    listings = dataset_listings(plugins)
    if name not in listings:
        raise unknown("dataset", name, listings)
    return imported(listings[name].origin)
