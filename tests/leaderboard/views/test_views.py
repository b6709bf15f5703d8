"""The leaderboard's views on synthetic rows: known effects, overlaps by brute force, every format, the README."""

from __future__ import annotations

import csv
import io
import json
import re
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from tdabench.benchmark.commands.cli import app
from tdabench.errors import UserError
from tdabench.leaderboard.readme import markers, update_readme
from tdabench.leaderboard.rows.removal import (
    Change,
    CurvePoint,
    PerQuery,
    PerQueryChange,
    Published,
    Removal,
    Sanity,
    SanityCheck,
    Similarity,
    TopK,
    Union,
)
from tdabench.leaderboard.rows.row import Cost, Key, Metrics, Row, Source, write_row
from tdabench.leaderboard.stats import over_queries as resampling
from tdabench.leaderboard.stats.over_seeds_and_queries import estimate
from tdabench.leaderboard.views.catalogue import VIEWS, build_view
from tdabench.leaderboard.views.sheet import FORMATS, Sheet, render
from tdabench.store import FolderStore

N_TRAIN, K, SEEDS, SIZES = 500, 10, 5, [5, 10, 20]
TARGETS = [f"generated-{i}" for i in range(8)]
CONTROLS = [f"control-{i}" for i in range(6)]
RNG = np.random.default_rng(7)
NOISE = {n: RNG.normal(scale=0.02, size=(3, SEEDS, n)) for n in (len(TARGETS), len(CONTROLS))}
VIEWS_ON_REMOVAL = ("removal", "published", "per-query")
NEW = [view for view in VIEWS if view not in ("lds", "ablations")]  # those of test rows


def change(effect: float, n: int, own: int = 0) -> Change:
    """Similarities of ``n`` queries under removal that lowers them by ``effect``, 0.05 of which random does too."""
    floor, random = 0.8 + NOISE[n][0], 0.75 + NOISE[n][1]
    after = 0.8 - effect + NOISE[n][2] + np.random.default_rng(own).normal(scale=0.004, size=(SEEDS, n))
    published = Published(change_percent=-12.34, change_margin=4.56, auc=0.875, mann_whitney_p=3.2e-5, wilcoxon_p=0.04)
    return Change(floor=floor.tolist(), after=after.tolist(), random=random.tolist(), published=published)


def similarity(effect: float, own: int = 0, **marks: bool) -> Similarity:
    targets, controls = change(effect, len(TARGETS), own), change(0.05, len(CONTROLS), own)
    curve = [CurvePoint(size=40, mean=0.021, low=0.01, high=0.03), CurvePoint(size=80, mean=0.05, low=None, high=None)]
    return Similarity(targets=targets, controls=controls, curve=curve, **marks)


def removal(effect: float, own: int = 0, **changes: Any) -> Removal:
    compared = {"ssim": similarity(effect, own), "loss": similarity(effect / 10, own)}
    ids = {"target_ids": TARGETS, "control_ids": CONTROLS}
    union = Union(size=60, seeds=list(range(1, SEEDS + 1)), similarities=compared, **ids)
    alone = PerQuery(query_ids=TARGETS, sizes=SIZES, seed=1, similarities={"ssim": alone_change(effect)})
    fields = {"inputs": "0" * 16, "laboratory": "1" * 16, "n_train": N_TRAIN, "top_k": K}
    fields |= {"union": union, "per_query": alone}
    return Removal(**(fields | {"skipped": {"dino": "too | small"}} | changes))


def alone_change(effect: float) -> PerQueryChange:
    shift = np.linspace(0, 0.1, len(TARGETS))
    after = [(0.7 - effect * size - shift).tolist() for size in SIZES]
    return PerQueryChange(floor=[0.8] * 8, after=after, random=[[0.7] * 8] * len(SIZES))


def top(seed: int, pool: int = N_TRAIN) -> TopK:
    """Top items drawn from the first ``pool``; held-out queries and one query without scores are among them."""
    rng = np.random.default_rng(seed)
    queries, kinds = ["heldout-0", *TARGETS], ["heldout"] + ["generated"] * len(TARGETS)
    ids: list[Any] = [rng.permutation(pool)[:K].tolist() for _ in queries]
    ids[-1] = None if seed == 2 else ids[-1]
    return TopK(k=K, n_train=N_TRAIN, query_ids=queries, kinds=kinds, ids=ids)


def sanity(**skipped: str) -> Sanity:
    recall = SanityCheck(query_ids=["a", "b"], values=[1.0, 0.5], mean=0.75, chance=0.002)
    rank = SanityCheck(query_ids=["a"], values=[1234.0], mean=1234.0)
    checks = {name: check for name, check in (("recall", recall), ("rank", rank)) if name not in skipped}
    return Sanity(inputs="0" * 16, checks=checks, skipped=skipped)


def row(method: str, effect: float = 0.05, own: int = 0, **changes: Any) -> Row:
    fields = {"task": "digits", "task_version": 1, "method": method, "method_version": 1, "preset": "quick"}
    fields |= {"params": {}, "params_hash": "0123456789abcdef", "query_set": "test", "seed": 0}
    metrics = {"top": top(own), "removal": removal(effect, own), "sanity": sanity()}
    key = Key.model_validate(fields | {name: changes.pop(name) for name in list(changes) if name in Key.model_fields})
    truth = changes.pop("truth", "a" * 64)
    source = Source(kind="measured", command="c", started_utc="2026-11-22T03:00:00Z", truth_sha256=truth)
    return Row(status="ok", key=key, metrics=Metrics(**(metrics | changes)), cost=COST, environment={}, source=source)


COST = Cost(
    setup_s=1.0,
    fit_s=1.0,
    attribute_s=[1.0],
    seconds_per_query=1.0,
    n_queries=9,
    peak_rss_bytes={},
    peak_gpu_bytes={},
    forward_passes={},
    backward_passes={},
    scratch_bytes=None,
    wall_s=1.0,
    micro_batch=None,
    resumed=False,
)


def rows() -> list[Row]:
    """An oracle, one a little behind it, one half as good, random, and one that names what must stay."""
    effects = {"oracle": 0.35, "near": 0.3495, "half": 0.15, "random": 0.05, "inverted": -0.05}
    return [row(name, effect, own) for own, (name, effect) in enumerate(effects.items())]


def cells(sheet: Sheet) -> dict[str, dict[str, str]]:
    names = [name.replace("\n", " ") for name in sheet.headings]
    return {line[names.index("Method")]: dict(zip(names, line, strict=True)) for line in sheet.rows}


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", text)]


def only(view: str, given: list[Row] | None = None, **options: str) -> Sheet:
    (sheet,) = build_view(view, rows() if given is None else given, **options)
    return sheet


# removal of the union


def test_oracle_beats_random_and_chance_or_worse_does_not() -> None:
    shown = cells(only("removal"))
    assert list(shown) == ["oracle@1", "near@1", "half@1", "random@1", "inverted@1"]
    assert [line["Beats random"] for line in shown.values()] == ["yes", "yes", "yes", "-", "no"]
    assert [line["Rank"] for line in shown.values()] == ["1-2", "1-2", "3", "4", "5"]
    assert cells(only("removal", [row("chance", own=3)]))["chance@1"]["Beats random"] == "no"


def test_numbers_of_the_removal_table_are_those_of_the_similarities() -> None:
    given = row("oracle", 0.35)
    assert given.metrics and given.metrics.removal and given.metrics.removal.union
    found = given.metrics.removal.union.similarities
    line = cells(only("removal", [given]))["oracle@1"]
    floor, after, random = (np.array(getattr(found["ssim"].targets, name)) for name in ("floor", "after", "random"))
    assert numbers(line["Effect"])[0] == round(100 * (floor - after).mean(), 1)
    assert numbers(line["Random"]) == [round(100 * (floor - random).mean(), 1)]
    expected = estimate(random - after, "digits", 1, "removal", "targets")
    assert numbers(line["Above random"]) == [round(100 * value, 1) for value in expected]  # type: ignore[operator]
    controls = np.subtract(found["ssim"].controls.random, found["ssim"].controls.after)
    assert numbers(line["Controls above random"])[0] == pytest.approx(100 * controls.mean(), abs=0.05)
    loss = np.subtract(found["loss"].targets.random, found["loss"].targets.after)
    assert numbers(line["loss×1000 above random"])[0] == pytest.approx(1000 * loss.mean(), abs=0.005)
    assert line["Union"] == "60 (12.0%)"


def test_ranks_are_counts_of_significant_paired_differences() -> None:
    given = [row(f"m{own}", effect, own) for own, effect in enumerate((0.101, 0.1, 0.098, 0.097, 0.09))]
    above = {}
    for one in given:
        assert one.metrics and one.metrics.removal and one.metrics.removal.union
        targets = one.metrics.removal.union.similarities["ssim"].targets
        above[one.key.method] = np.subtract(targets.random, targets.after)
    wins = dict.fromkeys(above, 0)
    losses = dict(wins)
    for one, other in permutations(above, 2):
        low = estimate(above[one] - above[other], "digits", 1, "removal", "targets").low
        assert low is not None
        wins[one] += low > 0
        losses[other] += low > 0
    lines = {line["method"][:-2]: line for line in only("removal", given).data["lines"]}
    assert {name: (line["rank_best"], line["rank_worst"]) for name, line in lines.items()} == {
        name: (1 + losses[name], len(above) - wins[name]) for name in above
    }
    assert 0 < sum(wins.values()) < 10


def test_loss_as_the_similarity_is_shown_once() -> None:
    sheet = only("removal", similarity="loss")
    assert not [name for name in sheet.headings if name.startswith("loss")]
    assert "loss×1000" in sheet.title
    assert numbers(cells(sheet)["oracle@1"]["Effect"])[0] == pytest.approx(35, abs=10)


def test_notes_give_floor_curve_and_what_is_missing() -> None:
    given = [*rows(), row("late", removal=None), row("oracle", 0.9, seed=1)]
    sheet = only("removal", given)
    notes = "\n".join(sheet.notes)
    assert "8 targets and 6 controls" in notes and "under 5 seeds" in notes
    floor = 100 * (0.8 + NOISE[8][0].mean())
    assert f"ssim×100 is {floor:.1f} [" in notes
    assert "40: 2.1 [1.0, 3.0]; 80: 5.0." in notes
    assert "dino (too | small)" in notes
    assert "Without removal results: late@1 quick." in notes
    assert "the row of the lowest is shown" in notes and len(sheet.rows) == 5
    assert numbers(cells(sheet)["oracle@1"]["Effect"])[0] < 40


def test_circular_and_meaningless_comparisons_are_marked() -> None:
    union = removal(0.3).union
    assert union is not None
    marked = union.model_copy(update={"similarities": {"clip": similarity(0.3, circular=True, meaningful=False)}})
    sheet = only("removal", [row("clip", removal=removal(0.3, union=marked))], similarity="clip")
    assert cells(sheet)["clip@1"]["Beats random"] == "yes (circular)"
    assert "circular: " in "\n".join(sheet.notes) and "clip×100 is not meaningful" in "\n".join(sheet.notes)


def with_union(method: str, **changes: Any) -> Row:
    union = removal(0.3).union
    assert union is not None
    return row(method, removal=removal(0.3, union=union.model_copy(update=changes)))


@pytest.mark.parametrize(
    "other",
    [
        row("b", task_version=2),
        row("b", truth="b" * 64),
        row("b", removal=removal(0.3, top_k=9)),
        with_union("b", seeds=[2, 3, 4, 5, 6]),
        with_union("b", target_ids=TARGETS[::-1]),
    ],
)
def test_what_is_not_comparable_never_shares_a_table(other: Row) -> None:
    for view in ("removal", "published"):
        assert [len(sheet.rows) for sheet in build_view(view, [row("a"), other])] == [1, 1]


def test_entries_without_the_similarity_are_listed_with_the_reason() -> None:
    sheet = only("removal", [row("a"), with_union("b", similarities={"dino": similarity(0.3)})])
    assert list(cells(sheet)) == ["a@1"]
    assert [(failure.method, failure.reason) for failure in sheet.failures] == [("b@1", "not compared by ssim")]
    assert all("not compared by ssim" in render([sheet], format) for format in FORMATS)


@pytest.mark.parametrize("view", VIEWS_ON_REMOVAL)
def test_a_similarity_that_nobody_has_is_one_line(view: str) -> None:
    with pytest.raises(UserError, match="'dino' was skipped in all rows: too"):
        build_view(view, rows(), "dino")
    with pytest.raises(UserError, match="unknown similarity 'ssin': did you mean 'ssim'"):
        build_view(view, rows(), "ssin")


@pytest.mark.parametrize(
    ("view", "words"),
    [
        ("removal", ["union removal", "--metrics removal"]),
        ("published", ["--metrics removal"]),
        ("per-query", ["per-query removal", "--metrics removal"]),
        ("overlap", ["top items", "tdabench run TASK"]),
        ("sanity", ["--metrics sanity"]),
    ],
)
def test_rows_without_results_say_what_to_run(view: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        build_view(view, [row("a", top=None, removal=None, sanity=None)])
    assert all(word in str(caught.value) for word in words)


def test_published_statistics_are_shown_for_targets_and_controls_apart() -> None:
    sheet = only("published")
    line = cells(sheet)["oracle@1"]
    for who in ("Targets", "Controls"):
        stated = [line[f"{who} {name}"] for name in ("change %", "AUC", "Mann-Whitney p", "Wilcoxon p")]
        assert stated == ["-12.3 ± 4.6", "0.875", "3.2e-05", "0.04"]
    assert "share one retraining per seed" in "\n".join(sheet.notes)
    assert list(cells(sheet)) == list(cells(only("removal")))


def test_a_distance_is_shown_unscaled_and_without_a_change_in_per_cent() -> None:
    one = similarity(0.3)
    unsigned = one.targets.published.model_copy(update={"change_percent": None, "change_margin": None})
    targets = one.targets.model_copy(update={"published": unsigned})
    given = [with_union("a", similarities={"l2": one.model_copy(update={"targets": targets})})]
    assert only("removal", given, similarity="l2").title.endswith(", l2")
    shown = numbers(cells(only("removal", given, similarity="l2"))["a@1"]["Effect"])[0]
    assert shown == pytest.approx(np.subtract(targets.floor, targets.after).mean(), abs=0.005)
    assert cells(only("removal", given, similarity="l2"))["a@1"]["loss×1000 above random"] == "-"
    assert cells(only("published", given, similarity="l2"))["a@1"]["Targets change %"] == "-"


def test_presets_of_one_name_are_told_apart() -> None:
    given = [row("a"), row("a", params_hash="f" * 16)]
    for view in ("removal", "published", "per-query", "sanity"):
        presets = {line[only(view, given).headings.index("Preset")] for line in only(view, given).rows}
        assert presets == {"quick-01234567", "quick-ffffffff"}


# removal of one query's items


def test_per_query_curve_over_sizes() -> None:
    given = [row("a", removal=removal(0.01)), row("b", removal=removal(0.0)), row("c", removal=None)]
    sheet = only("per-query", given)
    assert list(cells(sheet)) == ["a@1", "b@1"]
    for size in SIZES:
        shift = np.linspace(0, 0.1, 8)
        mean, low, high = numbers(cells(sheet)["a@1"][f"Above random {size}"])
        assert mean == pytest.approx(100 * (0.01 * size + shift.mean()), abs=0.05)
        t = stats.t.interval(0.95, 7, 100 * (0.01 * size + shift.mean()), 100 * stats.sem(shift))
        np.testing.assert_allclose((low, high), t, atol=0.6)
        assert cells(sheet)["a@1"][f"Random {size}"] == "10.0"
    assert "Without per-query removal results: c@1 quick." in sheet.notes


def test_intervals_over_few_queries_cover_the_mean() -> None:
    values = np.random.default_rng(0).exponential(size=(600, 9)) ** 0.5
    truth = 0.5 * np.sqrt(np.pi)
    bounds = [resampling.over_queries(one, "coverage", i) for i, one in enumerate(values)]
    covered = np.mean([low <= truth <= high for _, low, high in bounds])  # type: ignore[operator]
    assert covered == pytest.approx(0.95, abs=0.025)


def test_two_queries_have_no_interval() -> None:
    assert resampling.over_queries([1.0, 2.0]) == (1.5, None, None)


# overlap


def scored(given: TopK, kind: str = "generated") -> dict[str, set[int]]:
    found = zip(given.query_ids, given.kinds, given.ids, strict=True)
    return {query: set(ids) for query, its, ids in found if its == kind and ids}


@pytest.mark.parametrize(("seed", "pool"), [(0, 500), (1, 30), (2, 12)])
def test_overlap_within_an_entry_is_that_of_sets(seed: int, pool: int) -> None:
    given = top(seed, pool)
    (line,) = build_view("overlap", [row("a", top=given)])[0].data["lines"]
    sets = list(scored(given).values())
    shared = [len(one & other) / K for one, other in combinations(sets, 2)]
    union = set().union(*sets)
    assert line["overlap"]["mean"] == pytest.approx(np.mean(shared))
    assert line["overlap"]["low"] <= line["overlap"]["mean"] <= line["overlap"]["high"]
    assert (line["union_size"], line["n_queries"]) == (len(union), len(sets))
    assert line["cardinality"] == pytest.approx(len(union) / (len(sets) * K))


def test_overlap_across_entries_is_that_of_sets() -> None:
    pools = {"a": 500, "b": 30, "c": 12}
    tops = {name: top(seed, pool) for seed, (name, pool) in enumerate(pools.items())}
    sheet = build_view("overlap", [row(name, top=one) for name, one in tops.items()])[1]
    assert len(sheet.data["lines"]) == 3
    for line in sheet.data["lines"]:
        one, other = (scored(tops[line[name][0]]) for name in ("method", "other_method"))
        both = one.keys() & other.keys()
        expected = np.mean([len(one[query] & other[query]) / K for query in both])
        assert line["overlap"]["mean"] == pytest.approx(expected) and line["n_queries"] == len(both)
    assert {line["n_queries"] for line in sheet.data["lines"]} == {7, 8}
    assert [len([cell for cell in line[2:] if cell]) for line in sheet.rows] == [1, 2]


def test_pairs_of_a_query_with_itself_are_left_out_of_replicates() -> None:
    values = np.random.default_rng(1).random((6, 6))
    values += values.T
    counts = resampling.query_counts(6, "x").astype(int)
    replicates = []
    for count in counts:
        drawn = np.repeat(np.arange(6), count)
        pairs = [values[i, j] for i, j in combinations(drawn, 2) if i != j]
        replicates += [np.mean(pairs)] if pairs else []
    mean, low, high = resampling.over_pairs(values, "x")
    assert mean == pytest.approx(np.mean([values[i, j] for i, j in combinations(range(6), 2)]))
    tail = stats.norm.cdf(np.sqrt(6 / 5) * stats.t.ppf(0.025, 5))
    np.testing.assert_allclose((low, high), np.quantile(replicates, [tail, 1 - tail]))  # type: ignore[arg-type]


def test_same_and_disjoint_tops_are_the_extremes() -> None:
    same = TopK(k=2, n_train=9, query_ids=list("abc"), kinds=["heldout"] * 3, ids=[[1, 2]] * 3)
    apart = same.model_copy(update={"ids": [[0, 1], [2, 3], [4, 5]]})
    within, across = build_view("overlap", [row("same", top=same), row("apart", top=apart)])
    assert cells(within)["same@1"]["Overlap×100"] == "100.0 [100.0, 100.0]"
    assert cells(within)["apart@1"]["Overlap×100"] == "0.0 [0.0, 0.0]"
    assert "different heldout queries" in within.title
    assert across.data["lines"][0]["overlap"]["mean"] == pytest.approx((1 + 1 + 0) / 6)


def test_chance_is_what_random_tops_reach() -> None:
    (sheet,) = build_view("overlap", [row("a")])
    chance = re.search(r"overlap×100 of (\S+), a cardinality×100 of (\S+) and a union of (\d+)", "\n".join(sheet.notes))
    assert chance is not None
    draws = [scored(top(seed)) for seed in range(100, 400)]
    sets = [list(draw.values()) for draw in draws]
    assert float(chance[1]) == pytest.approx(
        100 * np.mean([len(a & b) / K for draw in sets for a, b in combinations(draw, 2)]), abs=0.2
    )
    union = np.mean([len(set().union(*draw)) for draw in sets])
    assert float(chance[3]) == pytest.approx(union, abs=0.8)
    assert float(chance[2]) == pytest.approx(100 * union / (8 * K), abs=1)


def test_the_matrix_shows_quick_presets_and_ensembles_and_holds_all() -> None:
    given = [row("a"), row("b"), row("a", preset="paper", params_hash="f" * 16), row("ensemble", preset="a+b")]
    sheet = build_view("overlap", given)[1]
    assert [line[:2] for line in sheet.rows] == [["b@1", "quick"], ["ensemble@1", "a+b"]]
    assert sheet.headings[2:] == ["a@1\nquick", "b@1\nquick"]
    assert len(sheet.data["lines"]) == 6
    alone = build_view("overlap", [row("a", preset=preset) for preset in ("paper", "other")])[1]
    assert len(alone.rows) == 1


def test_overlap_of_one_query_is_unknown() -> None:
    one = TopK(k=2, n_train=9, query_ids=["a", "b"], kinds=["generated"] * 2, ids=[[1, 2], None])
    none = one.model_copy(update={"ids": [None, None]})
    within, across = build_view("overlap", [row("one", top=one), row("none", top=none)])
    assert {line["Overlap×100"] for line in cells(within).values()} == {"-"}
    assert across.data["lines"][0]["overlap"]["mean"] is None


# sanity


def test_sanity_checks_in_columns_with_chance_and_reasons() -> None:
    given = [row("a"), row("b", sanity=sanity(recall="draws no\nnoise")), row("c", sanity=None)]
    sheet = only("sanity", given)
    assert sheet.headings == ["Method", "Preset", "rank", "recall"]
    assert sheet.rows == [["a@1", "quick", "1,234", "0.75"], ["b@1", "quick", "1,234", "-"]]
    assert "Random scores would get: recall 0.002." in sheet.notes
    assert "recall skipped for b@1 quick: draws no noise" in sheet.notes
    assert "Without sanity checks: c@1 quick." in sheet.notes


# formats


@pytest.mark.parametrize("view", NEW)
def test_formats_agree(view: str) -> None:
    sheets = build_view(view, rows())
    data = json.loads(render(sheets, "json"))
    records = list(csv.DictReader(io.StringIO(render(sheets, "csv"))))
    lines = [(sheet, line) for sheet in data for line in sheet["lines"]]
    assert len(lines) == len(records) >= 5
    for (sheet, line), record in zip(lines, records, strict=True):
        assert record["view"] == sheet["view"] and record["task"] == "digits@1"
        for name, value in line.items():
            if isinstance(value, dict) and "mean" in value:
                shown = {part: number for part, number in value.items() if number is not None}
                assert {part: float(record[f"{name}_{part}"]) for part in shown} == shown
            elif not isinstance(value, dict):
                assert record[name] == ("" if value is None else str(value))
    markdown = render(sheets, "markdown")
    for sheet in sheets:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in markdown.splitlines() if line.startswith("|")}
        assert f"### {sheet.title}\n" in markdown and len(sheet.headings) + 1 in widths
        assert all(f"| {' | '.join(line)} |" in markdown for line in sheet.rows)


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("view", NEW)
def test_no_number_is_cut_in_a_terminal(view: str, width: int) -> None:
    for sheet in build_view(view, rows()):
        drawn = render([sheet], "table", width)
        words = re.findall(r"\S+", drawn)
        for cell in (cell for line in sheet.rows for cell in line):
            assert all(word in words for word in cell.split()), cell
        assert "…" not in drawn
        assert width < 120 or max(map(len, drawn.splitlines())) <= width


# the README and the command


def readme(*sections: str) -> str:
    return "\n".join(f"# {section}\n{markers(section)[0]}\nstale\n{markers(section)[1]}\n" for section in sections)


def test_readme_fills_the_sections_that_it_has() -> None:
    text = readme("leaderboard", *NEW)
    once = update_readme(text, rows())
    assert "stale" not in once and update_readme(once, rows()) == once
    for view in NEW:
        begin, end = markers(view)
        assert once.split(begin)[1].split(end)[0] == "\n" + render(build_view(view, rows()), "markdown")
    assert update_readme(readme("leaderboard"), rows()).count("### ") == 1


def test_readme_shows_test_rows_only() -> None:
    text = readme("leaderboard", "removal")
    dev = row("ablated", 0.6, query_set="dev")
    assert update_readme(text, [*rows(), dev]) == update_readme(text, rows())


@pytest.mark.parametrize("broken", ["<!-- removal:begin -->", "<!-- sanity:end -->", readme("overlap") * 2])
def test_half_a_pair_of_markers_is_refused(broken: str) -> None:
    with pytest.raises(UserError, match=r"the file needs one line <!-- (removal|sanity|overlap):begin"):
        update_readme(readme("leaderboard") + broken, rows())


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for one in rows():
        write_row(FolderStore(tmp_path / "results"), one)
    return tmp_path / "results"


def command(*words: str | Path) -> Any:
    return CliRunner().invoke(app, ["leaderboard", *map(str, words)])


@pytest.mark.parametrize("view", NEW)
def test_command_prints_a_view(view: str, results: Path) -> None:
    answer = command("digits", "--results", results, "--view", view, "--format", "json")
    assert answer.exit_code == 0
    assert json.loads(answer.output) == json.loads(render(build_view(view, rows()), "json"))
    loss = command("--results", results, "--view", "removal", "--similarity", "loss")
    assert "loss×1000" in loss.output


def test_command_writes_all_views_into_a_readme(results: Path, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(readme("leaderboard", "removal", "overlap"))
    assert command("--results", results, "--readme", path).exit_code == 0
    assert path.read_text() == update_readme(readme("leaderboard", "removal", "overlap"), rows())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--view", "removl"), "--view 'removl' is none of lds, removal"),
        (("--view", "removal", "--similarity", "sim"), "unknown similarity 'sim'"),
        (("--readme", "README.md", "--view", "removal"), "--readme writes every marked view of the test rows"),
    ],
)
def test_a_mistake_in_the_command_is_one_line(words: tuple[str, ...], said: str, results: Path) -> None:
    error = command("--results", results, *words).exception
    assert isinstance(error, UserError) and said in str(error)
