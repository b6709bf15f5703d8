"""Emoji: colour pictures of the same 1,911 things by two artists, Twemoji and Noto, at 32x32 pixels over white."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError, brief, shown
from ...store import files_below
from .. import hub, packages
from ..base import Card, ImageDataset
from ..folders import decoding
from ..stored import Item

CARD = Card(
    name="emoji",
    title="Emoji of two artists, Twemoji and Noto, 32x32 over white",
    source="emoji-datasource-twitter and -google on npm, published from github.com/iamcal/emoji-data v16.0.0",
    licence="Twemoji: CC BY 4.0, Twitter and contributors; Noto Emoji: Apache-2.0, Google",
    revision="16.0.0",
    transform="64x64 RGBA over white, means of 2x2 pixels, uint8 mapped to [-1, 1]",
    items=3822,
    shape=(3, 32, 32),
    cond={"class_labels": ()},
    columns=("image", "category", "subcategory"),
    files="both packages unpacked (npm pack), or a clone of the repository at that tag",
    download="136 MB",
    fingerprint="5ca62b96a75b0a4857522caf150bc04d10ae92f90507c845a5698267dcf8982f",
)
ARTISTS = {"twitter": "Twemoji", "google": "Noto"}  # by the packages' names for them
HASHES = {
    "twitter": "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
    "google": "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
}
SIZE = 64  # pixels of the source


def load() -> ImageDataset:
    """Return the pictures [3822, 3, 32, 32] that were fetched, on disk, with the artist as ``class_labels``.

    Grouped by ``artist``, ``category``, ``subcategory`` and ``artist_subcategory``. Raises UserError where they were
    not fetched.
    """
    return hub.opened(CARD)


def fetch(path: Path | None = None, on_item: hub.OnItem = hub.ignore) -> ImageDataset:
    """Store the pictures of the two packages, downloaded or unpacked below ``path``, and return them.

    Below a path, each artist's pictures are in a folder ``img/<artist>/64`` or ``img-<artist>-64``, as packages and
    repository have them, and one ``emoji.json`` says what they are. Raises UserError for what is missing or no picture.
    """
    with _opened(path) as source:
        if len(source) != CARD.items:
            found = f"{len(source):,} pictures where {CARD.name} has {CARD.items:,}"
            raise UserError(f"{source.root} has {found}: give both packages whole, in version {CARD.revision}")
        hub.store(CARD, len(source), source.item, on_item, group_names=source.names)
    return load()


def pictures(path: Path, on_item: hub.OnItem = hub.ignore) -> Iterator[np.ndarray]:
    """Yield the pictures of both artists below ``path`` as they would be stored, uint8 [3, 32, 32]; raises as fetch."""
    with _opened(path) as source:
        for i in range(len(source)):
            yield source.item(i).pixels
            on_item(i + 1, len(source))


@contextmanager
def _opened(path: Path | None) -> Iterator[_Source]:
    with packages.unpacked(path, {f"emoji-datasource-{one}": HASHES[one] for one in ARTISTS}, CARD.revision) as root:
        yield _Source(root, tuple(_pictures(root, artist) for artist in ARTISTS))


def _pictures(root: Path, artist: str) -> Path:
    places = (f"img/{artist}/{SIZE}", f"img-{artist}-{SIZE}")
    folders = sorted({path.parent for path in files_below(root)})
    for place in places:
        for found in folders:
            if f"/{found.relative_to(root).as_posix()}".endswith(f"/{place}"):
                return found
    raise UserError(f"{root} has no folder {' or '.join(places)}: give the unpacked packages of both artists")


@dataclass(frozen=True)
class _Source:
    """What there is to store: the folder with emoji.json, and one with the pictures of each artist."""

    root: Path
    pictures: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.pictures) * len(self.listed)

    @cached_property
    def listed(self) -> list[dict[str, Any]]:
        """Every emoji that both artists drew, without variants of skin."""
        files = sorted(path for path in files_below(self.root) if path.name == "emoji.json")
        if not files:
            raise UserError(f"{self.root} has no emoji.json: give the unpacked packages of both artists")
        try:
            listed = json.loads(files[0].read_text(encoding="utf-8"))
            drawn = [one for one in listed if all(one[f"has_img_{artist}"] for artist in ARTISTS)]
            for text in (one[key] for one in drawn for key in ("image", "category", "subcategory")):
                if not isinstance(text, str):
                    raise ValueError(f"{shown(text)} is no text")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{files[0]} is no list of emoji ({brief(repr(error))}): unpack it again") from error
        return drawn

    @cached_property
    def names(self) -> dict[str, list[str]]:
        """The groups' names by column, in the order of their values."""
        subcategories = sorted({one["subcategory"] for one in self.listed})
        return {
            "artist": list(ARTISTS.values()),
            "category": sorted({one["category"] for one in self.listed}),
            "subcategory": subcategories,
            "artist_subcategory": [f"{artist} {one}" for artist in ARTISTS.values() for one in subcategories],
        }

    def item(self, i: int) -> Item:
        artist, number = divmod(i, len(self.listed))
        one, names = self.listed[number], self.names
        subcategory = names["subcategory"].index(one["subcategory"])
        groups = {
            "artist": artist,
            "category": names["category"].index(one["category"]),
            "subcategory": subcategory,
            "artist_subcategory": artist * len(names["subcategory"]) + subcategory,
        }
        label = np.array(artist, dtype=np.int64)
        return Item(_pixels(self.pictures[artist] / one["image"]), artist, {"class_labels": label}, groups)


def _pixels(path: Path) -> np.ndarray:
    """Return a picture over white at half its size, uint8 [3, 32, 32]: in whole numbers, so alike everywhere."""
    from PIL import Image

    with decoding(str(path), "unpack it again"), Image.open(path) as picture:
        found = np.asarray(picture.convert("RGBA")).astype(np.int64)
    if found.shape != (SIZE, SIZE, 4):
        raise UserError(f"{path} is {found.shape[1]} x {found.shape[0]} pixels, not {SIZE} x {SIZE}: unpack it again")
    colour, alpha = found[..., :3], found[..., 3:]
    over_white = (colour * alpha + 255 * (255 - alpha)).reshape(SIZE // 2, 2, SIZE // 2, 2, 3).sum((1, 3))
    parts = 4 * 255
    return ((2 * over_white + parts) // (2 * parts)).astype(np.uint8).transpose(2, 0, 1)
