"""The self-check: what its problem holds, what it counts, and that it is made once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import tdabench
from tdabench.benchmark.attribution import self_check
from tdabench.benchmark.attribution.cells import Cells, check, sized
from tdabench.benchmark.attribution.problem import make
from tdabench.benchmark.attribution.request import Request
from tdabench.benchmark.attribution.self_check import Check
from tdabench.benchmark.run.results import Results
from tdabench.datasets.own.items import FILE
from tdabench.errors import UserError
from tdabench.models.problem import read_problem

from ...models import folders

N, CASES = 20, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("self-check")
    folders.save_ddpm(folder / "model")
    folders.save_images(folder / "images", folders.colours(N))
    folders.save_images(folder / "held", folders.colours(3, seed=7))
    return folder


@pytest.fixture(autouse=True)
def small(folder, monkeypatch):
    monkeypatch.setenv("TDABENCH_HOME", str(folder / "home"))
    monkeypatch.setattr(self_check, "PLAN", replace(self_check.PLAN, cases=CASES, strengths=(3.0,)))
    monkeypatch.setattr(self_check, "run_jobs", lambda run, jobs, n: ((job, run(job)) for job in jobs))  # here: faster
    torch.set_num_threads(1)


def checked_of(folder, **more):
    asked = Request(folder / "model", folder / "images", generate=1, top=3, self_check=True, methods=("pixel",), **more)
    made = make(asked)
    return Check(Cells(made, sized(check(asked, "cpu", 1, 8, "float32"), made), Results(folder / "results")))


def images(own, ids):
    return own.data.pixels(torch.tensor(ids))


def test_drawn_images_are_training_images_upside_down_that_are_not_among_the_others(folder):
    found = checked_of(folder)
    own, n = found.own
    assert n == N - CASES and len(own.data) == N
    training = {image.numpy().tobytes() for image in folders.colours(N)}
    planted = (own.data.groups[FILE] >= n).nonzero().flatten().tolist()
    beside = {images(own, [i])[0].numpy().tobytes() for i in range(N) if i not in planted}
    assert len(planted) == CASES and beside < training
    for i in planted:
        upright = images(own, [i])[0].flip(1).numpy().tobytes()
        assert upright in training - beside


def test_given_images_are_planted_as_they_are(folder):
    found = checked_of(folder, held_out=folder / "held")
    own, n = found.own
    planted = (own.data.groups[FILE] >= n).nonzero().flatten().tolist()
    held = {image.numpy().tobytes() for image in folders.colours(3, seed=7)}
    assert {images(own, [i])[0].numpy().tobytes() for i in planted} == held


def test_the_problem_shows_training_images_again(folder):
    found = checked_of(folder)
    problem = read_problem(found.assets.folder)
    assert len(problem.train) == N - CASES and set(problem.queries.roles) == {self_check.AGAIN}
    for source, x in zip(problem.queries.source, problem.queries.x, strict=True):
        assert torch.equal(problem.train.batch(torch.tensor([source])).x[0], x)


def test_a_check_counts_what_scores_find_and_is_made_once(folder, monkeypatch):
    asked = {"generate": 1, "methods": ["pixel", "random"], "top": 3, "jobs": 1, "self_check": True}
    found = tdabench.attribute(folder / "model", folder / "images", **asked).self_check
    assert found.samples == 2 * CASES and found.items == N - CASES + 1
    values = found.values["pixel:distance"]
    assert values["first"] == found.shown == 5  # an image is nearest to itself
    cells = checked_of(folder)
    truth, best = cells.truth, 0
    for case in truth.cases:  # the ten nearest, from the pixels themselves
        problem = read_problem(truth.assets(case).folder)
        train = problem.train.pixels(torch.arange(found.items)).double().flatten(1)
        for sample in problem.queries.pixels.double().flatten(1):
            nearest = np.argsort((train - sample).norm(dim=1).numpy())[:10]
            best += int(found.items - 1 in nearest)  # a case's exemplar is its last item
    assert values["found"] == best
    assert f"pixel:distance {best:.3g}" in found.line and "by chance 2.1" in found.line
    assert [row[0] for row in found.rows] == ["pixel:distance", "random:quick"]
    monkeypatch.setattr("tdabench.benchmark.attribution.self_check.run_jobs", lambda *a: pytest.fail("tuned again"))
    monkeypatch.setattr("tdabench.benchmark.run.runner.Runner._start", lambda *a: pytest.fail("ran again"))
    assert tdabench.attribute(folder / "model", folder / "images", **asked).self_check == found


def test_held_out_images_of_which_none_can_be_read_are_named(folder):
    (folder / "torn").mkdir(exist_ok=True)
    (folder / "torn" / "0.png").write_bytes(b"no")
    with pytest.raises(UserError, match=r"none of the images of .*torn can be read"):
        checked_of(folder, held_out=folder / "torn").truth  # noqa: B018 - it is made when it is asked for


def test_held_out_images_that_are_not_there_are_named(folder):
    with pytest.raises(UserError, match="there is no folder nowhere"):
        checked_of(folder, held_out="nowhere").own  # noqa: B018 - it is read when it is asked for
