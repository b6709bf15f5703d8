"""`tdabench verify-rows` (docs/truth.md) finds numbers that do not follow from scores and truth, or says why not."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load, save

from tdabench.datasets.truth import Assets
from tdabench.store import sha256

from ... import run_helpers
from ...run_helpers import plugin, run_cells

RUN = ("run", "digits-tiny", "--methods", "pixel", "--results")
tiny_home, home, tdabench = run_helpers.tiny_home, run_helpers.home, run_helpers.tdabench


@pytest.fixture(scope="module")
def finished(tiny_home, tmp_path_factory):
    """The results of one run, not to be written to, and the file of a method from outside."""
    folder = tmp_path_factory.mktemp("finished")
    given = [plugin(folder, "mine"), plugin(folder, "broken", "raise ValueError('no luck')")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDABENCH_HOME", str(tiny_home))
        run_cells(folder / "results", ["pixel", "mine", "broken"], given)
    return folder


@pytest.fixture
def results(finished, home, tmp_path):
    """A copy of them that a test may spoil."""
    return shutil.copytree(finished / "results", tmp_path / "results")


def edited(results, method, change):
    """Change a row by hand."""
    path = next((results / "rows").rglob(f"{method}@*/**/*.json"))
    row = json.loads(path.read_text())
    change(row)
    path.write_text(json.dumps(row))


def line(answer, method):
    return next(line for line in answer.out.splitlines() if f"/{method}@" in line)


def test_rows_as_they_were_run_agree(results, finished, tdabench):
    given = ("--plugin", finished / "mine.py", "--plugin", finished / "broken.py")
    answer = tdabench("verify-rows", results, *given)
    assert answer.code == 0 and "3 rows: 2 agree, 0 differ, 1 cannot be checked here" in answer.out, answer
    assert line(answer, "pixel").startswith("agrees") and line(answer, "mine").startswith("agrees")
    assert line(answer, "broken").startswith("unchecked") and "status error" in line(answer, "broken")


def better(row):
    """Claim one per cent more of one query, and the mean that goes with it."""
    lds = row["metrics"]["lds"]["heldout"]
    lds["values"][0] -= 0.03
    lds["mean"] = float(np.mean(lds["values"]))


def other_top(row):
    top = row["metrics"]["top"]["ids"][0]
    top[0], top[1] = top[1], top[0]


EDITS = {
    "values": (better, "metrics.lds.heldout.values.0 is claimed to be"),
    "interval": (lambda row: row["metrics"]["lds"]["heldout"].update(low=-1.0), "lds.heldout.low is claimed to be -1"),
    "ceiling": (lambda row: row["metrics"]["lds"]["generated"].update(ceiling=0.99), "lds.generated.ceiling"),
    "top items": (other_top, "metrics.top.ids.0.0"),
    "no top items": (lambda row: row["metrics"].update(top=None), "metrics.top"),
    "status": (lambda row: row.update(status="partial", reason="so"), "says partial, and ok follows"),
    "seconds": (lambda row: row["cost"].update(fit_s=0.0), "cost.fit_s is claimed to be 0.0"),
    "passes": (lambda row: row["cost"]["forward_passes"].update(attribute=7), "cost.forward_passes.attribute"),
    "seconds in all": (lambda row: row["cost"].update(wall_s=0.0), "cost.wall_s is claimed to be 0.0"),
    "isolation": (lambda row: row["source"].update(isolation="landlock 9"), "was edited or damaged"),
    "hash of scores": (lambda row: row["source"].update(scores_sha256="0" * 64), "not those whose hash"),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_row_that_was_edited_differs_with_the_figures(name, results, tdabench):
    change, said = EDITS[name]
    edited(results, "pixel", change)
    answer = tdabench("verify-rows", results)
    assert answer.code == 1 and "1 differ" in answer.out
    assert line(answer, "pixel").startswith("differs") and said in line(answer, "pixel")


def test_a_row_without_its_hash_is_refused_by_name_and_agrees_with_nothing(results, tdabench):
    edited(results, "pixel", lambda row: row["source"].update(isolation="landlock 9"))
    path = next((results / "rows").rglob("pixel@*/**/*.json"))
    path.with_name(f"{path.name}.sha256").unlink()
    for words in (("leaderboard", "--results", results), (*RUN, results)):
        answer = tdabench(*words)
        assert answer.code == 2 and f"{path} has no hash beside it" in answer.err, answer
        assert answer.err.count("\n") == 1
    for folder in (results, results / "rows"):
        answer = tdabench("verify-rows", folder)
        assert answer.code == 1 and line(answer, "pixel").startswith("differs"), answer
        assert "has no hash beside it" in line(answer, "pixel")
    path.unlink()
    assert tdabench(*RUN, results).code == 0
    assert line(tdabench("verify-rows", results), "pixel").startswith("agrees")


def other_scores(path):
    """Replace scores by others, and their hash beside them."""
    scores = load(path.read_bytes())["scores"]
    data = save({"scores": scores[:, ::-1].copy()})
    path.write_bytes(data)
    costs = path.with_suffix(".json")
    costs.write_text(json.dumps(json.loads(costs.read_text()) | {"sha256": sha256(data)}))


DAMAGES = {
    "a bit": lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "gone": lambda path: path.unlink(),
    "others with their hash": other_scores,
    "costs that are none": lambda path: path.with_suffix(".json").write_text("[]"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_scores_that_are_not_those_of_the_row_differ(name, results, tdabench):
    DAMAGES[name](next((results / "cells").rglob("pixel@*/**/slice-*.safetensors")))
    answer = tdabench("verify-rows", results)
    assert answer.code == 1 and line(answer, "pixel").startswith("differs"), answer


def test_what_is_not_at_hand_is_said_and_is_no_agreement(results, finished, tdabench):
    shutil.rmtree(next((results / "cells").rglob("pixel@*")))
    answer = tdabench("verify-rows", results, "--plugin", finished / "mine.py")
    assert answer.code == 0 and "no scores of it are here" in line(answer, "pixel")
    answer = tdabench("verify-rows", results)
    assert answer.code == 1 and "0 agree, 0 differ, 3 cannot be checked" in answer.out
    assert "--plugin" in line(answer, "mine")


def test_rows_alone_have_no_scores_and_nothing_is_written_there(results, tdabench):
    rows = results / "rows"
    before = sorted(rows.rglob("*"))
    answer = tdabench("verify-rows", rows)
    assert answer.code == 1 and "no scores of it are here" in line(answer, "pixel")
    assert sorted(rows.rglob("*")) == before


def test_another_truth_proves_nothing(results, home, tmp_path, tdabench, monkeypatch):
    shutil.copytree(home / "truth", tmp_path / "home" / "truth")
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "truth" / "digits-tiny@1"
    run_helpers.edit_manifest(folder, lambda manifest: manifest.update(target="another"))
    answer = tdabench("verify-rows", results)
    assert answer.code == 1 and "it is of another truth" in line(answer, "pixel")
    assert Assets(folder).sha256[:16] in line(answer, "pixel")


def test_rows_of_dev_queries_are_checked_against_open_subsets(home, tmp_path, tdabench):
    words = ["tune", "pixel", "digits-tiny", "--only", "similarity", "--trials", 0, "--results", tmp_path / "results"]
    assert tdabench(*words).code == 0
    answer = tdabench("verify-rows", tmp_path / "results")
    assert answer.code == 0 and "3 rows: 3 agree" in answer.out


def test_a_folder_without_rows_is_one_line(tmp_path, home, tdabench):
    for folder, said in ((tmp_path / "none", "does not exist"), (tmp_path, "no rows in")):
        answer = tdabench("verify-rows", folder)
        assert answer.code == 2 and said in answer.err and answer.err.count("\n") == 1
