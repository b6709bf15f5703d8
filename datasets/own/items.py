"""Images of one's own as a dataset: stored once, as a model takes them, under a name that its content decides."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ...errors import CorruptFile, UserError, brief
from ...seeds import digest
from ...store import LONG_CLAIM_S, FolderStore, file_hash, home, of_disk, recovered, take_place
from ..base import OWN, Card, ImageDataset
from ..folders import UNREADABLE, check_channels, fit_picture
from ..stored import COLUMNS, NULL, Item, Stored, open_items, write_items
from .sources import Given

FILE = "file"  # the group that says which file or row an item is
FORMAT = 1  # bumped when pictures become items in another way
Conditions = Mapping[str, np.ndarray]


class Beside(Protocol):
    """What an item has besides its pixels."""

    @property
    def key(self) -> str:
        """A text that is another one as soon as what items have is."""
        ...

    @property
    def null(self) -> Mapping[str, Tensor]:
        """What stands for no condition."""
        ...

    def of(self, i: int) -> tuple[int, Conditions]:
        """Return the class of picture i, and its conditions."""
        ...


@dataclass(frozen=True)
class Own:
    """Stored images: the dataset and its name; files [N]: what each item was called; ``order`` [N] sorts items by that.

    skipped: why each picture that is no item could not be read, by its name; resized, converted: how many were.
    """

    name: str
    data: ImageDataset
    files: tuple[str, ...]
    order: Tensor
    skipped: Mapping[str, str]
    resized: int
    converted: int


def own_folder(name: str) -> Path:
    """Return where a dataset of this name lies."""
    return recovered(home() / "own" / name)


def load_own(name: str) -> ImageDataset:
    """Return a dataset that was brought here; raises UserError where it is not, CorruptFile where it is damaged."""
    if not own_folder(name).is_dir():
        raise UserError(f"the images {name} are not in {own_folder(name).parent}: attribute them again")
    return _dataset(name, _opened(name))


def _dataset(name: str, found: Stored) -> ImageDataset:
    card = Card(name, "images of one's own", "", "unknown", "by content", "8 bits mapped to [-1, 1]")
    more = {"hashes": found.hashes, "groups": found.groups, "group_names": found.group_names, "null": found.null}
    return ImageDataset(card, found.images, found.classes, found.cond, **more)


def _opened(name: str) -> Stored:
    """Return what is stored under a name; raises CorruptFile where that would have another name, or is damaged."""
    folder = own_folder(name)
    found = open_items(folder, "attribute its images again")
    if _named(folder) != name:
        raise CorruptFile(f"{folder} does not hold what its name says: delete it and attribute its images again")
    return found


def _named(folder: Path) -> str:
    """Return the name that what lies in a folder has."""
    return OWN + digest([file_hash(folder / part) for part in (COLUMNS, NULL) if (folder / part).is_file()])


def open_own(name: str) -> Own:
    """Return a dataset that was brought here, with what it was made of; raises CorruptFile where it is damaged."""
    found = _opened(name)
    data, about = _dataset(name, found), found.source
    which, names = data.groups[FILE], data.group_names[FILE]
    files = tuple(names[i] for i in which.tolist())
    return Own(name, data, files, which.argsort(), about["skipped"], about["resized"], about["converted"])


def bring(
    pictures: Given,
    channels: int,
    size: tuple[int, int] | None,
    beside: Beside,
    on_item: Callable[[int, int], None] = lambda done, total: None,
) -> Own:
    """Store pictures with ``channels`` and ``size`` (height, width; None: that of the first), or find them stored.

    Pictures that cannot be read are left out and named. ``on_item`` sees (times a picture was read, of how many).
    Raises UserError where none can be read, or another process is storing them, CorruptFile where what is stored is
    damaged; a damaged note of which dataset they are is set aside, and they are stored again.
    """
    store, asked = FolderStore(home() / "own"), [FORMAT, pictures.stamp, channels, size, beside.key]
    index = f"index/{digest(asked)}.json"
    name = _noted(store, index)
    if name is None or not own_folder(name).is_dir():
        with store.claim(index, LONG_CLAIM_S) as held:
            if not held:
                raise UserError(f"another process is storing the images of {pictures.where}: wait for it")
            name = _stored(pictures, channels, size, beside, on_item)
            store.put_json(index, {"name": name}, sealed=True)
    return open_own(name)


def _noted(store: FolderStore, index: str) -> str | None:
    """Return the name that was noted under a key; None where none was, or not with its hash."""
    data = store.kept(index)
    return None if data is None else json.loads(data)["name"]


def _stored(
    pictures: Given,
    channels: int,
    size: tuple[int, int] | None,
    beside: Beside,
    on_item: Callable[[int, int], None],
) -> str:
    read, total = Reading(pictures, channels, size or first_size(pictures), beside), 2 * len(pictures)
    folder = own_folder(f"new-{digest([pictures.stamp, channels, size])}")
    names = {FILE: pictures.names}
    write_items(folder, len(pictures), read, lambda done: on_item(done, total), beside.null, read.notes, names)
    name = _named(folder)
    take_place(folder, own_folder(name))
    return name


def first_size(pictures: Given) -> tuple[int, int]:
    """Return (height, width) of the first picture that can be read; raises UserError where there is none."""
    for i in range(len(pictures)):
        try:
            with pictures.open(i) as found:
                return found.height, found.width
        except UNREADABLE as error:
            _check_disk(error, pictures, i)
    raise none_readable(pictures)


def _check_disk(error: Exception, pictures: Given, i: int) -> None:
    """Raise UserError for a picture that the disk does not give: left out for ever, it would be missed by nobody."""
    if of_disk(error):
        where = f"{pictures.names[i]} of {pictures.where}"
        raise UserError(f"cannot read {where}: {error.strerror}; make it readable, or take it out") from error


def none_readable(pictures: Given) -> UserError:
    """Return the error for pictures of which none can be read."""
    return UserError(f"none of the {len(pictures)} images of {pictures.where} can be read, such as {pictures.names[0]}")


@dataclass
class Reading:
    """Reads pictures as items, and notes by name those that cannot be read, and how many were changed to fit."""

    pictures: Given
    channels: int
    size: tuple[int, int]
    beside: Beside
    notes: dict[str, Any] = field(default_factory=lambda: {"skipped": {}, "resized": 0, "converted": 0})
    _seen: int = 0

    def __post_init__(self) -> None:
        check_channels(self.channels)

    def __call__(self, i: int) -> Item | None:
        """Return picture i as an item, or None where it is damaged; raises UserError where all are, or a disk is."""
        skipped, name, first = self.notes["skipped"], self.pictures.names[i], i >= self._seen
        self._seen = max(self._seen, i + 1)
        try:
            with self.pictures.open(i) as picture:
                pixels, done = fit_picture(picture, self.channels, self.size)
        except UNREADABLE as error:
            _check_disk(error, self.pictures, i)
            skipped[name] = brief(str(error)).replace(str(self.pictures.where), "")
            if len(skipped) == len(self.pictures):
                raise none_readable(self.pictures) from None
            return None
        if first:
            for what in done:
                self.notes[what] += 1
        label, cond = self.beside.of(i)
        return Item(pixels, label, cond, {FILE: i})


def in_memory(read: Reading) -> tuple[tuple[str, ...], Tensor, list[Item]]:
    """Return the pictures that can be read: names, images [n, C, H, W] in [-1, 1], and what lies beside them."""
    found = [(name, item) for i, name in enumerate(read.pictures.names) if (item := read(i)) is not None]
    images = torch.stack([torch.from_numpy(item.pixels.copy()) for _, item in found]).float() / 127.5 - 1
    return tuple(name for name, _ in found), images, [item for _, item in found]
