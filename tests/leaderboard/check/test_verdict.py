"""What is worse is found, what is not stays quiet, and what cannot be compared is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tdabench.leaderboard.check.costs import Limits
from tdabench.leaderboard.check.pairing import Pair
from tdabench.leaderboard.check.quality import Change, changes
from tdabench.leaderboard.check.verdict import Verdict, holm, judge
from tdabench.leaderboard.rows.files import RESULTS, load_rows
from tdabench.leaderboard.rows.row import LdsResult, Metrics, Row
from tdabench.leaderboard.stats.ranking import entry_of

from ..helpers import failed_row, lds_row, make_cost, make_key, make_source, removal, removal_row

MACHINE = {"os": "Linux", "cpu": "EPYC", "device": "cpu", "tdabench": "0.1.0"}
METHODS = ("trak", "d-trak", "mucs", "pixel")
Q, REPLICATES = 20, 200


def noisy_lds(mean: float, own: int, kind: int) -> LdsResult:
    """An LDS whose queries and subsets are those of every other one, and whose scores have noise of their own."""
    rng, shared = np.random.default_rng([own, kind]), np.random.default_rng(kind)
    query, noise = shared.normal(scale=0.1, size=Q), rng.normal(scale=0.05, size=Q)
    draws = shared.integers(Q, size=(REPLICATES, Q))
    values = mean + query - query.mean() + noise
    low, high = np.quantile(values[draws].mean(1), [0.025, 0.975])
    fields = {"values": values.tolist(), "mean": float(values.mean()), "low": low, "high": high, "n_nan": 0}
    ids = [f"q{kind}-{i}" for i in range(Q)]
    return LdsResult(query_ids=ids, replicates=values[draws].mean(1).tolist(), n_subsets=96, **fields)


def row(method: str, own: int = 0, mean: float = 0.3, seed: int = 0, **changes: Any) -> Row:
    lds = {
        kind: noisy_lds(mean, 1000 * METHODS.index(method) + own, i) for i, kind in enumerate(("generated", "heldout"))
    }
    fields = {"key": make_key(method, seed=seed), "metrics": Metrics(lds=lds), "environment": MACHINE}
    source = make_source(scores_sha256=f"{own:064d}", truth_sha256=changes.pop("truth", "a" * 64))
    return lds_row(method, **(fields | {"source": source} | changes))


def rows(own: int = 0, seed: int = 0) -> list[Row]:
    return [row(method, own, seed=seed) for method in METHODS]


def flipped(given: Row) -> Row:
    """The row of scores whose sign is wrong: Spearman's correlation changes its sign and nothing else."""
    assert given.metrics is not None
    lds = {
        kind: old.model_copy(update={
            "values": [-v for v in old.values if v is not None],
            "replicates": [-v for v in old.replicates if v is not None],
            "mean": -(old.mean or 0.0),
        })
        for kind, old in given.metrics.lds.items()
    }  # fmt: skip
    source = given.source.model_copy(update={"scores_sha256": "f" * 64})
    metrics = given.metrics.model_copy(update={"lds": lds})
    return given.model_copy(update={"metrics": metrics, "source": source})


def costing(**changes: Any) -> Row:
    return row("trak", own=1, cost=make_cost(**changes))


def check(baseline: list[Row], current: list[Row], **limits: float) -> Verdict:
    return judge(baseline, current, Limits(**limits))


def worse(verdict: Verdict) -> set[tuple[str, str]]:
    return {(cell.pair.entry.method, finding.what) for cell, finding in verdict.worse}


def test_the_same_bits_leave_nothing_to_test() -> None:
    verdict = check(rows(), rows())
    assert verdict.passed and not any(f.kind == "quality" for cell in verdict.cells for f in cell.findings)
    assert all("the scores are the same bits" in cell.notes for cell in verdict.cells)


def test_a_flipped_sign_is_caught_and_it_alone() -> None:
    current = [flipped(r) if r.key.method == "mucs" else r for r in rows(own=1)]
    verdict = check(rows(), current)
    assert not verdict.passed
    assert {method for method, _ in worse(verdict)} == {"mucs"}
    assert ("mucs", "LDS×100, mean over kinds") in worse(verdict)


@pytest.mark.parametrize("method", ["trak", "d-trak", "mucs", "pixel"])
def test_a_flipped_sign_of_a_committed_row_is_caught(method: str) -> None:
    committed = [r for r in load_rows(RESULTS, "digits") if r.key.query_set == "test" and r.key.preset == "quick"]
    current = [flipped(r) if r.key.method == method else r for r in committed]
    assert {name for name, _ in worse(check(committed, current))} == {method}


def test_reruns_with_other_seeds_are_quiet() -> None:
    alarms = [not check(rows(own=2 * i), rows(own=2 * i + 1, seed=1)).passed for i in range(60)]
    assert sum(alarms) <= 6  # 3 are to be expected, at 5 % of checks that make 12 tests each


def test_a_steady_small_fall_is_caught_only_above_what_counts() -> None:
    lower = [row("trak", own=0, mean=0.3 - 0.02, source=make_source(scores_sha256="b" * 64))]
    assert worse(check([row("trak")], lower)) and check([row("trak")], lower, fall=0.03).passed


def test_a_rise_is_not_worse() -> None:
    assert check(rows(), [row(method, own=1, mean=0.5) for method in METHODS]).passed


def test_the_interval_is_that_of_the_paired_bootstrap() -> None:
    before, after = row("trak"), row("trak", own=1)
    found = changes(Pair(entry_of(before), (before,), (after,)))[0]
    assert before.metrics and after.metrics
    old, new = (side.metrics.lds["generated"] for side in (before, after))
    spread = np.std(np.subtract(new.replicates, old.replicates), ddof=1) * np.sqrt(Q / (Q - 1))
    half = stats.t.ppf(0.975, Q - 1) * spread
    assert found.interval == pytest.approx((found.difference - half, found.difference + half))
    assert found.p == pytest.approx(stats.t.cdf(found.difference / spread, Q - 1))


def test_queries_that_one_side_lacks_are_left_out_of_both() -> None:
    before, after = row("trak"), row("trak", own=1)
    assert before.metrics and after.metrics
    lds = after.metrics.lds["heldout"]
    values = [None, *lds.values[1:]]
    known = [v for v in values if v is not None]
    partial = lds.model_copy(update={"values": values, "n_nan": 1, "mean": float(np.mean(known))})
    after = after.model_copy(update={"metrics": Metrics(lds={"heldout": partial})})
    before = before.model_copy(update={"metrics": Metrics(lds={"heldout": before.metrics.lds["heldout"]})})
    (found,) = changes(Pair(entry_of(before), (before,), (after,)))
    old = np.array(before.metrics.lds["heldout"].values[1:], dtype=float)
    result = stats.ttest_rel(known, old, alternative="less")
    assert found.p == pytest.approx(result.pvalue) and found.before == pytest.approx(old.mean())


def test_holm_is_the_textbooks() -> None:
    assert holm([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]


def test_a_single_query_has_no_test() -> None:
    assert Change("x", 1.0, 0.0, None, 1).p is None


def test_removal_by_other_weights_of_an_encoder_is_not_compared() -> None:
    def alone(**encoders: str) -> Row:
        return removal_row("trak", removal=removal(0.3, encoders=encoders), groups={}, exemplars=None)

    old = alone(ssim="b" * 16)
    for other, names in ((old, ["loss", "ssim"]), (alone(ssim="c" * 16), ["loss"]), (alone(), ["loss"])):
        found = changes(Pair(entry_of(old), (old,), (other,)))
        assert [change.what for change in found] == [f"removal above random, {name}" for name in names]


def test_a_fall_of_every_other_metric_is_caught() -> None:
    """Groups, exemplars and removal, each alone: 20 points down for all queries."""
    old, bad = removal_row("trak", 0.35, own=1), removal_row("trak", 0.05, own=2)
    assert old.metrics is not None and bad.metrics is not None
    for name in ("groups", "exemplars", "removal"):
        metrics = old.metrics.model_copy(update={name: getattr(bad.metrics, name)})
        verdict = check([old], [old.model_copy(update={"metrics": metrics})])
        assert verdict.worse and all(what.startswith(name) for _, what in worse(verdict)), name


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"forward_passes": {"fit": 1_200_001, "attribute": 34_000}}, "forward passes"),
        ({"backward_passes": {"fit": 1_000_000}}, "backward passes"),
        ({"fit_s": 120.0}, "seconds of fit"),
        ({"seconds_per_query": 0.9, "attribute_s": [9.0, 27.0]}, "seconds of queries"),
        ({"peak_rss_bytes": {"fit": 2 * 2**30, "attribute": 2**29}}, "peak host MiB"),
    ],
)
def test_a_dearer_method_is_caught(changes: dict[str, Any], what: str) -> None:
    assert worse(check([costing()], [costing(**changes)])) == {("trak", what)}


def test_time_and_memory_on_other_hardware_are_not_compared_but_passes_are() -> None:
    slow = costing(fit_s=400.0).model_copy(update={"environment": MACHINE | {"cpu": "Xeon"}})
    verdict = check([costing()], [slow])
    assert verdict.passed and any("cpu EPYC to Xeon" in note for note in verdict.cells[0].notes)
    greedy = {"forward_passes": {"fit": 1_200_001, "attribute": 34_000}}
    assert not check([costing()], [slow.model_copy(update={"cost": make_cost(**greedy)})]).passed


def test_a_method_that_stops_by_what_it_sees_may_take_more_passes_under_another_seed() -> None:
    other = make_key("trak", seed=1)
    few = costing(forward_passes={"fit": 1_250_000, "attribute": 34_000}).model_copy(update={"key": other})
    many = costing(forward_passes={"fit": 1_400_000, "attribute": 34_000}).model_copy(update={"key": other})
    assert check([costing()], [few]).passed
    assert worse(check([costing()], [many])) == {("trak", "forward passes")}


def timed(seconds: list[float], seed: int = 0) -> Row:
    return costing(attribute_s=seconds, seconds_per_query=sum(seconds) / 40).model_copy(
        update={"key": make_key("trak", seed=seed)}
    )


def test_repeated_timings_are_tested() -> None:
    """Twice the mean of all slices is worse; the same mean from one slow slice of six is what a busy machine does."""
    before, steady = timed([1.0, 1.1, 0.9, 1.0, 1.2, 0.8]), timed([2.0, 2.1, 1.9, 2.0, 2.2, 1.8])
    jumpy = timed([7.0, 1.0, 0.9, 1.1, 0.8, 1.2])
    assert worse(check([before], [steady])) == {("trak", "seconds of queries")}
    assert check([before], [jumpy]).passed
    (found,) = [f for f in check([before], [steady]).cells[0].findings if f.what == "seconds of queries"]
    assert "Mann-Whitney" in found.how and found.p is not None


def test_one_timing_is_judged_by_a_larger_factor_and_says_so() -> None:
    verdict = check([costing()], [costing(fit_s=7.9 * 12.25)])
    assert verdict.passed and any("too few for a test" in f.how for f in verdict.cells[0].findings)
    assert not check([costing()], [costing(fit_s=8.1 * 12.25)]).passed


def test_microseconds_are_not_compared() -> None:
    assert check([costing(fit_s=1e-5)], [costing(fit_s=1e-3)]).passed


@pytest.mark.parametrize("status", ["timeout", "oom", "error", "skipped"])
def test_a_cell_that_no_longer_ends_is_worse(status: str) -> None:
    verdict = check([row("trak")], [failed_row("trak", status)])
    assert worse(verdict) == {("trak", "status")}


def test_a_cell_that_failed_before_is_no_comparison() -> None:
    verdict = check([failed_row("trak")], [failed_row("trak")])
    assert not verdict.passed and "nothing compared" in verdict.summary


OTHERS: list[tuple[Callable[[], Row], str]] = [
    (lambda: row("trak", key=make_key("trak", method_version=2)), "the baseline has trak@1 paper on digits@1"),
    (lambda: row("trak", key=make_key("trak", task_version=2)), "trak@1 paper on digits@2"),
    (lambda: row("trak", key=make_key("trak", params_hash="fedcba98")), "parameters fedcba98"),
    (lambda: row("trak", key=make_key("trak", preset="new")), "no row of it"),
    (lambda: row("trak", truth="b" * 64), "another truth"),
]


@pytest.mark.parametrize(("other", "said"), OTHERS, ids=["method", "task", "params", "preset", "truth"])
def test_other_versions_are_said_and_alone_are_a_failure(other: Callable[[], Row], said: str) -> None:
    verdict = check([row("trak")], [other()])
    assert not verdict.passed and "nothing compared" in verdict.summary
    assert any(said in note for note in verdict.notes), verdict.notes


def test_no_rows_at_all_is_a_failure() -> None:
    assert not check(rows(), []).passed and not check([], rows()).passed
