"""Cells on a task with groups, from the command line to the row and the view, and what an oracle and chance get."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import ndcg_score

from tdabench.benchmark.commands.ensembles.search import parse_members
from tdabench.benchmark.metrics.groups import group_metrics
from tdabench.benchmark.metrics.scores import query_ids
from tdabench.benchmark.run.due import Inspector
from tdabench.benchmark.run.plan import Options
from tdabench.benchmark.run.results import Results
from tdabench.datasets.truth import Assets
from tdabench.errors import UserError
from tdabench.methods.registry import listings
from tdabench.models.problem import read_problem

from ... import run_helpers
from ...run_helpers import GROUPS, MEAN_SIMILARITY, plan, plugin, record_of, run_cells

built_groups, groups_home, tdabench = run_helpers.built_groups, run_helpers.groups_home, run_helpers.tdabench
tiny_home = run_helpers.tiny_home


@pytest.fixture(autouse=True)
def _home(groups_home):
    return groups_home


@pytest.fixture
def method(tmp_path: Path) -> Path:
    path = tmp_path / "of_groups.py"
    path.write_text(MEAN_SIMILARITY.format(name="of-groups", end="return scores"))
    return path


def expected(assets: Assets, scores: np.ndarray, ids: tuple[str, ...]) -> dict[str, list[float]]:
    """The measures of scores [Q, G] by scipy and scikit-learn."""
    effects = assets.group_truth().effects(ids).mean(0).T
    pairs = list(zip(scores.astype(float), effects, strict=True))
    return {
        "spearman": [float(spearmanr(score, effect)[0]) for score, effect in pairs],
        "ndcg": [ndcg_score([np.maximum(e, 0)], [score]) if (e > 0).any() else np.nan for score, e in pairs],
        "top1": [float(score.argmax() == effect.argmax()) for score, effect in pairs],
    }


def test_rows_of_both_units_hold_what_scipy_and_scikit_learn_make_of_their_scores(method, tmp_path):
    rows = run_cells(tmp_path / "results", ["pixel", "of-groups"], [method], task=GROUPS)
    assets = run_helpers.assets(GROUPS)
    assignment = read_problem(assets.folder).groups.assignment.numpy()
    assert {name: row.status for name, row in rows.items()} == {"pixel": "ok", "of-groups": "ok"}
    for name, row in rows.items():
        scores = record_of(tmp_path / "results", row).matrix()
        if name == "pixel":
            scores = np.stack([scores[:, assignment == g].sum(1, dtype=np.float64) for g in range(10)], axis=1)
        found = {measure: [] for measure in ("spearman", "ndcg", "top1")}
        for kind in ("heldout", "generated"):
            for measure, result in row.metrics.groups[kind].scores.items():
                found[measure] += result.values
        wanted = expected(assets, scores, query_ids(assets.manifest, "test"))
        for measure, values in found.items():
            np.testing.assert_allclose(np.array(values, dtype=float), wanted[measure], atol=1e-9)
    assert rows["of-groups"].metrics.lds == {} and rows["of-groups"].metrics.top is None
    assert rows["pixel"].metrics.lds and rows["pixel"].metrics.top
    units = {name: {one.unit for one in row.metrics.groups.values()} for name, row in rows.items()}
    assert units == {"pixel": {"item"}, "of-groups": {"group"}}


def test_an_oracle_comes_near_the_ceiling_and_chance_near_the_control():
    assets = run_helpers.assets(GROUPS)
    truth, ids = assets.group_truth(), query_ids(assets.manifest, "test")
    chance = np.random.default_rng(0).normal(size=(len(ids), 10))
    oracle = truth.effects(ids)[0].T
    blocks = {"oracle": oracle, "chance": chance}
    found = {
        name: group_metrics(assets, truth, [(ids, scores)], ids, "group")["heldout"].scores
        for name, scores in blocks.items()
    }
    for measure in ("ndcg", "top1"):
        assert found["oracle"][measure].mean >= found["oracle"][measure].ceiling - 0.02
        assert found["chance"][measure].mean < found["oracle"][measure].ceiling - 0.2
        assert found["chance"][measure].mean == pytest.approx(found["chance"][measure].shuffled, abs=0.25)
    assert found["oracle"]["spearman"].mean > found["chance"]["spearman"].mean + 0.3
    assert abs(found["chance"]["spearman"].mean) < 0.35


def test_the_command_runs_a_method_of_groups_and_shows_it_beside_item_methods(method, tmp_path, tdabench, monkeypatch):
    run_helpers.uncalibrated(monkeypatch)
    where = ("--results", tmp_path / "results")
    words = ("--methods", "random,of-groups", "--plugin", method, "--metrics", "lds,groups", "--jobs", 1)
    answer = tdabench("run", GROUPS, *words, *where)
    assert answer.code == 0, answer.err
    assert "groups left out, heldout" in answer.out and "items, summed" in answer.out
    again = tdabench("run", GROUPS, *words, *where)
    assert "nothing to run" in again.out
    shown = json.loads(tdabench("leaderboard", GROUPS, *where, "--view", "groups", "--format", "json").out)
    lines = {(sheet["kind"], line["method"]): line for sheet in shown for line in sheet["lines"]}
    assert set(lines) == {(k, m) for k in ("heldout", "generated") for m in ("of-groups@1", "random@1")}
    assert lines["heldout", "of-groups@1"]["top1"]["mean"] > lines["heldout", "random@1"]["top1"]["mean"]
    lds = tdabench("leaderboard", GROUPS, *where, "--format", "json").out
    assert [line["method"] for line in json.loads(lds)[0]["lines"]] == ["random@1"]


def test_commands_that_go_by_lds_refuse_a_method_of_groups(method, tmp_path, tdabench):
    where = ("--plugin", method, "--results", tmp_path / "results")
    for command in ("tune", "ablate"):
        answer = tdabench(command, "of-groups", GROUPS, *where)
        assert answer.code == 2 and f"`tdabench {command}` compares by LDS" in answer.err
    known = listings((method,))
    assert "of-groups" not in {entry.method for entry in parse_members([], "quick", known)}
    with pytest.raises(UserError, match="it scores groups"):
        parse_members(["pixel", "of-groups"], "quick", known)


def test_on_a_task_without_groups_the_method_is_skipped_and_the_metric_a_mistake(
    method, tiny_home, tmp_path, tdabench, monkeypatch
):
    rows = run_cells(tmp_path / "results", ["of-groups"], [method])
    assert (rows["of-groups"].status, rows["of-groups"].reason) == (
        "skipped",
        "scores groups, of which this problem has none",
    )
    answer = tdabench("run", "digits-tiny", "--methods", "random", "--metrics", "groups", "--results", tmp_path / "r")
    assert answer.code == 2 and "leaves no groups out" in answer.err


def test_an_ensemble_of_items_and_groups_is_a_mistake(method, tmp_path):
    mixed = plugin(tmp_path, "mixed", members=("pixel", "of-groups"), needs=("stored-scores",))
    with pytest.raises(UserError, match="it cannot be a member"):
        plan(["mixed"], [method, mixed], task=GROUPS)


def test_another_truth_of_groups_scores_again_without_running(method, groups_home, tmp_path, monkeypatch):
    folder = tmp_path / "results"
    before = run_cells(folder, ["of-groups"], [method], task=GROUPS)["of-groups"]
    real = Assets.group_truth
    monkeypatch.setattr(Assets, "sha256", "f" * 64)
    monkeypatch.setattr(Assets, "group_truth", lambda self: _reversed(real(self)))
    (planned,) = plan(["of-groups"], [method], task=GROUPS)
    assert Inspector(Results(folder), Options()).due(planned) == "metrics"
    after = run_cells(folder, ["of-groups"], [method], task=GROUPS)["of-groups"]
    assert after.source.scores_sha256 == before.source.scores_sha256 and after.source.truth_sha256 == "f" * 64
    assert after.source.started_utc == before.source.started_utc
    for kind, result in before.metrics.groups.items():
        assert after.metrics.groups[kind].scores != result.scores


def test_scores_without_a_ranking_make_the_row_partial(tmp_path):
    path = tmp_path / "flat.py"
    path.write_text(MEAN_SIMILARITY.format(name="flat", end="scores[1] = 0.5; return scores"))
    row = run_cells(tmp_path / "results", ["flat"], [path], task=GROUPS)["flat"]
    assert row.status == "partial" and row.reason.startswith("1 queries have no ranking of groups")


def _reversed(truth):
    return type(truth)(truth.names, truth.query_ids, truth.assignment, truth.outputs[:, ::-1], truth.full)
