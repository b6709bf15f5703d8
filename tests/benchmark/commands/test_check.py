"""The command check (docs/ci.md): exit codes, files, and mistakes as one line."""

from __future__ import annotations

import json

import pytest

from tdabench import __version__
from tdabench.leaderboard.check.formats import FORMATS
from tdabench.leaderboard.rows.files import RESULTS, load_rows, write_row
from tdabench.store import FolderStore

from ... import run_helpers

tdabench = run_helpers.tdabench
PIXEL = "digits@1/pixel@1"


@pytest.fixture
def current(tmp_path):
    """The committed rows of `pixel`, as a run's folder that a test may spoil."""
    store = FolderStore(tmp_path / "run" / "rows")
    for row in load_rows(RESULTS, "digits@1"):
        if row.key.method == "pixel":
            write_row(store, row)
    return tmp_path / "run"


def edit(folder, change):
    store = FolderStore(folder / "rows")
    for row in load_rows(store):
        write_row(store, change(row))


def greedy(row):
    return row.model_copy(update={"cost": row.cost.model_copy(update={"forward_passes": {"fit": 0, "attribute": 1}})})


def test_the_committed_rows_against_themselves_pass(tdabench, current):
    answer = tdabench("check", "--current", current)
    assert answer.code == 0 and "3 cells compared" in answer.out and "nothing is worse" in answer.out


def test_one_more_pass_fails(tdabench, current):
    edit(current, greedy)
    answer = tdabench("check", "--current", current, "--baseline", RESULTS, "--format", "github")
    assert answer.code == 1 and answer.out.count("::error") == 3 and "forward passes" in answer.out


def test_nothing_compared_fails(tdabench, current):
    answer = tdabench("check", "--current", current, "--task", "digits-edm")
    assert answer.code == 1 and "othing compared" in answer.out


@pytest.mark.parametrize("format", FORMATS)
def test_a_report_goes_into_a_file_whole(format, tdabench, current, tmp_path):
    answer = tdabench("check", "--current", current, "--format", format, "-o", tmp_path / "report")
    assert answer.code == 0 and (tmp_path / "report").read_text()
    if format == "json":
        assert json.loads((tmp_path / "report").read_text())["passed"] is True


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "html"], ["--format 'html'", "junit"]),
        (["--current", "nowhere"], ["nowhere", "does not exist"]),
        (["--time-factor", "0.5"], ["--time-factor", "at least 1"]),
        (["--fall", "nan"], ["--fall"]),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line(words, said, tdabench, current):
    answer = tdabench("check", *(["--current", current] if "--current" not in words else []), *words)
    lines = answer.err.strip().splitlines()
    assert answer.code == 2 and len(lines) == 1 and lines[0].startswith("error: ")
    assert all(word in lines[0] for word in said)


def test_the_version_is_printed(tdabench):
    answer = tdabench("--version")
    assert answer.code == 0 and answer.out == f"tdabench {__version__}\n"
