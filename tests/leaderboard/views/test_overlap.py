"""Overlap of top items, by brute force."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest

from tdabench.leaderboard.rows.top import TopK
from tdabench.leaderboard.views.catalogue import build_view

from ..helpers import K, cells, removal_row, top


def scored(given: TopK, kind: str = "generated") -> dict[str, set[int]]:
    found = zip(given.query_ids, given.kinds, given.ids, strict=True)
    return {query: set(ids) for query, its, ids in found if its == kind and ids}


@pytest.mark.parametrize(("seed", "pool"), [(0, 500), (1, 30), (2, 12)])
def test_overlap_within_an_entry_is_that_of_sets(seed: int, pool: int) -> None:
    given = top(seed, pool)
    (line,) = build_view("overlap", [removal_row("a", top=given)])[0].data["lines"]
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
    sheet = build_view("overlap", [removal_row(name, top=one) for name, one in tops.items()])[1]
    assert len(sheet.data["lines"]) == 3
    for line in sheet.data["lines"]:
        one, other = (scored(tops[line[name][0]]) for name in ("method", "other_method"))
        both = one.keys() & other.keys()
        expected = np.mean([len(one[query] & other[query]) / K for query in both])
        assert line["overlap"]["mean"] == pytest.approx(expected) and line["n_queries"] == len(both)
    assert {line["n_queries"] for line in sheet.data["lines"]} == {7, 8}
    assert [len([cell for cell in line[2:] if cell]) for line in sheet.rows] == [1, 2]


def test_same_and_disjoint_tops_are_the_extremes() -> None:
    same = TopK(k=2, n_train=9, query_ids=list("abc"), kinds=["heldout"] * 3, ids=[[1, 2]] * 3)
    apart = same.model_copy(update={"ids": [[0, 1], [2, 3], [4, 5]]})
    within, across = build_view("overlap", [removal_row("same", top=same), removal_row("apart", top=apart)])
    assert cells(within)["same@1"]["Overlap×100"] == "100.0 [100.0, 100.0]"
    assert cells(within)["apart@1"]["Overlap×100"] == "0.0 [0.0, 0.0]"
    assert "different heldout queries" in within.title
    assert across.data["lines"][0]["overlap"]["mean"] == pytest.approx((1 + 1 + 0) / 6)


def test_chance_is_what_random_tops_reach() -> None:
    (sheet,) = build_view("overlap", [removal_row("a")])
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
    given = [removal_row("a"), removal_row("b"), removal_row("a", preset="paper", params_hash="f" * 16)]
    given.append(removal_row("ensemble", preset="a+b"))
    sheet = build_view("overlap", given)[1]
    assert [line[:2] for line in sheet.rows] == [["b@1", "quick"], ["ensemble@1", "a+b"]]
    assert sheet.headings[2:] == ["a@1\nquick", "b@1\nquick"]
    assert len(sheet.data["lines"]) == 6
    alone = build_view("overlap", [removal_row("a", preset=preset) for preset in ("paper", "other")])[1]
    assert len(alone.rows) == 1


def test_overlap_of_one_query_is_unknown() -> None:
    one = TopK(k=2, n_train=9, query_ids=["a", "b"], kinds=["generated"] * 2, ids=[[1, 2], None])
    none = one.model_copy(update={"ids": [None, None]})
    within, across = build_view("overlap", [removal_row("one", top=one), removal_row("none", top=none)])
    assert {line["Overlap×100"] for line in cells(within).values()} == {"-"}
    assert across.data["lines"][0]["overlap"]["mean"] is None
