"""Pictures hold the images that they say they hold."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tdabench.benchmark.run.results import Results
from tdabench.models.problem import read_problem

from ... import run_helpers
from ...run_helpers import TASK, assets, run_cells

tiny_home, home, tdabench = run_helpers.tiny_home, run_helpers.home, run_helpers.tdabench

BAND, EDGE, ZOOM, SIDE, GAP = 16, 2, 6, 8, 8  # label, frame, enlargement, image and space between blocks, in pixels
CELL = SIDE * ZOOM + 2 * EDGE


@pytest.fixture
def folder(home, tmp_path):
    run_cells(tmp_path / "results", ["pixel:quick"])
    return tmp_path / "results"


def cell_at(picture: np.ndarray, row: int, left: int) -> np.ndarray:
    """Return the image in a cell, in [-1, 1] and its own size."""
    top = BAND + row * CELL + EDGE
    pixels = picture[top : top + SIDE * ZOOM : ZOOM, left + EDGE : left + EDGE + SIDE * ZOOM : ZOOM, 0]
    return pixels.astype(float) / 127.5 - 1


def test_queries_stand_beside_their_top_items(folder, tmp_path, tdabench) -> None:
    path = tmp_path / "top.png"
    words = "--methods", "pixel", "--results", folder, "--queries", 2, "--count", 3
    assert tdabench("show", path, TASK, *words).code == 0
    picture, problem = np.asarray(Image.open(path)), read_problem(assets().folder)
    top = Results(folder).all_rows()[0].metrics.top
    ids = dict(zip(top.query_ids, top.ids, strict=True))
    queries = problem.queries.where("test", "generated")
    assert picture.shape == (BAND + 2 * CELL, 4 * CELL + GAP, 3)
    for row, query in enumerate(queries.ids[:2]):
        shown = np.clip(queries.x[row, 0].numpy(), -1, 1)
        np.testing.assert_allclose(cell_at(picture, row, 0), shown, atol=0.01)
        for rank, item in enumerate(ids[query][:3]):
            found = cell_at(picture, row, CELL + GAP + rank * CELL)
            np.testing.assert_allclose(found, problem.train.images[item, 0].numpy(), atol=0.01)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--methods", "trak"), "no row of trak:quick with top items"),
        (("--methods", "pixel", "--count", 50), "has no 50 top items"),
    ],
)
def test_mistakes_are_one_line(folder, tmp_path, tdabench, words, says) -> None:
    answer = tdabench("show", tmp_path / "top.png", TASK, "--results", folder, *words)
    assert answer.code == 2 and says in answer.err and not (tmp_path / "top.png").exists()


def test_samples_stand_alone_or_beside_training_images(home, tmp_path, tdabench) -> None:
    for name, words in (("both", ()), ("alone", ("--alone",))):
        assert tdabench("truth", "samples", TASK, tmp_path / f"{name}.png", *words).code == 0
    both, alone = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("both", "alone"))
    np.testing.assert_array_equal(both[: len(alone), : alone.shape[1]], alone[: len(both)])
    problem = read_problem(assets().folder)
    generated = problem.queries.where(kind="generated")
    for i, made in enumerate(generated.pixels[:10]):
        left = i * CELL + EDGE
        shown = alone[EDGE : EDGE + SIDE * ZOOM : ZOOM, left : left + SIDE * ZOOM : ZOOM, 0] / 127.5 - 1
        np.testing.assert_allclose(shown, made[0].clamp(-1, 1).numpy(), atol=0.01)
    assert both.shape[1] > alone.shape[1]
