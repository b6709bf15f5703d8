"""The command `tdabench report` (docs/leaderboard-page.md): what it writes, which pictures it may show, the server."""

from __future__ import annotations

import base64
import io
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tdabench.benchmark.commands.cli import app
from tdabench.benchmark.commands.report import command, server
from tdabench.benchmark.commands.report.facts import known_facts
from tdabench.benchmark.commands.report.sprites import sprite_of
from tdabench.datasets.find import card_of, dataset_listings
from tdabench.datasets.truth import SHIPPED
from tdabench.errors import UserError
from tdabench.leaderboard.rows.files import RESULTS, load_rows, write_row
from tdabench.models.problem import read_problem
from tdabench.store import FolderStore

from ...leaderboard.helpers import lds_row, lds_rows, removal_rows
from ...leaderboard.page.helpers import data_of


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for row in lds_rows():
        write_row(FolderStore(tmp_path / "results" / "rows"), row)
    return tmp_path / "results"


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(app, ["report", *map(str, words)])


def test_it_writes_the_page_and_a_badge_for_each_ranked_method(results: Path, tmp_path: Path) -> None:
    answer = run("--results", results, "-o", tmp_path / "site")
    assert answer.exit_code == 0 and "7 rows" in answer.output
    page = (tmp_path / "site" / "index.html").read_text()
    assert data_of(page)["tasks"][0]["label"] == "digits@1"
    assert "Optical Recognition of Handwritten Digits" in page and "MUCS, arXiv" in page
    badges = {path.name: path.read_text() for path in (tmp_path / "site" / "badges").iterdir()}
    assert set(badges) == {f"digits@1-{name}.svg" for name in ("mucs-retain", "d-trak", "ek-fac", "random")}
    title = ElementTree.fromstring(badges["digits@1-mucs-retain.svg"]).find("{http://www.w3.org/2000/svg}title")
    assert title is not None and title.text == "tdabench digits@1, mucs-retain:paper: rank 1 of 4"


def test_figures_are_files_of_the_same_drawings(tmp_path: Path) -> None:
    for row in removal_rows():
        write_row(FolderStore(tmp_path / "rows"), row)
    assert run("--results", tmp_path / "rows", "--figures", tmp_path / "figures").exit_code == 0
    files = {path.name for path in (tmp_path / "figures").glob("*.svg")}
    assert files == {f"digits@1-{name}.svg" for name in ("removal-loss", "removal-ssim", "removal-one-ssim", "overlap")}
    for path in (tmp_path / "figures").glob("*.svg"):
        assert "<style>" in path.read_text() and ElementTree.parse(path).getroot().tag.endswith("svg")
    assert not (tmp_path / "site").exists()


def test_pdf_where_matplotlib_is_there(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert run("--results", results, "--figures", tmp_path).exit_code == 0
    assert {path.stem for path in tmp_path.glob("*.pdf")} == {path.stem for path in tmp_path.glob("*.svg")}
    assert all(path.read_bytes().startswith(b"%PDF") for path in tmp_path.glob("*.pdf"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--pictures", "fre"), "unknown --pictures 'fre': did you mean 'free'"),
        (("--results", "nowhere"), "results folder nowhere does not exist"),
        (("--serve", "-o", "site"), "--serve writes nothing"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(words, said, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    error = run(*words).exception
    assert isinstance(error, UserError) and said in str(error) and not list(tmp_path.iterdir())


def test_a_file_that_is_no_row_and_no_rows_are_one_line(results: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no rows to report" in str(run("--results", tmp_path / "empty", "-o", tmp_path / "site").exception)
    (results / "rows" / "bad.json").write_text("{")
    assert "bad.json is not valid JSON" in str(run("--results", results, "-o", tmp_path / "site").exception)
    assert not (tmp_path / "site").exists()


def test_pictures_in_the_sprite_are_the_datas() -> None:
    folder = SHIPPED / "digits@1"
    sprite = sprite_of(folder, load_rows(RESULTS, "digits@1"), ())
    image = np.array(Image.open(io.BytesIO(sprite.png)).convert("RGB"), dtype=float)
    problem = read_problem(folder)
    test = problem.queries.where("test")
    places = [(sprite.items[item], problem.train.pixels(torch.tensor([item]))[0]) for item in list(sprite.items)[::97]]
    places += [(sprite.queries[query], test.pixels[i]) for i, query in enumerate(test.ids)]
    for place, picture in places:
        x, y = (sprite.tile * (place % sprite.columns), sprite.tile * (place // sprite.columns))
        shown = image[y : y + 8, x : x + 8].mean(2)
        assert sprite.tile == 8 and np.abs(shown - (picture[0].clamp(-1, 1).numpy() + 1) * 127.5).max() < 9


def test_only_pictures_that_anybody_may_show_are_in_the_page() -> None:
    cards = {name: card_of(one) for name, one in dataset_listings().items()}
    shown = {name for name, card in cards.items() if card.get("shareable")}
    assert shown == {"digits", "digits_classes", "fashion_mnist"}
    rows = load_rows(RESULTS, "digits-edm")
    free, none = (known_facts(rows, word, ()).tasks["digits-edm@1"] for word in ("free", "none"))
    assert free.sprite is not None and base64.b64encode(free.sprite.png) and none.sprite is None
    other = [lds_row("trak", key=rows[0].key.model_copy(update={"task": "emoji"}))]
    kept = known_facts(other, "free", ()).tasks["emoji@1"]
    assert kept.sprite is None and "licence" in kept.no_pictures


def test_pictures_of_another_truth_are_not_shown() -> None:
    rows = [lds_row("trak")]  # whose truth is no shipped one
    facts = known_facts(rows, "free", ()).tasks["digits@1"]
    assert facts.sprite is None and "another than that of the rows" in facts.no_pictures


def test_methods_are_described_by_their_files() -> None:
    found = known_facts(load_rows(RESULTS, "digits-edm"), "none", ()).methods["mucs"]
    assert found.citation.startswith("MUCS, arXiv 2605.17938") and found.origin == "methods/mucs.py"
    assert found.summary.startswith("How much each training image's loss rises") and "The port's" in found.details
    assert found.needs == ("recipe", "gradients") and "paper" in found.presets


@pytest.fixture
def served(results: Path):
    asked = command.Asked(results, "none", ())
    running = server.make_server(lambda: asked.folder, lambda: command.content(asked).page(live=True), 0)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}", results / "rows"
    running.shutdown()
    running.server_close()
    thread.join()


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_served_page_changes_as_rows_appear(served) -> None:
    url, rows = served
    before = get(f"{url}/version")
    assert get(f"{url}/version") == before and before[0] == 200
    status, page = get(f"{url}/")
    assert status == 200 and "newcomer" not in page and 'fetch("version")' in page
    write_row(FolderStore(rows), lds_row("newcomer", 0.6, 0.5))
    assert get(f"{url}/version") != before
    assert "newcomer" in get(f"{url}/")[1]


def test_the_server_waits_for_rows_and_gives_no_other_file(served) -> None:
    url, rows = served
    assert get(f"{url}/../rows")[0] == 404 == get(f"{url}/rows")[0]
    for path in rows.rglob("*.json"):
        path.unlink()
    status, text = get(f"{url}/")
    assert status == 503 and "no rows to report" in text
    write_row(FolderStore(rows), lds_row("first", 0.6, 0.5))
    assert get(f"{url}/")[0] == 200


def test_a_taken_port_is_one_line(served) -> None:
    port = int(served[0].rsplit(":", 1)[1])
    with pytest.raises(UserError, match=f"cannot serve on port {port}"):
        server.make_server(lambda: Path("."), str, port)
