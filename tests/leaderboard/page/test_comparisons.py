"""Ties, paired differences and scores by query: against counting replicates one by one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tdabench.leaderboard.page.comparisons import comparisons, scores_by_query
from tdabench.leaderboard.page.entries import ranked_tables
from tdabench.leaderboard.rows.row import Metrics
from tdabench.leaderboard.stats.ranking import paired_p, standings, tie_groups

from ..helpers import lds_row, make_key, make_lds


def replicates(row):
    return np.array(row.metrics.lds["heldout"].replicates)


def rows_of(*means, spread=0.002):
    lds = [make_lds(mean, spread, offset=index) for index, mean in enumerate(means)]
    return [lds_row(f"m{i}", key=make_key(f"m{i}"), metrics=Metrics(lds={"heldout": one})) for i, one in enumerate(lds)]


def test_a_pair_holds_the_difference_its_interval_and_p():
    one, other = rows_of(0.40, 0.399)
    difference = replicates(one) - replicates(other)
    ((i, j, mean, low, high, p),) = comparisons(ranked_tables([one, other])[0].entries)
    assert (i, j) == (0, 1) and mean == pytest.approx(0.1)
    assert (low, high) == pytest.approx(tuple(100 * np.quantile(difference, [0.025, 0.975])), abs=0.006)
    side = min(sum(difference <= 0), sum(difference >= 0))
    assert p == pytest.approx(2 * (side + 1) / 1001) and 0.2 < p < 1


def test_p_is_never_zero_and_one_for_an_entry_with_itself():
    far, near = standings(rows_of(0.5, 0.1))
    assert paired_p(far, near) == pytest.approx(2 / 1001) == paired_p(near, far)
    assert paired_p(far, far) == 1.0


def test_a_tie_group_ends_where_its_best_entry_is_significantly_better():
    ranked = standings(rows_of(0.50, 0.499, 0.494, 0.493, 0.2))
    found = tie_groups(ranked)
    leader, expected, number = ranked[0], [], 0
    for one in ranked:
        if np.quantile(leader.overall.replicates - one.overall.replicates, 0.025) > 0:
            leader, number = one, number + 1
        expected.append(number)
    assert list(found.values()) == expected == [0, 0, 1, 1, 2]
    assert all(later in (one, one + 1) for one, later in pairwise(found.values()))


def test_entries_without_all_queries_have_no_group_and_no_pair():
    rows = [
        *rows_of(0.5, 0.4),
        lds_row("part", status="partial", metrics=Metrics(lds={"heldout": make_lds(0.9, missing=3)})),
    ]
    ranked = ranked_tables(rows)[0]
    assert [entry.tie for entry in ranked.entries] == [None, 0, 1]
    assert [pair[:2] for pair in comparisons(ranked.entries)] == [[1, 2]]


def test_scores_by_query_are_means_over_seeds_and_missing_where_one_is():
    full, part = make_lds(0.4), make_lds(0.3, missing=2)
    rows = [lds_row(key=make_key(seed=s), metrics=Metrics(lds={"heldout": one})) for s, one in enumerate((full, part))]
    (entry,) = ranked_tables(rows)[0].entries
    assert scores_by_query(entry, ["q0", "q1", "q2", "nobody"]) == [None, None, 35.0, None]
