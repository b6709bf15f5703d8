"""The command data verify: whether what is stored, or a source elsewhere, is the dataset that its card means."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ....datasets.base import ImageDataset
from ....datasets.find import load_dataset, store_folder
from ....datasets.hub import OnItem, all_rows, pixels, wanted_rows
from ....datasets.known import is_original, known_items, known_sets, matching, pixel_hash, pixel_hashes
from ....datasets.stored import open_items, spoilt
from ....errors import UserError
from ....models.problem import built_on
from ...tasks.find import find_task, has_assets, open_assets, task_names
from ..terminal import Bar, console
from .data import fetched_module

ORIGINALS = "the original's"
MIXED = "scores and truths of it are never mixed with those of"


def verify(name: str, path: Path | None, plugins: tuple[Path, ...] = ()) -> int:
    """Check what is stored, or a source at ``path``; 0: it is the dataset, as far as known; 1: it is another track."""
    return _verify_store(name, plugins) if path is None else _verify_source(fetched_module(name, plugins), path)


def _say(text: str) -> None:
    console.print(text, soft_wrap=True, markup=False)


def _verify_store(name: str, plugins: tuple[Path, ...]) -> int:
    data = load_dataset(name, plugins)
    folder, found = store_folder(name, data.card.revision), data.fingerprint()
    if folder.is_dir():
        with Bar(f"{name}, hashing") as bar:
            wrong = spoilt(open_items(folder, whole=True), bar.update)
        if wrong:
            raise UserError(f"{folder}: {wrong:,} items are not what was stored: fetch {name} again")
        _say(f"{name}: all {len(data):,} items match their hashes")
    pinned, same = data.card.fingerprint, is_original(data)
    named = "that of its card" if pinned == found else f"its card's is {pinned}" if pinned else "its card names none"
    _say(f"fingerprint: {found} ({named})")
    if same is not None and not pinned:
        _say("pixels: {:,} of {:,} images that are known of it are here".format(*matching(data)))
    tasks = [_verify_truth(task, data, plugins) for task in _tasks_of(name, plugins)]
    if same is False:
        _say(f"another track: {MIXED} {name}, {pinned[:16] or f'revision {data.card.revision[:12]}'}")
    return 0 if same is not False and all(tasks) else 1


def _tasks_of(name: str, plugins: tuple[Path, ...]) -> list[str]:
    specs = [find_task(task, plugins) for task in task_names(plugins)]
    return [spec.name for spec in specs if spec.dataset == name and has_assets(spec)]


def _verify_truth(task: str, data: ImageDataset, plugins: tuple[Path, ...]) -> bool:
    """Say whether a truth was built on this dataset: on latents, whether on those that its autoencoder makes of it."""
    spec = find_task(task, plugins)
    same = built_on(open_assets(spec), data)
    _say(f"truth of {spec.label}: built on this" if same else f"truth of {spec.label}: built on another track of it")
    return same


def _verify_source(module: Any, path: Path) -> int:
    card, name = module.CARD, module.CARD.name
    original, items, whose = _reference(module)
    found = _hashes(module, path)
    if not found:
        raise UserError(f"{path} holds no pictures of {name}: check --data")
    there, matching = sum(one in original for one in found), len(items & set(found))
    if whose != ORIGINALS:
        _say(f"compared with what is stored here, which nothing known here tells from other tracks of {name}")
    said = f"{there:,} of the {len(found):,} pictures at {path} are {whose}, pixel by pixel"
    whole = f", and all {len(items):,} known items of {name} are among them"
    if there == len(found):
        part = f", {matching:,} of {len(items):,} known items of {name} among them"
        _say(f"same track, as far as it goes: {said}{whole if matching == len(items) else part}")
    elif matching == len(items):
        _say(f"same track: {said}{whole}; the other pictures cannot be compared from here")
    else:
        _say(f"another track: {said}; {MIXED} {name}, revision {card.revision[:12]}")
        return 1
    return 0


def _reference(module: Any) -> tuple[frozenset[bytes], frozenset[bytes], str]:
    """Return the hashes of pixels to compare with, those of them that are the dataset's items, and whose they are."""
    card = module.CARD
    if card.known:
        return frozenset().union(*known_sets(card.known).values()), known_items(card), ORIGINALS
    folder = store_folder(card.name, card.revision)
    if not folder.is_dir():
        raise UserError(f"no pixels of {card.name} are known here to compare with: fetch it first, then verify another")
    same, stored = is_original(module.load()), pixel_hashes(open_items(folder).images)
    if same is False:
        raise UserError(f"{folder} is another track than {card.name}: fetch the original first, then verify another")
    return stored, stored, ORIGINALS if same else "those stored here"


def _hashes(module: Any, path: Path) -> list[bytes]:
    with Bar(f"{module.CARD.name}, hashing") as bar:
        return [pixel_hash(one) for one in _pictures(module, path, bar.update)]


def _pictures(module: Any, path: Path, on_item: OnItem) -> Iterator[np.ndarray]:
    """Yield the pictures of a source, uint8 [C, H, W], as the dataset would store them."""
    if not hasattr(module, "SOURCE"):
        yield from module.pictures(path, on_item)
        return
    source = module.SOURCE
    with all_rows(module.CARD, source, path) as parts:
        chosen = [(part, int(i)) for part in parts for i in wanted_rows(part, source)]
        for done, (rows, i) in enumerate(chosen, 1):
            yield pixels(rows, i, source)
            on_item(done, len(chosen))
