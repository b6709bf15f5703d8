"""What commands that look at items make of a method of groups."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from scipy.stats import spearmanr

from tdabench.benchmark.commands.exemplars.cases import truth_of
from tdabench.benchmark.commands.exemplars.metric import exemplars
from tdabench.benchmark.commands.removal import Removing, Settings
from tdabench.benchmark.commands.sanity import plan_sanity, sanity
from tdabench.benchmark.commands.session import Session
from tdabench.benchmark.run.plan import Options, Planner
from tdabench.benchmark.run.results import Results
from tdabench.benchmark.tasks.find import find_task
from tdabench.benchmark.truth.variants import derived
from tdabench.models.problem import read_problem

from ... import run_helpers
from ...run_helpers import GROUPS, MEAN_SIMILARITY, plan, record_of, run_cells

built_groups = run_helpers.built_groups


@pytest.fixture
def home(built_groups: Path, tmp_path: Path, monkeypatch) -> Path:
    """A home with the truth of groups, to which derived problems may be added."""
    shutil.copytree(built_groups / "truth", tmp_path / "home" / "truth")
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def method(tmp_path: Path) -> Path:
    path = tmp_path / "of_groups.py"
    path.write_text(MEAN_SIMILARITY.format(name="of-groups", end="return scores"))
    return path


def session(folder: Path, method: Path) -> Session:
    planner = Planner(find_task(GROUPS), run_helpers.assets(GROUPS), (method,))
    return Session(planner, folder, Options(timeout_s=300.0))


def test_sanity_asks_of_groups_what_does_not_look_for_an_item(home, method, tmp_path, monkeypatch) -> None:
    run_helpers.uncalibrated(monkeypatch)
    folder = tmp_path / "results"
    run_cells(folder, ["of-groups"], [method], task=GROUPS)
    (cell,) = plan(["of-groups"], [method], task=GROUPS)
    assert [one.key.query_set for one in plan_sanity([cell])] == ["randomised", "stability"]
    sanity(session(folder, method), [cell])
    row = Results(folder).row(cell.key)
    assert row is not None and row.metrics is not None and row.metrics.sanity is not None
    skipped = {"planted-recall-1", "planted-mean-rank", "self-recall-1", "self-mean-rank"}
    assert set(row.metrics.sanity.skipped) == skipped and set(row.metrics.sanity.checks) == {"randomised", "stability"}
    assert row.metrics.sanity.checks["stability"].mean == pytest.approx(1.0)  # it has no randomness of its own
    scores = record_of(folder, row).matrix()
    assert spearmanr(scores[0], scores[1])[0] < 1  # so that the ones above are not those of constant scores
    assert row.metrics.groups["heldout"].unit == "group"


def test_exemplars_say_why_a_method_of_groups_has_none(home, method, tmp_path, monkeypatch) -> None:
    run_helpers.uncalibrated(monkeypatch)
    folder, here = tmp_path / "results", session(tmp_path / "results", method)
    truth = truth_of(here.spec, here.assets, here.plugins)
    for case in truth.runs:
        truth.derive(case)
    run_cells(folder, ["of-groups"], [method], task=GROUPS)
    (cell,) = plan(["of-groups"], [method], task=GROUPS)
    exemplars(here, [cell])
    row = Results(folder).row(cell.key)
    assert row is not None and row.metrics is not None and row.metrics.exemplars is not None
    found = row.metrics.exemplars
    assert set(found.skipped) == {case.name for case in truth.cases}
    assert set(found.skipped.values()) == {"it scores groups, and exemplars are items"}
    assert {scores.measures["ap"].mean for scores in found.scores} == {None} and row.metrics.groups


def test_derived_problems_keep_the_groups_where_the_items_are_the_same(home) -> None:
    assets = run_helpers.assets(GROUPS)
    kept = {
        variant: read_problem(derived(find_task(GROUPS), assets, variant, 4, lambda done, total: None).folder).groups
        for variant in ("planted", "self", "stability")
    }
    assert kept["planted"] is None
    for variant in ("self", "stability"):
        assert kept[variant].assignment.equal(read_problem(assets.folder).groups.assignment)


def test_removal_leaves_a_method_of_groups_out_and_says_why(home, method, tmp_path, capsys) -> None:
    folder = tmp_path / "results"
    run_cells(folder, ["of-groups"], [method], task=GROUPS)
    Removing(session(folder, method), Settings(dry_run=True)).measure(plan(["of-groups"], [method], task=GROUPS))
    out = capsys.readouterr().out
    assert "no removal, because it scores groups" in " ".join(out.split()) and "of-groups:quick union" not in out
