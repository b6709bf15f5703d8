"""Sanity checks on adapters whose answers are known, and the problems derived for them."""

from __future__ import annotations

import shutil
from collections import Counter
from statistics import fmean

import numpy as np
import pytest
import torch
from scipy.stats import rankdata, spearmanr

from tdabench.benchmark.commands.sanity import plan_sanity, sanity
from tdabench.benchmark.metrics.sanity import agreement, copy_checks
from tdabench.benchmark.run.results import Results
from tdabench.benchmark.tasks.find import find_task
from tdabench.benchmark.truth.variants import copies, derived, sampled
from tdabench.datasets.find import load_dataset
from tdabench.datasets.truth import Assets
from tdabench.leaderboard.rows.row import row_key
from tdabench.models.problem import read_problem
from tdabench.models.training import snapshot, train
from tdabench.store import FolderStore

from ... import run_helpers
from ...run_helpers import TASK, N, Q, plan, plugin, run_cells

tiny_home = run_helpers.tiny_home

HELDOUT = Q // 2
NEAR = """
distance = torch.cdist(queries.x.flatten(1), view.train.images.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
scores = -distance
"""
WEIGHTS = """
parts = [value.flatten() for value in view.model().net.state_dict().values() if value.ndim == 4]
weights = torch.cat([part / part.norm() for part in parts])
rows = [torch.randn(len(weights), generator=torch.Generator().manual_seed(i)) for i in range(len(view.train))]
scores = (torch.stack(rows) @ weights).expand(len(queries), -1).contiguous()
"""
MEAN = "scores = torch.stack([read(queries.ids) for read in view.stored_scores.values()]).mean(0)"
ALL = {"planted-recall-1", "planted-mean-rank", "self-recall-1", "self-mean-rank", "randomised", "stability"}
COPIES = {name for name in ALL if name.startswith(("planted", "self"))}


@pytest.fixture(scope="module")
def sanity_home(tiny_home, tmp_path_factory):
    """A home with the tiny truth, to which derived problems may be added."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(tiny_home / "truth", folder / "truth")
    return folder


@pytest.fixture(autouse=True)
def _own_home(sanity_home, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setenv("TDABENCH_HOME", str(sanity_home))


@pytest.fixture
def variant(_own_home):
    """Return the assets of a variant of the tiny task."""
    return lambda name, n=10: derived(find_task(TASK), run_helpers.assets(), name, n, lambda done, total: None)


def check(folder, names, plugins=(), n=10, **options):
    """Run cells with their sanity checks, and return the main rows by method."""
    options = {"timeout_s": 300.0, **options}
    run_cells(folder, names, plugins, **options)
    here, cells = run_helpers.session(folder, plugins, **options), plan(names, plugins)
    sanity(here, cells, n)
    return {cell.key.method: here.results.row(cell.key) for cell in cells}


def scores_of(folder, method, query_set, seed=0):
    """Return what a cell stored, by query id."""
    results = Results(folder)
    [row] = [
        row
        for row in results.all_rows(TASK)
        if (row.key.method, row.key.query_set, row.key.seed) == (method, query_set, seed)
    ]
    record = results.record(row.key, row.diagnostics["identity"])
    ids = record.store.get_json("spec.json")["query_ids"]
    return dict(zip(ids, np.concatenate([record.scores(part) for part in record.parts()]), strict=True))


def means(row):
    return {name: found.mean for name, found in row.metrics.sanity.checks.items()}


# derived problems


def test_planted_copies_are_added_to_the_training_set_and_are_the_queries(variant):
    task, planted = read_problem(run_helpers.assets().folder), variant("planted")
    problem = read_problem(planted.folder)
    queries = task.queries.where("test", "heldout")
    assert len(problem.train) == planted.manifest["n_train"] == N + HELDOUT
    assert torch.equal(problem.train.images[:N], task.train.images)
    assert torch.equal(problem.train.images[N:], queries.x)
    assert torch.equal(problem.queries.x, queries.x) and problem.queries.ids == queries.ids
    assert set(problem.queries.roles) == {"planted"}
    assert copies(planted) == {query: N + i for i, query in enumerate(queries.ids)}
    digits = load_dataset("digits")
    assert torch.equal(problem.train.classes[N:], digits.classes[list(queries.source)])


def test_the_model_of_planted_copies_is_trained_on_them_with_the_tasks_recipe_and_seed(variant):
    task, problem = read_problem(run_helpers.assets().folder), read_problem(variant("planted").folder)
    model, kept = train(problem.recipe, problem.train, torch.arange(N + HELDOUT), 0)
    expected = {**kept, task.checkpoints[-1]: snapshot(model)}
    assert problem.checkpoints == task.checkpoints == tuple(expected)
    for step, state in expected.items():
        assert all(torch.equal(problem.weights[step][name], value) for name, value in state.items()), step
    last = task.checkpoints[-1]
    assert any(not torch.equal(problem.weights[last][name], value) for name, value in task.weights[last].items())


def test_self_queries_are_training_images_under_the_tasks_weights(variant):
    task, assets = read_problem(run_helpers.assets().folder), variant("self")
    problem, items = read_problem(assets.folder), list(copies(assets).values())
    assert len(set(items)) == len(problem.queries) == 10
    assert torch.equal(problem.queries.x, task.train.images[items])
    assert problem.queries.ids[:2] == ("self-000", "self-001") and set(problem.queries.kinds) == {"heldout"}
    assert problem.train.fingerprint() == task.train.fingerprint()
    assert equal_weights(problem, task) == {0: True, 10: True, 25: True}


def test_randomised_weights_are_untrained_ones_of_other_seeds_at_every_checkpoint(variant):
    task, problem = read_problem(run_helpers.assets().folder), read_problem(variant("randomised").folder)
    assert equal_weights(problem, task) == {0: True, 10: False, 25: False}
    bias = {step: problem.weights[step]["conv_in.bias"] for step in (0, 10, 25)}
    assert not torch.equal(bias[10], bias[25]) and not torch.equal(bias[0], bias[25])
    norms = [value for name, value in problem.weights[25].items() if "norm" in name and name.endswith("weight")]
    assert norms and all((value == 1).all() for value in norms)  # as an untrained normalisation has it


def test_stability_keeps_weights_and_images(variant):
    task, problem = read_problem(run_helpers.assets().folder), read_problem(variant("stability").folder)
    assert set(equal_weights(problem, task).values()) == {True}
    assert problem.train.fingerprint() == task.train.fingerprint()


@pytest.mark.parametrize("name", ["randomised", "stability"])
def test_sampled_queries_are_test_queries_of_both_kinds(name, variant):
    task, problem = read_problem(run_helpers.assets().folder), read_problem(variant(name, 4).folder)
    test = task.queries.where("test")
    assert Counter(problem.queries.kinds) == {"heldout": 2, "generated": 2}
    index = [test.ids.index(query) for query in problem.queries.ids]
    assert torch.equal(problem.queries.x, test.x[index]) and torch.equal(problem.queries.noise, test.noise[index])


def equal_weights(one, other):
    return {
        step: all(torch.equal(one.weights[step][name], value) for name, value in state.items())
        for step, state in other.weights.items()
    }


@pytest.mark.parametrize("name", ["planted", "self", "randomised", "stability"])
def test_a_derived_problem_holds_no_truth_and_is_derived_once(name, variant):
    folder = variant(name).folder
    files = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert set(files) == {"manifest.json", "problem.safetensors", *(f"weights-{n}.safetensors" for n in (0, 10, 25))}
    assert variant(name).folder == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == files
    assert variant(name, 4).folder != folder


def test_a_problem_that_was_half_derived_is_derived_again(variant):
    folder = variant("self", 3).folder
    before = Assets(folder).manifest["files"]
    (folder / "manifest.json").unlink()
    assert variant("self", 3).manifest["files"] == before


def test_queries_are_shared_out_over_their_kinds():
    kinds = ["heldout"] * 3 + ["generated"] * 20
    assert sampled(kinds, 10) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert sampled(["heldout"] * 20, 10) == list(range(10))


# statistics


def test_ranks_and_recall_of_copies_against_scipy():
    draws = np.random.default_rng(0).integers(0, 4, size=(50, 7)).astype(np.float32)  # ties, also at the top
    scores, items = {f"q{i}": row for i, row in enumerate(draws)}, {f"q{i}": i % 7 for i in range(50)}
    found = copy_checks("planted", scores, items)
    recall, rank = found["planted-recall-1"], found["planted-mean-rank"]
    expected = [float(len(row) + 1 - rankdata(row)[items[query]]) for query, row in scores.items()]
    assert rank.values == pytest.approx(expected) and rank.mean == pytest.approx(np.mean(expected))
    top = [set(np.flatnonzero(row == row.max())) for row in draws]
    assert recall.values == pytest.approx([(i % 7 in best) / len(best) for i, best in enumerate(top)])
    assert 0 < recall.mean < 1 and any(0 < value < 1 for value in recall.values)
    assert (recall.chance, rank.chance) == (1 / 7, 4.0)


def test_equal_scores_are_at_chance():
    found = copy_checks("self", {"q": np.ones(8, np.float32)}, {"q": 3})
    assert all(check.mean == pytest.approx(check.chance) for check in found.values())


def test_agreement_against_scipy():
    random = np.random.default_rng(1)
    one, other = ({f"q{i}": random.integers(0, 9, 40).astype(np.float32) for i in range(6)} for _ in range(2))
    other = {query: other[query] + one[query] for query in ("q4", "q1", "q2")}
    found = agreement("stability", one, other)["stability"]
    assert found.query_ids == ["q4", "q1", "q2"]
    assert found.values == pytest.approx([spearmanr(one[q], other[q]).statistic for q in found.query_ids])
    assert found.mean == pytest.approx(np.mean(found.values)) and 0.3 < found.mean < 0.95


def test_a_ranking_that_vanishes_agrees_with_nothing():
    one = {"q0": np.arange(5, dtype=np.float32), "q1": np.arange(5, dtype=np.float32)}
    found = agreement("randomised", one, {"q0": one["q0"], "q1": np.zeros(5, np.float32)})["randomised"]
    assert found.values == pytest.approx([1.0, 0.0])


# adapters with known answers


@pytest.fixture(scope="module")
def known(sanity_home, tmp_path_factory):
    """Rows of adapters with known answers: (folder, rows by method)."""
    folder = tmp_path_factory.mktemp("known")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDABENCH_HOME", str(sanity_home))
        torch.set_num_threads(1)
        files = [
            plugin(folder, "near", NEAR, slice_size=4),
            plugin(folder, "far", f"{NEAR}\nscores = -scores"),
            plugin(folder, "noise"),
            plugin(folder, "weights", WEIGHTS),
            plugin(folder, "mean", MEAN, needs=("stored-scores",), members=("near", "noise")),
        ]
        names = ["mean", "near", "far", "noise", "weights"]
        return folder / "results", check(folder / "results", names, files)


def test_pixel_distance_finds_every_copy_and_needs_neither_model_nor_seed(known):
    perfect = {"planted-recall-1": 1.0, "planted-mean-rank": 1.0, "self-recall-1": 1.0, "self-mean-rank": 1.0}
    row = known[1]["near"]
    assert means(row) == pytest.approx({**perfect, "randomised": 1.0, "stability": 1.0})
    assert row.metrics.sanity.skipped == {}
    counts = {name: len(found.values) for name, found in row.metrics.sanity.checks.items()}
    assert counts == {name: HELDOUT if "planted" in name else 10 if "self" in name else Q for name in ALL}


def test_inverted_distance_puts_every_copy_last(known):
    found = means(known[1]["far"])
    assert (found["planted-recall-1"], found["planted-mean-rank"]) == (0.0, N + HELDOUT)
    assert (found["self-recall-1"], found["self-mean-rank"]) == (0.0, N)


def test_random_scores_are_neither_stable_nor_find_copies(known):
    checks = known[1]["noise"].metrics.sanity.checks
    assert abs(checks["stability"].mean) < 4 / (Q * (N - 1)) ** 0.5
    assert checks["self-mean-rank"].mean == pytest.approx((N + 1) / 2, abs=4 * N / (12 * 10) ** 0.5)
    assert checks["self-recall-1"].mean <= 0.2
    assert checks["randomised"].mean == pytest.approx(1.0)  # the model is not looked at
    chances = {name: found.chance for name, found in checks.items()}
    assert chances["planted-recall-1"] == 1 / (N + HELDOUT) and chances["self-mean-rank"] == (N + 1) / 2


def test_scores_made_of_weights_change_with_the_model_and_not_with_the_seed(known):
    found = means(known[1]["weights"])
    assert abs(found["randomised"]) < 0.5
    assert found["stability"] == pytest.approx(1.0)


@pytest.mark.parametrize("method", ["noise", "weights", "mean"])
def test_checks_are_those_of_the_stored_scores(method, known):
    folder, rows = known
    checks, main = rows[method].metrics.sanity.checks, scores_of(folder, method, "test")
    for name, seed in (("randomised", 0), ("stability", 1)):
        other = scores_of(folder, method, name, seed)
        expected = {query: spearmanr(main[query], other[query]).statistic for query in other}
        assert dict(zip(checks[name].query_ids, checks[name].values, strict=True)) == pytest.approx(expected)
    planted = scores_of(folder, method, "planted")
    expected = {query: 1 + (row > row[N + i]).sum() for i, (query, row) in enumerate(planted.items())}
    found = checks["planted-mean-rank"]
    assert dict(zip(found.query_ids, found.values, strict=True)) == expected


def test_an_ensemble_is_checked_on_its_members_scores_of_the_same_variant(known):
    folder, rows = known
    assert set(rows["mean"].metrics.sanity.checks) == ALL
    for query_set, seed in (("planted", 0), ("self", 0), ("randomised", 0), ("stability", 1)):
        parts = [scores_of(folder, member, query_set, seed) for member in ("near", "noise")]
        for query, scores in scores_of(folder, "mean", query_set, seed).items():
            np.testing.assert_allclose(scores, sum(part[query] for part in parts) / 2, rtol=1e-5)


def test_checks_leave_the_rest_of_a_row_alone_and_their_own_rows_have_no_lds(known):
    folder, rows = known
    others = [row for row in Results(folder).all_rows(TASK) if row.key.query_set != "test"]
    assert Counter(row.key.query_set for row in others) == dict.fromkeys(
        ("planted", "self", "randomised", "stability"), 5
    )
    assert all(row.status == "ok" and row.metrics.lds == {} and row.metrics.sanity is None for row in others)
    for row in rows.values():
        assert row.metrics.lds["heldout"].n_nan == 0 and row.metrics.lds["generated"].n_nan == 0


# what cannot be checked


def test_a_kind_that_is_not_taken_is_reported(tmp_path):
    path = plugin(tmp_path, "generated", body="query_kinds = ('generated',)")
    row = check(tmp_path / "results", ["generated"], [path])["generated"]
    assert set(row.metrics.sanity.checks) == {"randomised", "stability"}
    assert all(query.startswith("generated") for query in row.metrics.sanity.checks["stability"].query_ids)
    assert len(row.metrics.sanity.checks["stability"].values) == Q - HELDOUT
    assert set(row.metrics.sanity.skipped) == COPIES
    assert all("takes generated queries only" in reason for reason in row.metrics.sanity.skipped.values())


def test_a_cell_that_fails_on_a_variant_is_reported(tmp_path):
    path = plugin(tmp_path, "small", f"{NEAR}\nif len(view.train) > {N}: raise ValueError('too large')")
    row = check(tmp_path / "results", ["small"], [path])["small"]
    assert set(row.metrics.sanity.checks) == ALL - {"planted-recall-1", "planted-mean-rank"}
    assert "error: ValueError: too large" in row.metrics.sanity.skipped["planted-recall-1"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("scores[0, 3] = float('nan')", r"1 of 6 queries have scores that are NaN"),
        ("scores[:2] = 0", r"2 of 6 queries have scores that are all equal"),
    ],
)
def test_scores_without_an_order_are_reported_and_not_left_out(line, reason, tmp_path):
    path = plugin(tmp_path, "odd", line)
    found = check(tmp_path / "results", ["odd"], [path])["odd"].metrics.sanity
    assert reason in found.skipped["stability"] and reason in found.skipped["randomised"]


def test_cells_without_scores_are_left_alone(tmp_path, capsys):
    path = plugin(tmp_path, "broken", "raise ValueError('no luck')")
    assert check(tmp_path / "results", ["broken"], [path])["broken"].metrics is None
    assert len(Results(tmp_path / "results").all_rows()) == 1
    assert "no cell has scores" in capsys.readouterr().out


def test_an_ensemble_without_its_members_is_reported_until_they_are_there(tmp_path):
    files, folder = [plugin(tmp_path, "near", NEAR)], tmp_path / "results"
    files.append(plugin(tmp_path, "mean", MEAN, needs=("stored-scores",), members=("near",)))
    run_cells(folder, ["near"], files)
    found = check(folder, ["mean"], files)["mean"].metrics.sanity
    assert set(found.skipped) == ALL and "near:quick" in found.skipped["stability"]
    found = check(folder, ["near", "mean"], files)["mean"].metrics.sanity
    assert set(found.checks) == ALL and found.checks["self-recall-1"].mean == 1.0


# what is done again, and what is not


def noting(log):
    return f"{NEAR}\nprint(queries.ids[0], file=open({str(log)!r}, 'a'), flush=True)"


def test_a_second_call_does_nothing_and_says_so(tmp_path, capsys):
    log, folder = tmp_path / "log", tmp_path / "results"
    path = plugin(tmp_path, "notes", noting(log))
    first = check(folder, ["notes"], [path], isolated=False)["notes"]
    files = {file: file.stat().st_mtime_ns for file in (folder / "rows").rglob("*.json")}
    calls = log.read_text()
    assert len(calls.split()) == len(files) == 5 and "into 1 rows, 0 had them" in capsys.readouterr().out
    assert check(folder, ["notes"], [path], isolated=False)["notes"] == first
    assert log.read_text() == calls
    assert {file: file.stat().st_mtime_ns for file in files} == files
    out = capsys.readouterr().out
    assert "all 4 cells have their rows, nothing to run" in out and "into 0 rows, 1 had them" in out


def test_another_number_of_queries_is_checked_anew(tmp_path):
    log, folder = tmp_path / "log", tmp_path / "results"
    path = plugin(tmp_path, "notes", noting(log))
    first = check(folder, ["notes"], [path], isolated=False)["notes"].metrics.sanity
    second = check(folder, ["notes"], [path], n=4, isolated=False)["notes"].metrics.sanity
    assert second.inputs != first.inputs and len(log.read_text().split()) == 8  # planted holds all three
    counts = {name: len(found.values) for name, found in second.checks.items()}
    assert counts == {name: HELDOUT if "planted" in name else 4 for name in ALL}
    assert second.checks["stability"].mean == pytest.approx(1.0)  # of the same queries, which are not the first four


def test_other_scores_are_checked_anew(tmp_path):
    folder = tmp_path / "results"
    first = check(folder, ["part"], [plugin(tmp_path, "part", NEAR)])["part"]
    second = check(folder, ["part"], [plugin(tmp_path, "part", f"{NEAR}\nscores = -scores")])["part"]
    assert second.metrics.sanity.inputs != first.metrics.sanity.inputs
    assert (means(first)["self-recall-1"], means(second)["self-recall-1"]) == (1.0, 0.0)


def test_checks_of_another_version_are_computed_anew_from_the_same_scores(tmp_path, monkeypatch):
    log, folder = tmp_path / "log", tmp_path / "results"
    path = plugin(tmp_path, "notes", noting(log))
    first = check(folder, ["notes"], [path], isolated=False)["notes"].metrics.sanity
    monkeypatch.setattr("tdabench.benchmark.commands.sanity.VERSION", 2)
    second = check(folder, ["notes"], [path], isolated=False)["notes"].metrics.sanity
    assert second.inputs != first.inputs and second.checks == first.checks
    assert len(log.read_text().split()) == 5


def test_a_row_that_lost_its_checks_gets_them_again_without_running(tmp_path):
    log, folder = tmp_path / "log", tmp_path / "results"
    path = plugin(tmp_path, "notes", noting(log))
    first = check(folder, ["notes"], [path], isolated=False)["notes"]
    bare = first.model_copy(update={"metrics": first.metrics.model_copy(update={"sanity": None})})
    Results(folder).write(bare)
    assert check(folder, ["notes"], [path], isolated=False)["notes"] == first
    assert len(log.read_text().split()) == 5


def test_rows_are_read_back_as_they_were_written(known):
    folder, rows = known
    store = FolderStore(folder / "rows")
    assert all(store.exists(row_key(row.key)) for row in rows.values())
    for row in rows.values():
        for found in row.metrics.sanity.checks.values():
            assert found.mean == pytest.approx(fmean(found.values))


def test_stand_ins_ask_about_as_many_queries_as_the_variants():
    stand_ins = plan_sanity(plan(["random"]), 4)
    counts = {cell.key.query_set: Counter(id.split("-")[0] for id in cell.query_ids) for cell in stand_ins}
    assert counts == {
        "planted": {"heldout": HELDOUT},
        "self": {"heldout": HELDOUT},
        "randomised": {"heldout": 2, "generated": 2},
        "stability": {"heldout": 2, "generated": 2},
    }
