"""Committed rows are those that the list beside them has hashes of, or are refused by name."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tdabench.benchmark.commands import leaderboard
from tdabench.benchmark.commands.adapters.seal_rows import BESIDE
from tdabench.benchmark.commands.cli import app
from tdabench.errors import CorruptFile
from tdabench.leaderboard.rows import files, reported
from tdabench.leaderboard.rows.files import RESULTS, load_rows, seal_rows, write_row
from tdabench.leaderboard.rows.listed import list_of
from tdabench.store import FolderStore

from ..helpers import lds_row, make_key


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A folder of two rows with its list."""
    for seed in (0, 1):
        write_row(FolderStore(tmp_path / "rows"), lds_row(key=make_key(seed=seed)))
    assert seal_rows(tmp_path / "rows") == (tmp_path / "rows.sha256", 2)
    return tmp_path / "rows"


def better(rows: Path) -> None:
    path = next(rows.rglob("*.json"))
    row = json.loads(path.read_text())
    lds = row["metrics"]["lds"]["heldout"]
    lds.update(
        values=[0.5] * len(lds["values"]), mean=0.5, low=0.5, high=0.5, replicates=[0.5] * len(lds["replicates"])
    )
    path.write_text(json.dumps(row))


def relist(rows: Path, change: str) -> None:
    path = list_of(rows)
    lines = path.read_text().splitlines(keepends=True)
    others = {name: re.sub(r"(?m)^[0-9a-f]{64}", 64 * to, "".join(lines)) for name, to in (("low", "0"), ("high", "f"))}
    spoilt = {"shorter": lines[0], "empty": "", "none": "nonsense\n", "upper": path.read_text().upper()}
    path.write_text((spoilt | others)[change])


CHANGES = {
    "edited": (better, "was edited or damaged"),
    "added": (lambda rows: write_row(FolderStore(rows), lds_row(key=make_key(seed=2))), "is not listed"),
    "gone": (lambda rows: next(rows.rglob("*.json")).unlink(), "but not there"),
    "a line gone": (lambda rows: relist(rows, "shorter"), "is not listed"),
    "an empty list": (lambda rows: relist(rows, "empty"), "is not listed"),
    "no list of hashes": (lambda rows: relist(rows, "none"), "is no list"),
    "a lower hash": (lambda rows: relist(rows, "low"), "was edited or damaged"),
    "a higher hash": (lambda rows: relist(rows, "high"), "was edited or damaged"),
    "hashes of another form": (lambda rows: relist(rows, "upper"), "is no list"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_not_as_listed_is_refused_until_it_is_listed_again(name: str, rows: Path) -> None:
    change, said = CHANGES[name]
    change(rows)
    answer = CliRunner().invoke(app, ["leaderboard", "--results", str(rows)])
    assert isinstance(answer.exception, CorruptFile) and said in str(answer.exception), answer
    assert "seal-rows" in str(answer.exception) and "rows.sha256" in str(answer.exception)
    assert CliRunner().invoke(app, ["seal-rows", str(rows)]).exit_code == 0
    assert CliRunner().invoke(app, ["leaderboard", "--results", str(rows)]).exit_code == 0


def test_committed_rows_are_refused_without_their_list(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list_of(rows).unlink()
    assert len(load_rows(rows)) == 2
    monkeypatch.setattr(files, "RESULTS", rows)
    with pytest.raises(CorruptFile, match=r"rows\.sha256 is missing"):
        load_rows(rows, "another-task")


@pytest.fixture
def committed(rows: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like that of the leaderboard, with copies of what is committed beside the rows; nothing is sealed."""
    monkeypatch.setattr(leaderboard, "RESULTS", rows)
    monkeypatch.setattr(reported, "REPORTED", rows.parent / "reported")
    for folder in (RESULTS.parent / name for name in BESIDE):
        shutil.copytree(folder, rows.parent / folder.name)
    return rows.parent


def test_reported_numbers_that_are_not_as_listed_are_refused(committed: Path) -> None:
    def shown() -> Any:
        return CliRunner().invoke(app, ["leaderboard", "--reported"])

    def refused(said: str) -> None:
        error = shown().exception
        assert isinstance(error, CorruptFile) and said in str(error) and "seal-rows" in str(error)

    refused("reported.sha256 is missing")
    assert CliRunner().invoke(app, ["seal-rows"]).exit_code == 0
    assert shown().exit_code == 0
    path = committed / "reported" / "cifar2@1.json"
    path.write_text(path.read_text().replace("25.67", "35.67"))
    refused("cifar2@1.json was edited or damaged")
    path.rename(path.with_suffix(".bak"))
    refused("is listed in reported.sha256, but not there")


def test_all_that_is_committed_is_listed_at_once(committed: Path) -> None:
    list_of(committed / "rows").unlink()
    assert CliRunner().invoke(app, ["seal-rows"]).exit_code == 0
    assert {path.name for path in committed.glob("*.sha256")} == {f"{name}.sha256" for name in ("rows", *BESIDE)}
    for name in BESIDE:
        assert list_of(committed / name).read_bytes() == list_of(RESULTS.with_name(name)).read_bytes(), name


def test_a_table_that_is_none_is_not_listed(committed: Path) -> None:
    (committed / "reported" / "cifar2@1.json").write_text("{}")
    assert isinstance(CliRunner().invoke(app, ["seal-rows"]).exception, CorruptFile)
    assert not list_of(committed / "reported").exists()


def test_a_row_that_is_none_is_not_listed(rows: Path) -> None:
    before = list_of(rows).read_bytes()
    next(rows.rglob("*.json")).write_text("{}")
    assert isinstance(CliRunner().invoke(app, ["seal-rows", str(rows)]).exception, CorruptFile)
    assert list_of(rows).read_bytes() == before


@pytest.mark.parametrize("part", ["", "rows"])
def test_rows_of_a_run_have_hashes_of_their_own(part: str, rows: Path) -> None:
    (rows.parent / "results.json").write_text('{"schema_version": 1}')
    answer = CliRunner().invoke(app, ["seal-rows", str(rows.parent / part)])
    assert "is the folder of a run" in str(answer.exception)


def test_the_committed_list_is_what_would_be_written(tmp_path: Path) -> None:
    copied = shutil.copytree(RESULTS, tmp_path / RESULTS.name)
    path, n = seal_rows(copied)
    assert path.read_bytes() == list_of(RESULTS).read_bytes() and n == len(list(RESULTS.rglob("*.json")))
    assert all(re.fullmatch(r"[0-9a-f]{64}  results/\S+\.json", line) for line in path.read_text().splitlines())
