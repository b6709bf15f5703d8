"""Damage to any byte of stored datasets, images of one's own and budgets: the same comes back, or the damage is named.

One case for each kind of file, with ``--slow`` one for each way to spoil it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tdabench.benchmark.attribution import budget
from tdabench.benchmark.attribution.cells import Cells, check, sized
from tdabench.benchmark.attribution.problem import make
from tdabench.benchmark.attribution.request import Request
from tdabench.benchmark.run.forecast import Rates
from tdabench.benchmark.run.results import Results
from tdabench.datasets.base import whole
from tdabench.datasets.find import store_folder
from tdabench.datasets.stored import Item, open_items, write_items
from tdabench.errors import UserError
from tdabench.seeds import numpy_generator

from ..models import folders
from .test_bytes import SPOILS

N = 12
RATES = Rates(forward=0.01, trained=0.03, per_sample=0.05, setup=1.0)  # those of a machine vary
KINDS = {
    "columns.json": "datasets/*/columns.json*",
    "null": "datasets/*/null.safetensors*",
    "items": "datasets/*/items.arrow",
    "own/columns.json": "own/own-*/columns.json*",
    "own/items": "own/own-*/items.arrow",
    "own/index": "own/index/[!.]*",
    "budgets": "attribution/problems/budgets/[!.]*",
}


def item(i: int) -> Item:
    pixels = np.full((3, 4, 5), i, np.uint8)
    return Item(pixels, i % 3, {"y": np.full(2, i, np.float32)}, {"by": i % 2})


@pytest.fixture(scope="module")
def speed() -> Iterator[None]:
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cells, "rates", property(lambda cells: (cells.made.problem(), RATES)))
        yield


@pytest.fixture(scope="module")
def done(speed, tmp_path_factory) -> tuple[Path, Any]:
    """A folder with a model, images and all that is stored, and what is read of that."""
    folder = tmp_path_factory.mktemp("stored")
    folders.save_ddpm(folder / "model")
    folders.save_images(folder / "images", folders.colours(N))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDABENCH_HOME", str(folder / "home"))
        null = {"y": torch.zeros(2)}
        write_items(store_folder("dots", "1"), N, item, lambda _: None, null, {"commit": "c"}, {"by": ["ann", "bob"]})
        return folder, (stored(), attributed(folder, folder / "results"))


def stored() -> list[Any]:
    """Return all that a stored dataset holds."""
    found = open_items(store_folder("dots", "1"))
    arrays = [whole(found.images), found.classes, whole(found.cond["y"]), found.groups["by"], found.null["y"]]
    return [[array.tolist() for array in arrays], found.group_names, found.source]


def attributed(folder: Path, results: Path) -> list[Any]:
    """Return the images of a request, the names of their files, and what its budget leaves."""
    asked = Request(folder / "model", folder / "images", generate=2, top=3, minutes=0.2)
    made = make(asked)
    cells = budget.fitted(Cells(made, sized(check(asked, "cpu", 1, 8, "float32"), made), Results(results)))
    images = whole(made.own.data.images).tolist()
    return [images, made.own.files, made.own.order.tolist(), cells.params, cells.too_large, cells.notes]


def tried(folder: Path, results: Path) -> tuple[Any, str]:
    """Return what is read now, or what is said in its place."""
    try:
        return (stored(), attributed(folder, results)), ""
    except UserError as error:
        return None, str(error)


@pytest.mark.parametrize("case", [pytest.param(i, marks=pytest.mark.slow if i else ()) for i in range(len(SPOILS))])
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_named_or_changes_nothing(kind, case, done, tmp_path, monkeypatch):
    rng = numpy_generator("faults", kind, case)
    home = Path(shutil.copytree(done[0] / "home", tmp_path / "home"))
    monkeypatch.setenv("TDABENCH_HOME", str(home))
    files = sorted(home.glob(KINDS[kind]))
    assert files, f"no file is {KINDS[kind]}"
    for path in files:
        before = path.read_bytes()
        path.write_bytes(SPOILS[case](before, rng))
        found, said = tried(done[0], tmp_path / "results")
        named = "\n" not in said and str(path.parent) in said
        assert named or found == done[1], f"{path} was changed, and so was what is read: {said or 'without a word'}"
        path.write_bytes(before)
