"""Shortlists: whose they are, which images are on them, and what is said of those that are not."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import tdabench
from tdabench.benchmark.attribution.agreement import agreements, top
from tdabench.benchmark.attribution.cells import Cells, check, scans, sized
from tdabench.benchmark.attribution.outputs.folder import report, write
from tdabench.benchmark.attribution.problem import make
from tdabench.benchmark.attribution.request import Request
from tdabench.benchmark.attribution.shortlist import narrowed_assets, placed, shortlisted
from tdabench.benchmark.run.results import Results
from tdabench.errors import UserError
from tdabench.methods.mucs import Mucs, Params
from tdabench.models.problem import read_problem

from ...models import folders

N, Q, TOP, LISTED = 24, 2, 3, 4
SLOW, FAST, OTHER = "mucs:quick", "pixel:distance", "grad-sim:quick"
NAN = np.nan


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shortlist")
    folders.save_ddpm(folder / "model")
    folders.save_images(folder / "images", folders.colours(N))
    folders.save_images(folder / "asked", folders.colours(Q, seed=3))
    return folder


@pytest.fixture(autouse=True)
def _quick(folder, monkeypatch):
    monkeypatch.setenv("TDABENCH_HOME", str(folder / "home"))
    monkeypatch.setitem(Mucs.presets, "quick", Params(draws=2, batch=4, max_steps=2))
    torch.set_num_threads(1)


def request_of(folder, *methods, **more):
    return Request(folder / "model", folder / "images", folder / "asked", methods=methods, top=TOP, **more)


def cells_of(folder, *methods, **more):
    asked = request_of(folder, *methods, **more)
    made = make(asked)
    return Cells(made, sized(check(asked, "cpu", 1, 8, "float32"), made), Results(folder / "results"))


@pytest.fixture
def answered(folder):
    words = {"methods": ["pixel", "mucs"], "top": TOP, "jobs": 1, "results": folder / "results"}

    def answered(shortlist=None):
        return tdabench.attribute(folder / "model", folder / "images", folder / "asked", shortlist=shortlist, **words)

    return answered


def test_methods_take_turns_and_no_image_twice():
    one, other = np.array([9, 8, 7, 0, 0.0], np.float32), np.array([0, 9, 1, 8, 7.0], np.float32)
    assert shortlisted([one, other], 4) == [0, 1, 3, 2]
    assert shortlisted([one, np.full(5, NAN, np.float32)], 2) == [0, 1]
    assert shortlisted([np.full(5, NAN, np.float32)], 2) == []


def test_only_methods_that_pass_over_all_images_for_each_picture_get_one(folder):
    cells = cells_of(folder, "pixel", "d-trak", "grad-sim", "trak", "mucs", "random", shortlist=LISTED)
    assert [str(cell.entry) for cell in cells.possible if scans(cell, cells.sizes)] == [SLOW]
    assert [cell.key.method for cell in cells.narrowed] == ["mucs"]
    assert [cell.key.method for cell in cells.rankers] == ["pixel", "d-trak", "grad-sim", "trak"]
    assert not cells_of(folder, "pixel", "mucs").narrowed


def test_images_on_the_list_have_scores_and_others_none(folder, answered, tmp_path):
    found = answered(LISTED)
    slow, fast = found.scores[SLOW], found.scores[FAST]
    expected = set(np.argsort(-fast, 1, kind="stable")[:, :LISTED].flatten().tolist())
    assert set(np.flatnonzero(np.isfinite(slow).all(0)).tolist()) == expected and len(expected) < N
    assert np.isnan(np.delete(slow, sorted(expected), 1)).all() and np.isfinite(fast).all()
    for query in range(Q):
        items = [one.item for one in found.top(SLOW, query)]
        assert items == sorted(expected, key=lambda item, q=query: (-slow[q, item], item))[:TOP]
    line = f"{SLOW}: a shortlist is scored, of {LISTED} images for each picture, those that {FAST} rank highest in turn"
    assert any(note.startswith(line) for note in found.notes) and not found.missing
    write(found, tmp_path / "out")
    with (tmp_path / "out" / "top.csv").open() as file:
        assert sum(row["method"] == SLOW for row in csv.DictReader(file)) == Q * TOP
    stored = load_file(tmp_path / "out" / "scores.safetensors")[SLOW]
    np.testing.assert_array_equal(stored, slow)
    assert line in (tmp_path / "out" / "index.html").read_text() and line in " ".join(report(found)["notes"])


def test_scores_are_those_of_a_model_whose_images_are_the_listed_ones(folder, answered):
    """By hand: the method on a view of a problem of these images alone, in the order of their ids."""
    from tdabench.methods.view import View, without_queries

    found = answered(LISTED)
    cells = cells_of(folder, "pixel", "mucs", shortlist=LISTED)
    (one,) = [one for one in placed(cells) if one.items is not None]
    whole = cells.made.problem()
    problem = replace(whole, train=whole.train.select(one.items))
    view = View(without_queries(problem), folder / "scratch", micro_batch=cells.options.micro_batch)
    method = Mucs(Mucs.presets["quick"])
    state = method.fit(view)
    by_hand = torch.cat([method.attribute(view, state, whole.queries.pick([i]).anonymous()) for i in range(Q)])
    places = {int(item): i for i, item in enumerate(cells.made.own.order)}
    columns = [places[item] for item in one.items.tolist()]
    np.testing.assert_allclose(found.scores[SLOW][:, columns], by_hand.numpy(), rtol=1e-4, atol=1e-6)


def test_the_narrowed_problem_holds_these_images_and_all_else(folder):
    made = cells_of(folder, "pixel").made
    ids = torch.tensor([1, 5, 20])
    problem, whole = read_problem(narrowed_assets(made, ids).folder), made.problem()
    assert torch.equal(problem.train.pixels(torch.arange(3)), whole.train.pixels(ids))
    assert problem.queries.ids == whole.queries.ids and torch.equal(problem.queries.x, whole.queries.x)
    (step,) = whole.checkpoints
    assert all(torch.equal(value, whole.weights[step][name]) for name, value in problem.weights[step].items())


def test_the_same_again_runs_nothing(answered, monkeypatch):
    first = answered(LISTED)
    monkeypatch.setattr("tdabench.benchmark.run.runner.Runner._start", lambda *a: pytest.fail("ran again"))
    np.testing.assert_array_equal(answered(LISTED).scores[SLOW], first.scores[SLOW])


def test_a_list_of_all_images_leaves_nothing_out(answered):
    found, whole = answered(N), answered()
    np.testing.assert_allclose(found.scores[SLOW], whole.scores[SLOW], rtol=1e-4, atol=1e-6)


def test_tops_and_agreement_are_of_what_both_score():
    one = np.array([[5, 4, 3, 2, 1, 0]], np.float32)
    other = np.array([[NAN, 1, NAN, 3, 2, NAN]], np.float32)
    assert top(other[0], 2) == (3, 4) and top(other[0], 6) == (3, 4, 1) and top(np.full(3, NAN), 2) == ()
    (pair,) = agreements({"one": one, "other": other}, 2)
    assert (pair.overlap, pair.chance) == (0.5, pytest.approx(2 / 3))  # {1, 3} and {3, 4} of 1, 3, 4
    assert pair.correlation == pytest.approx(-0.5)  # ranks 3 2 1 and 1 3 2


def test_nobody_to_make_a_list_is_said(folder):
    cells = cells_of(folder, "mucs", shortlist=LISTED)
    assert not cells.narrowed and any("needs" in remark for remark in cells.remarks)
    cells = cells_of(folder, "pixel", shortlist=LISTED)
    assert any("--shortlist changes nothing" in remark for remark in cells.remarks)
    with pytest.raises(UserError, match="--shortlist 2 is fewer than the 3 images of --top"):
        request_of(folder, "pixel", shortlist=2).check()
