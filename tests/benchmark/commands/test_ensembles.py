"""Ensembles: the search, the choice and the report, against combining the stored scores by hand with SciPy."""

from __future__ import annotations

import json
import shutil
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr, zscore

from tdabench.benchmark.commands.ensembles import command, judging, search, tables
from tdabench.benchmark.commands.removal import Settings
from tdabench.benchmark.metrics.scores import query_ids
from tdabench.benchmark.run.results import Results
from tdabench.datasets.truth import Assets
from tdabench.leaderboard.rows.row import row_key
from tdabench.methods.registry import Entry, listings

from ... import run_helpers

tiny_home, home, tdabench = run_helpers.tiny_home, run_helpers.home, run_helpers.tdabench

MEMBERS = ["pixel:distance", "pixel:quick", "random:quick"]
NAMES = ["random", "pixel", "pixel:distance"]
NO_REMOVAL = Settings(("union",), {}, budget=0)
WORDS = ("ensembles", "digits-tiny", "--methods", "random,pixel,pixel:distance", "--budget", "0")
SETS = [group for size in (2, 3) for group in combinations(MEMBERS, size)]
LABELS = {
    MEMBERS[0]: "pixel-distance",
    MEMBERS[1]: "pixel",
    MEMBERS[2]: "random",
}


def unseen(done, total):
    """Report to nobody."""


@pytest.fixture(autouse=True)
def _prepared(home, monkeypatch):
    run_helpers.uncalibrated(monkeypatch)


@pytest.fixture(scope="module")
def finished(tiny_home, tmp_path_factory):
    """A finished search: its folder and the cells it returned; not to be written to."""
    folder = tmp_path_factory.mktemp("ensembles") / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDABENCH_HOME", str(tiny_home))
        run_helpers.uncalibrated(patch)
        cells = command.ensembles(run_helpers.session(folder), NAMES, "quick", 3, NO_REMOVAL)
    return folder, cells


@pytest.fixture
def folder(finished):
    return finished[0]


@pytest.fixture
def record(folder):
    return json.loads((folder / "ensembles" / "digits-tiny@1.json").read_text())


def rows_of(folder, query_set):
    rows = [row for row in Results(folder).all_rows() if row.key.query_set == query_set]
    return {f"{row.key.method}:{row.key.preset}": row for row in rows}


def stored(folder, row):
    cell = run_helpers.record_of(folder, row)
    return np.concatenate([cell.scores(part) for part in cell.parts()])


def by_hand(parts, combine, query_set):
    """Return the LDS of each query id for members' scores, combined and scored without the package's own code."""
    rank = [(rankdata(part, axis=1) - 0.5) / part.shape[1] for part in parts]
    scores = np.mean(rank if combine == "rank" else [zscore(part.astype(float), axis=1) for part in parts], axis=0)
    assets = run_helpers.assets()
    truth, ids = assets.truth({"dev": "open", "test": "report"}[query_set]), query_ids(assets.manifest, query_set)
    predicted = np.round((~truth.masks).astype(float) @ scores.astype(np.float32).astype(float).T, 9)
    target = truth.outputs.astype(float).mean((0, 3))[:, [truth.query_ids.index(query) for query in ids]]
    return {query: spearmanr(predicted[:, i], target[:, i]).statistic for i, query in enumerate(ids)}


def kind_means(values):
    kinds = {query["id"]: query["kind"] for query in run_helpers.assets().manifest["queries"]}
    found = {kind: [v for query, v in values.items() if kinds[query] == kind] for kind in ("generated", "heldout")}
    return {kind: float(np.mean(v)) for kind, v in found.items()}


def overall_replicates(row):
    return np.mean([np.array(lds.replicates, float) for lds in row.metrics.lds.values()], axis=0)


# the search


def test_every_pair_and_triple_is_scored_as_by_hand(folder, record):
    rows = rows_of(folder, "dev")
    scores = {name: stored(folder, rows[name]) for name in MEMBERS}
    found = {(tuple(one["members"]), one["combine"]): one for one in record["ensembles"]}
    assert set(found) == {(group, combine) for group in SETS for combine in ("rank", "z")}
    for (group, combine), one in found.items():
        means = kind_means(by_hand([scores[name] for name in group], combine, "dev"))
        assert {kind: one["lds"][kind]["mean"] for kind in means} == pytest.approx(means, abs=1e-9)
        assert one["lds"]["overall"]["mean"] == pytest.approx(np.mean(list(means.values())), abs=1e-9)


def test_the_best_member_on_dev_is_what_an_ensemble_is_compared_with(folder, record):
    dev = {
        name: np.mean([lds.mean for lds in row.metrics.lds.values()]) for name, row in rows_of(folder, "dev").items()
    }
    assert set(dev) == set(MEMBERS)
    for one in record["ensembles"]:
        best = max(one["members"], key=dev.__getitem__)
        assert one["best_member"] == best
        assert one["difference"]["mean"] == pytest.approx(one["lds"]["overall"]["mean"] - dev[best], abs=1e-12)
        assert one["difference"]["low"] <= one["difference"]["mean"] <= one["difference"]["high"]


def test_ensembles_come_best_first_and_the_better_normalisation_of_each_set_is_chosen(record):
    means = [one["lds"]["overall"]["mean"] for one in record["ensembles"]]
    assert means == sorted(means, reverse=True)
    best = {}
    for one in record["ensembles"]:
        group = tuple(one["members"])
        if group not in best or one["lds"]["overall"]["mean"] > best[group]["lds"]["overall"]["mean"]:
            best[group] = one
    wanted = sorted(best.values(), key=lambda one: -one["lds"]["overall"]["mean"])[:3]
    assert record["chosen"] == [one["label"] for one in wanted]


def test_a_label_names_the_members_and_what_is_not_the_default(record):
    for one in record["ensembles"]:
        names = "+".join(LABELS[name] for name in one["members"])
        assert one["label"] == (names if one["combine"] == "rank" else f"z-{names}")


def test_the_record_traces_to_scores_and_truth(folder, record):
    rows = rows_of(folder, "dev")
    assert record["truth_sha256"] == run_helpers.assets().sha256
    assert {one["entry"]: one["scores_sha256"] for one in record["candidates"]} == {
        name: rows[name].source.scores_sha256 for name in MEMBERS
    }
    assert {one["entry"]: one["row"] for one in record["candidates"]} == {
        name: row_key(rows[name].key) for name in MEMBERS
    }


def test_the_search_opens_no_report_truth(home, tmp_path, monkeypatch):
    shutil.copytree(home / "truth", tmp_path / "home" / "truth")
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "home"))
    (run_helpers.assets().folder / "truth-report.safetensors").unlink()
    roles, truth = [], Assets.truth
    monkeypatch.setattr(Assets, "truth", lambda assets, role: roles.append(role) or truth(assets, role))
    session = run_helpers.session(tmp_path / "results")
    candidates, left_out = command.measured(session, [Entry("pixel", "quick"), Entry("random", "quick")])
    found = search.search(session.assets, candidates, "quick", unseen)
    assert len(found) == 2 and not left_out and set(roles) == {"open"}


# the report


def test_a_chosen_ensemble_is_an_ordinary_cell_with_the_scores_of_its_members(finished, record):
    folder, cells = finished
    rows = rows_of(folder, "test")
    by_label = {one["label"]: one for one in record["ensembles"]}
    assert [cell.key.preset for cell in cells] == record["chosen"]
    for cell in cells:
        one, row = by_label[cell.key.preset], rows[f"ensemble:{cell.key.preset}"]
        assert row.key == cell.key and row.status == "ok" and row.key.query_set == "test"
        assert row.key.params == {"combine": one["combine"], "members": one["members"]}
        members = [stored(folder, rows[name]) for name in one["members"]]
        values = by_hand(members, one["combine"], "test")
        for lds in row.metrics.lds.values():
            assert lds.values == pytest.approx([values[query] for query in lds.query_ids], abs=1e-9)


def test_only_members_of_the_chosen_are_run_on_test(tdabench, tmp_path):
    answer = tdabench(*WORDS, "--keep", "1", "--results", tmp_path)
    assert answer.code == 0, answer
    record = json.loads((tmp_path / "ensembles" / "digits-tiny@1.json").read_text())
    (chosen,) = record["chosen"]
    members = next(one["members"] for one in record["ensembles"] if one["label"] == chosen)
    assert set(rows_of(tmp_path, "test")) == {*members, f"ensemble:{chosen}"}
    assert [one["label"] for one in record["report"]] == [chosen] and chosen in answer.out
    assert record["report"][0]["p"] == record["report"][0]["holm_p"]


def test_verdicts_follow_from_the_test_rows(folder, record):
    rows = rows_of(folder, "test")
    members = {one["label"]: one["members"] for one in record["ensembles"]}
    p_values = []
    for one in record["report"]:
        own = rows[f"ensemble:{one['label']}"]
        means = {name: np.mean([lds.mean for lds in rows[name].metrics.lds.values()]) for name in members[one["label"]]}
        best = max(means, key=means.__getitem__)
        assert one["best_member"] == row_key(rows[best].key) and one["row"] == row_key(own.key)
        paired = overall_replicates(own) - overall_replicates(rows[best])
        assert one["p"] == pytest.approx((1 + sum(not value > 0 for value in paired)) / 1001, abs=1e-12)
        bounds = np.quantile(paired[~np.isnan(paired)], [0.025, 0.975])
        assert [one["difference"]["low"], one["difference"]["high"]] == pytest.approx(bounds, abs=1e-12)
        p_values.append(one["p"])
    assert [one["holm_p"] for one in record["report"]] == pytest.approx(judging.holm(p_values))
    assert [one["better"] for one in record["report"]] == [one["holm_p"] <= 0.05 for one in record["report"]]


def test_a_second_search_runs_nothing_and_says_the_same(finished, record):
    folder, cells = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "rows").rglob("*.json")}
    again = command.ensembles(run_helpers.session(folder), NAMES[::-1], "quick", 3, NO_REMOVAL)
    assert [cell.identity for cell in again] == [cell.identity for cell in cells]
    assert {path: path.stat().st_mtime_ns for path in (folder / "rows").rglob("*.json")} == before
    assert json.loads((folder / "ensembles" / "digits-tiny@1.json").read_text()) == record


@pytest.mark.parametrize(
    ("raw", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # by hand: 4 x .005, 3 x .01, 2 x .03, then not below
        ([0.02, 0.02, 0.9], [0.06, 0.06, 0.9]),  # this and the next as statsmodels' multipletests(method="holm")
        ([0.001, 0.04, 0.03], [0.003, 0.06, 0.06]),
        ([0.6, 0.7], [1.0, 1.0]),
        ([0.04], [0.04]),
    ],
)
def test_holms_correction(raw, adjusted):
    assert judging.holm(raw) == pytest.approx(adjusted, abs=1e-12)


def test_the_p_value_counts_what_is_not_above_zero():
    replicates = np.array([0.2, 0.1, 0.0, -0.1, np.nan, 0.3, 0.4, 0.5, 0.6])
    assert judging.one_sided_p(replicates) == pytest.approx(4 / 10)
    assert judging.one_sided_p(np.full(999, 0.1)) == pytest.approx(1 / 1000)
    assert judging.one_sided_p(np.full(999, -0.1)) == 1.0


def shifted(row, by):
    """Return a row whose every value and replicate is higher, and whose replicates vary a little on their own."""
    noise = np.random.default_rng(0).normal(scale=0.01, size=1000)
    lds = {}
    for kind, one in row.metrics.lds.items():
        replicates = (np.nan_to_num(np.array(one.replicates, float)) + by + noise).tolist()
        lds[kind] = one.model_copy(
            update={"values": [v + by for v in one.values], "mean": one.mean + by, "replicates": replicates}
        )
    return row.model_copy(update={"metrics": row.metrics.model_copy(update={"lds": lds})})


def test_an_ensemble_beats_its_best_member_only_where_it_does(folder):
    rows = rows_of(folder, "test")
    members = [shifted(rows["pixel:quick"], 0.0), shifted(rows["pixel:quick"], -0.3)]
    ahead = judging.judge(shifted(rows["pixel:quick"], 0.05), members)
    assert ahead.p == pytest.approx(1 / 1001) and ahead.better and ahead.gain.mean == pytest.approx(0.05)
    behind = judging.judge(shifted(rows["pixel:quick"], -0.05), members)
    assert behind.p == 1.0 and not behind.better and behind.gain.high < 0
    failed = rows["pixel:quick"].model_copy(update={"status": "skipped", "reason": "member failed"})
    assert judging.judge(failed, members).p == 1.0


# what is printed


def test_the_gains_of_pairs_are_those_of_z_scores_with_stars_where_significant(folder, finished, tmp_path, capsys):
    session = run_helpers.session(folder)
    entries = [Entry(*name.split(":")) for name in MEMBERS]
    found = search.search(session.assets, command.measured(session, entries)[0], "quick", unseen)
    for one, other in combinations(MEMBERS, 2):
        pair = next(f for f in found if f.params.combine == "z" and f.params.members == (one, other))
        text = tables.gain_text(found, one, other)
        assert text == tables.gain_text(found, other, one)
        assert float(text.rstrip("*")) == pytest.approx(100 * pair.gain.mean, abs=0.051)
        assert text.endswith("*") == (pair.gain.low > 0)
    assert tables.gain_text(found, MEMBERS[0], MEMBERS[0]) == "-"


def test_the_tables_show_search_gains_and_report(tdabench, folder, record, tmp_path):
    answer = tdabench(*WORDS, "--results", shutil.copytree(folder, tmp_path / "results"))
    assert answer.code == 0, answer
    best, gains, report = (answer.out.index(word) for word in ("best of 8 ensembles", "gain of a pair", "chosen ensem"))
    assert best < gains < report
    assert all(one["label"] in answer.out[best:gains] for one in record["ensembles"])
    assert all(label in answer.out[report:] for label in record["chosen"])
    assert "Holm" in answer.out[report:] and "counts against the ensemble" in " ".join(answer.out[report:].split())


def test_a_dry_run_says_what_would_run_and_runs_nothing(tdabench, tmp_path):
    answer = tdabench(*WORDS, "--dry-run", "--results", tmp_path / "results")
    assert answer.code == 0, answer
    for query_set in ("dev", "test"):
        assert f"{query_set} queries: {', '.join(MEMBERS)}" in answer.out
    assert answer.out.count("3 of 3 cells to run") == 2 and "about" in answer.out
    assert not Results(tmp_path / "results").all_rows() and not (tmp_path / "results" / "ensembles").exists()


# mistakes and failures


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--keep", "4"], "--keep 4: keep 1 to 3"),
        (["--keep", "0"], "--keep 0"),
        (["--methods", "pixel"], "at least two members"),
        (["--methods", "pixel,ensemble"], "ensemble:quick cannot be a member: it is an ensemble itself"),
        (["--methods", "pixel,pixl"], "did you mean 'pixel'"),
        (["--methods", "pixel,random:quik"], "did you mean 'quick'"),
    ],
)
def test_a_mistake_is_one_line_and_runs_nothing(words, said, tdabench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = tdabench("ensembles", "digits-tiny", *words)
    assert answer.code == 2 and said in answer.err and len(answer.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_every_method_but_ensembles_references_and_random_is_a_member_by_default(tmp_path):
    learned = run_helpers.plugin(tmp_path, "learned", needs=("open-truth",))
    known = listings((learned,))
    wanted = sorted(set(known) - {"ensemble", "learned", "random"})
    assert [str(entry) for entry in search.parse_members([], "paper", known)] == [f"{n}:paper" for n in wanted]


def test_a_member_that_fails_on_dev_is_left_out_and_named(tdabench, tmp_path):
    broken = run_helpers.plugin(tmp_path, "broken", "raise RuntimeError('no luck')")
    words = ["ensembles", "digits-tiny", "--plugin", broken, "--results", tmp_path / "results", "--methods"]
    answer = tdabench(*words, "pixel,random,broken")
    assert answer.code == 0, answer
    assert "left out: broken:quick: error: RuntimeError: no luck" in answer.out
    record = json.loads((tmp_path / "results" / "ensembles" / "digits-tiny@1.json").read_text())
    assert list(record["left_out"]) == ["broken:quick"] and len(record["ensembles"]) == 2
    answer = tdabench(*words, "pixel,broken")
    assert answer.code == 2 and "1 of 2 methods have all dev scores" in answer.err


def test_a_member_that_fails_on_test_makes_its_ensembles_a_line_with_the_reason(tdabench, tmp_path):
    lines = "if len(queries) == 6: raise RuntimeError('no luck')"  # dev has four queries
    fickle = run_helpers.plugin(tmp_path, "fickle", lines)
    words = ["ensembles", "digits-tiny", "--plugin", fickle, "--results", tmp_path / "results"]
    answer = tdabench(*words, "--methods", "pixel,fickle")
    assert answer.code == 0, answer
    record = json.loads((tmp_path / "results" / "ensembles" / "digits-tiny@1.json").read_text())
    (end,) = record["report"]
    assert (end["status"], end["p"], end["better"], end["best_member"]) == ("skipped", 1.0, False, None)
    assert "member fickle:quick has status error: RuntimeError: no luck" in " ".join(answer.out.split())


def test_a_label_says_which_presets_are_not_the_runs():
    members = (Entry("pixel", "quick"), Entry("trak", "paper"), Entry("mucs", "quick+skew"))
    assert search.label(members, "rank", "quick") == "pixel+trak-paper+mucs-quick+skew"
    assert search.label(members[:2], "z", "paper") == "z-pixel-quick+trak"
