"""The command `tdabench leaderboard` on views and READMEs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tdabench.benchmark.commands.cli import app
from tdabench.errors import UserError
from tdabench.leaderboard.readme import update_readme
from tdabench.leaderboard.rows import reported
from tdabench.leaderboard.rows.files import load_rows, write_row
from tdabench.leaderboard.views.catalogue import build_view
from tdabench.leaderboard.views.sheet import render
from tdabench.store import FolderStore

from ...leaderboard.helpers import OTHER_VIEWS, lds_row, make_key, readme, removal_rows


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for one in removal_rows():
        write_row(FolderStore(tmp_path / "results"), one)
    return tmp_path / "results"


def command(*words: str | Path) -> Any:
    return CliRunner().invoke(app, ["leaderboard", *map(str, words)])


@pytest.mark.parametrize("view", OTHER_VIEWS)
def test_command_prints_a_view(view: str, results: Path) -> None:
    answer = command("digits", "--results", results, "--view", view, "--format", "json")
    assert answer.exit_code == 0
    assert json.loads(answer.output) == json.loads(render(build_view(view, removal_rows()), "json"))
    loss = command("--results", results, "--view", "removal", "--similarity", "loss")
    assert "loss×1000" in loss.output


def test_command_compares_with_rows_on_open_subsets_which_it_does_not_show(tmp_path: Path) -> None:
    for query_set, mean in (("test", 0.6), ("dev", 0.1)):
        write_row(FolderStore(tmp_path), lds_row(heldout=mean, key=make_key(query_set=query_set)))
    assert "above-open" in command("--results", tmp_path).output
    assert "above-open" not in command("--results", tmp_path, "--queries", "dev").output


def test_command_writes_all_views_into_a_readme(results: Path, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(readme("leaderboard", "removal", "overlap"))
    assert command("--results", results, "--readme", path).exit_code == 0
    assert path.read_text() == update_readme(readme("leaderboard", "removal", "overlap"), removal_rows())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--view", "removl"), "--view 'removl' is none of lds, tasks, agreement, groups"),
        (("--view", "removal", "--similarity", "sim"), "unknown similarity 'sim'"),
        (("--readme", "README.md", "--view", "removal"), "--readme writes every marked view of the test rows"),
    ],
)
def test_a_mistake_in_the_command_is_one_line(words: tuple[str, ...], said: str, results: Path) -> None:
    error = command("--results", results, *words).exception
    assert isinstance(error, UserError) and said in str(error)


def test_reported_numbers_follow_the_rows_of_their_task_and_change_no_rank(tmp_path: Path) -> None:
    for method, score in (("trak", 0.1), ("d-trak", 0.2)):
        row = lds_row(method, score, key=make_key(method, task="cifar2"))
        write_row(FolderStore(tmp_path / "results"), row)
    answer = command("cifar2", "--results", tmp_path / "results")
    assert answer.exit_code == 0
    (ours,) = build_view("lds", load_rows(tmp_path / "results"))
    before, title, after = answer.output.partition("cifar2@1, reported by its authors and not measured here")
    assert title and before.strip() == render([ours], "table", 120).strip()
    assert "33.74 ± 0.37" in after and "33.74" not in before
    plain = command("cifar2", "--results", tmp_path / "results", "--format", "json")
    assert json.loads(plain.output) == json.loads(render([ours], "json"))


def test_reported_numbers_are_shown_alone(tmp_path: Path) -> None:
    for words in ((), ("cifar2",), ("cifar2@1", "--format", "markdown")):
        answer = command(*words, "--reported")
        assert answer.exit_code == 0 and "25.67 ± 0.40" in answer.output and "Rank" not in answer.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("digits", "--reported"), "no numbers are reported of 'digits': there are those of cifar2@1"),
        (("--reported", "--view", "removal"), "--reported shows no rows: of the other options leave only --format"),
        (("--reported", "--readme", "README.md"), "--reported shows no rows"),
        (("--reported", "--results", "."), "--reported shows no rows"),
        (("--reported", "--format", "pdf"), "--format 'pdf' is none of table, markdown, json, csv"),
        (("cifar2",), "run `tdabench run` first; --reported shows what others did"),
    ],
)
def test_a_mistake_about_reported_numbers_is_one_line(words: tuple[str, ...], said: str) -> None:
    error = command(*words).exception
    assert isinstance(error, UserError) and said in str(error)


def test_a_broken_table_of_reported_numbers_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cifar2@1.json").write_text('{"task": "cifar2"')
    monkeypatch.setattr(reported, "REPORTED", tmp_path)
    error = command("--reported").exception
    assert isinstance(error, UserError) and "cifar2@1.json cannot be read as JSON" in str(error)
