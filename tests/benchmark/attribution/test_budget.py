"""Budgets: what is chosen fits, is as little less as is needed, and is chosen once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tdabench.benchmark.attribution import budget
from tdabench.benchmark.attribution.budget import fitted, spent
from tdabench.benchmark.attribution.cells import Cells, check, room, sized
from tdabench.benchmark.attribution.problem import make
from tdabench.benchmark.attribution.request import Request, parse_memory
from tdabench.benchmark.run.forecast import Rates, forecast
from tdabench.benchmark.run.results import Results
from tdabench.errors import UserError
from tdabench.store import FolderStore

from ...models import folders

GIB = 2**30
RATES = Rates(forward=0.01, trained=0.03, per_sample=0.05, setup=1.0)  # a slow machine


@pytest.fixture(scope="module")
def request_(tmp_path_factory):
    folder = tmp_path_factory.mktemp("budget")
    folders.save_ddpm(folder / "model")
    folders.save_images(folder / "images", folders.colours(30))
    return Request(folder / "model", folder / "images", generate=2, top=3), folder


@pytest.fixture
def cells_of(request_, monkeypatch):
    """Return a function that makes cells under a budget, on a machine of known speed."""
    request, folder = request_
    monkeypatch.setenv("TDABENCH_HOME", str(folder / "home"))
    monkeypatch.setattr(Cells, "rates", property(lambda cells: (cells.made.problem(), RATES)))
    torch.set_num_threads(1)

    def cells(**budget):
        asked = replace(request, **budget)
        made = make(asked)
        return fitted(Cells(made, sized(check(asked, "cpu", 1, 8, "float32"), made), Results(folder / "results")))

    return cells


def seconds(cells):
    return {str(item.planned.entry): item.seconds for item in forecast(cells.possible, *cells.rates)}


def test_without_a_budget_presets_stay(cells_of):
    cells = cells_of()
    assert (
        not cells.params
        and not cells.notes
        and set(seconds(cells))
        == {
            "pixel:distance",
            "d-trak:quick",
            "mucs:quick",
        }
    )


def test_what_is_chosen_fits_and_twice_as_much_would_not(cells_of):
    whole = sum(seconds(cells_of()).values())
    limit = 0.5 * whole
    cells = cells_of(minutes=limit / 60)
    assert sum(seconds(cells).values()) <= limit
    changed = {str(cell.entry): cell.params for cell in cells.possible}
    mucs = changed["mucs:quick"]
    assert any(line.startswith("to fit") and "mucs:quick gave up" in line for line in cells.notes)
    lost = [name for name in ("draws", "max_steps", "batch") if f"{name} " in cells.notes[-1]]
    bigger = [replace(mucs, **{name: 2 * getattr(mucs, name)}) for name in lost]
    others = sum(value for entry, value in seconds(cells).items() if entry != "mucs:quick")
    (planned,) = [cell for cell in cells.possible if cell.key.method == "mucs"]
    again = forecast([replace(planned, params=params) for params in bigger], *cells.rates)
    assert lost and max(item.seconds for item in again) + others > limit


def test_what_cannot_fit_is_left_out_and_named(cells_of):
    cells = cells_of(minutes=2.5 / 60)  # a start of pixel and of another already take 2 s
    assert [str(cell.entry) for cell in cells.possible] == ["pixel:distance"]
    assert all("--minutes" in cells.obstacles[entry] for entry in ("d-trak:quick", "mucs:quick"))


def test_memory_shrinks_projections(cells_of):
    whole = cells_of()
    (before,) = [cell for cell in whole.possible if cell.key.method == "d-trak"]
    enough = replace(before, params=replace(before.params, proj_dim=1024))
    needed = forecast([enough], *whole.rates)[0].estimate.bytes + 1
    beside = GIB - room(cells_of(memory=1).made, 1)  # packages and the model, of one GiB
    cells = cells_of(memory=(beside + needed / 0.75) / GIB)  # a quarter is left to passes
    (found,) = [cell for cell in cells.possible if cell.key.method == "d-trak"]
    assert found.params == enough.params
    assert any("proj_dim 4096 -> " in line for line in cells.notes)


def test_too_little_memory_says_how_much(cells_of):
    cells = cells_of(memory=0.01)
    assert not cells.possible and all("GiB at the least" in reason for reason in cells.obstacles.values())


def test_a_shortlist_is_taken_before_a_method_is_left_out(cells_of, monkeypatch):
    monkeypatch.setattr(budget, "SHORTLIST", 4)
    limit = 7.6  # whole, pixel and the least of mucs take 8.0 s at these rates; with 8 images, 7.1 s
    cells = cells_of(methods=("pixel", "mucs"), minutes=limit / 60)
    assert (cells.too_large, cells.shortlist, [cell.key.method for cell in cells.narrowed]) == ({}, 4, ["mucs"])
    assert sum(item.seconds for item in cells.forecasts()) <= limit < sum(seconds(cells).values())
    assert any("a shortlist is scored, of 4 images for each picture" in line for line in cells.remarks)
    alone = cells_of(methods=("mucs",), minutes=limit / 60 - 0.02)
    assert not alone.possible and "--minutes" in alone.obstacles["mucs:quick"]


def test_a_cell_has_one_process():
    assert spent([60.0, 10.0], 2) == 60.0 and spent([30.0] * 4, 2) == 60.0 and spent([30.0, 10.0], 1) == 40.0


def test_a_slower_moment_chooses_the_same_again(cells_of, monkeypatch):
    first = cells_of(minutes=0.2)
    slow = replace(RATES, per_sample=5.0, forward=5.0)
    monkeypatch.setattr(Cells, "rates", property(lambda cells: (cells.made.problem(), slow)))
    again = cells_of(minutes=0.2)
    assert [cell.identity for cell in again.asked] == [cell.identity for cell in first.asked]
    assert again.notes == first.notes and again.obstacles == first.obstacles


def foreign(found):
    """Add a method that was not asked for."""
    return {**found, "params": {**found["params"], "trak:quick": {}}}


EDITS = {
    "list": lambda found: [],
    "renamed": lambda found: {"parameters" if name == "params" else name: value for name, value in found.items()},
    "foreign": foreign,
    "draws": lambda found: {**found, "params": {name: {**one, "draws": 7} for name, one in found["params"].items()}},
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edited_choice_is_set_aside_and_made_again(cells_of, request_, what, capsys):
    home = FolderStore(request_[1] / "home" / "attribution" / "problems")
    for path in home.path("budgets").glob("*"):
        path.unlink()
    first = cells_of(minutes=0.2)
    (key,) = (key for key in home.keys("budgets") if key.endswith(".json"))
    home.put_json(key, EDITS[what](home.get_json(key)))
    again = cells_of(minutes=0.2)
    assert "is damaged: set aside as" in capsys.readouterr().err
    assert [cell.identity for cell in again.asked] == [cell.identity for cell in first.asked]
    assert again.notes == first.notes and again.params == first.params


@pytest.mark.parametrize(("text", "gib"), [("8GB", 8.0), ("512 MiB", 0.5), ("2", 2.0), ("", 0.0)])
def test_sizes_of_memory(text, gib):
    assert parse_memory(text) == gib


def test_nonsense_is_refused():
    with pytest.raises(UserError, match="--minutes and --memory must be positive"):
        Request("m", "i", generate=1, minutes=-1).check()
    with pytest.raises(UserError, match="--held-out is for --self-check"):
        Request("m", "i", generate=1, held_out="there").check()
