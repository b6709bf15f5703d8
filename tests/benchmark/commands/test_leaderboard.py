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
from tdabench.leaderboard.rows.files import write_row
from tdabench.leaderboard.views.catalogue import build_view
from tdabench.leaderboard.views.sheet import render
from tdabench.store import FolderStore

from ...leaderboard.helpers import OTHER_VIEWS, readme, removal_rows


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


def test_command_writes_all_views_into_a_readme(results: Path, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(readme("leaderboard", "removal", "overlap"))
    assert command("--results", results, "--readme", path).exit_code == 0
    assert path.read_text() == update_readme(readme("leaderboard", "removal", "overlap"), removal_rows())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--view", "removl"), "--view 'removl' is none of lds, tasks, groups, removal"),
        (("--view", "removal", "--similarity", "sim"), "unknown similarity 'sim'"),
        (("--readme", "README.md", "--view", "removal"), "--readme writes every marked view of the test rows"),
    ],
)
def test_a_mistake_in_the_command_is_one_line(words: tuple[str, ...], said: str, results: Path) -> None:
    error = command("--results", results, *words).exception
    assert isinstance(error, UserError) and said in str(error)
