"""The command data verify: whether what is stored, or a source elsewhere, is the dataset that its card means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ....datasets.base import ImageDataset
from ....datasets.files import Rows
from ....datasets.find import load_dataset, store_folder
from ....datasets.hub import HELDOUT, all_rows, pixels, wanted_rows
from ....datasets.known import known_sets, pixel_hash
from ....datasets.stored import open_items, spoilt
from ....datasets.truth import Assets
from ....errors import UserError
from ...tasks.find import find_task, has_assets, open_assets, task_names
from ..terminal import Bar, console
from .data import fetched_module

MIXED = "scores and truths of it are never mixed with those of"


def verify(name: str, path: Path | None, plugins: tuple[Path, ...] = ()) -> int:
    """Check what is stored, or a source at ``path``; 0: it is the dataset, as far as known; 1: it is another track."""
    return _verify_store(name, plugins) if path is None else _verify_source(name, path)


def _say(text: str) -> None:
    console.print(text, soft_wrap=True, markup=False)


def _verify_store(name: str, plugins: tuple[Path, ...]) -> int:
    data = load_dataset(name, plugins)
    folder, found = store_folder(name, data.card.revision), data.fingerprint()
    if folder.is_dir():
        with Bar(f"{name}, hashing") as bar:
            wrong = spoilt(open_items(folder), bar.update)
        if wrong:
            raise UserError(f"{folder}: {wrong:,} items are not what was stored: fetch {name} again")
        _say(f"{name}: all {len(data):,} items match their hashes")
    pinned = data.card.fingerprint
    same = pinned in ("", found)
    verdict = "that of its card" if pinned == found else "its card names none" if same else f"its card's is {pinned}"
    _say(f"fingerprint: {found} ({verdict})")
    tasks = [_verify_truth(task, data, plugins) for task in _tasks_of(name, plugins)]
    if not same:
        _say(f"another track: {MIXED} {name} {pinned[:16]}")
    return 0 if same and all(tasks) else 1


def _tasks_of(name: str, plugins: tuple[Path, ...]) -> list[str]:
    specs = [find_task(task, plugins) for task in task_names(plugins)]
    return [spec.name for spec in specs if spec.dataset == name and has_assets(spec)]


def _verify_truth(task: str, data: ImageDataset, plugins: tuple[Path, ...]) -> bool:
    """Say whether a truth was built on this dataset; one on latents cannot be compared without its autoencoder."""
    spec = find_task(task, plugins)
    if spec.recipe.model.autoencoder:
        return True
    assets: Assets = open_assets(spec)
    ids = torch.from_numpy(assets.arrays("problem.safetensors")["train_ids"])
    same = len(data) > int(ids.max()) and data.select(ids).fingerprint() == assets.manifest["dataset"]["fingerprint"]
    _say(f"truth of {spec.label}: built on this" if same else f"truth of {spec.label}: built on another track of it")
    return same


def _verify_source(name: str, path: Path) -> int:
    module = fetched_module(name)
    card, source = module.CARD, module.SOURCE
    original, items = _reference(card, source)
    with all_rows(card, source, path) as parts:
        found = _hashes(name, parts, source)
    there, matching = sum(one in original for one in found), len(items & set(found))
    said = f"{there:,} of the {len(found):,} pictures at {path} are the original's, pixel by pixel"
    whole = f", and all {len(items):,} known items of {name} are among them"
    if found and there == len(found):
        part = f", {matching:,} of {len(items):,} known items of {name} among them"
        _say(f"same track, as far as it goes: {said}{whole if matching == len(items) else part}")
    elif matching == len(items):
        _say(f"same track: {said}{whole}; the other pictures cannot be compared from here")
    else:
        _say(f"another track: {said}; {MIXED} {name}, revision {card.revision[:12]}")
        return 1
    return 0


def _reference(card: Any, source: Any) -> tuple[frozenset[bytes], frozenset[bytes]]:
    """Return the hashes of the original's pixels, and those of the dataset's items, as far as both are known here."""
    if card.known:
        sets = known_sets(card.known)
        names = [chosen for chosen in (card.name, f"{card.name}-{HELDOUT}") if chosen in sets] or source.splits
        return frozenset().union(*sets.values()), frozenset().union(*(sets[chosen] for chosen in names))
    folder = store_folder(card.name, card.revision)
    if not folder.is_dir():
        raise UserError(f"no pixels of {card.name} are known here to compare with: fetch it first, then verify another")
    images = open_items(folder).images
    stored = frozenset(pixel_hash(images.raw(i)) for i in range(len(images)))
    return stored, stored


def _hashes(name: str, parts: list[Rows], source: Any) -> list[bytes]:
    chosen = [(part, int(i)) for part in parts for i in wanted_rows(part, source)]
    with Bar(f"{name}, hashing") as bar:
        found = []
        for rows, i in chosen:
            found.append(pixel_hash(pixels(rows, i, source)))
            bar.update(len(found), len(chosen))
    return found
