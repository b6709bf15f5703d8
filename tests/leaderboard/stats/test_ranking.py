"""The ranking on synthetic replicates."""

from __future__ import annotations

import numpy as np
import pytest

from tdabench.errors import UserError
from tdabench.leaderboard.rows.row import LdsResult, Metrics, Row
from tdabench.leaderboard.stats import ranking
from tdabench.leaderboard.views.lds import build_tables

from ..helpers import lds_row, make_key, make_lds, make_source


def ranges(*rows: Row) -> dict[str, tuple[int, int]]:
    return {entry.method: value for entry, value in ranking.rank_ranges(ranking.standings(rows)).items()}


def test_pairing_separates_what_single_intervals_do_not() -> None:
    one, other = ranking.standings([lds_row("b", 0.40), lds_row("a", 0.42)])
    assert one.entry.method == "a" and one.overall.low is not None and other.overall.high is not None
    assert one.overall.low < other.overall.high
    assert np.median(ranking.paired_difference(one, other)) == pytest.approx(0.02, abs=1e-3)
    assert ranking.better(one, other) and not ranking.better(other, one)
    assert ranges(lds_row("b", 0.40), lds_row("a", 0.42)) == {"a": (1, 1), "b": (2, 2)}


def test_a_tie_shares_a_range() -> None:
    assert ranges(lds_row("a", 0.4001), lds_row("b", 0.4), lds_row("c", 0.2)) == {
        "a": (1, 2),
        "b": (1, 2),
        "c": (3, 3),
    }


def test_chain_of_overlapping_ranges() -> None:
    rows = [lds_row(name, mean) for name, mean in (("a", 0.404), ("b", 0.4), ("c", 0.396))]
    assert ranges(*rows) == {"a": (1, 2), "b": (1, 3), "c": (2, 3)}


def test_overall_score_is_the_mean_over_kinds() -> None:
    (standing,) = ranking.standings([lds_row("a", 0.4, 0.2)])
    assert standing.overall.mean == pytest.approx(0.3)
    parts = [standing.kinds[kind].replicates for kind in ("heldout", "generated")]
    np.testing.assert_allclose(standing.overall.replicates, np.mean(parts, axis=0))


def test_seeds_are_averaged_into_one_entry() -> None:
    rows = [lds_row("a", mean, key=make_key("a", seed=seed)) for seed, mean in enumerate((0.3, 0.5))]
    (standing,) = ranking.standings(rows)
    assert standing.overall.mean == pytest.approx(0.4)
    assert standing.overall.replicates.mean() == pytest.approx(0.4, abs=0.01)
    assert standing.asked == 40


@pytest.mark.parametrize(
    "other",
    [
        lds_row(key=make_key(task_version=2)),
        lds_row(key=make_key(query_set="dev")),
        lds_row("trak", 0.4, 0.2),
        lds_row(source=make_source(truth_sha256="b" * 64)),
    ],
)
def test_what_is_not_comparable_never_shares_a_table(other: Row) -> None:
    with pytest.raises(UserError, match="cannot be ranked together"):
        ranking.standings([lds_row(), other])
    assert [len(table.lines) for table in build_tables([lds_row(), other])] == [1, 1]


def test_different_numbers_of_replicates_are_not_paired() -> None:
    short = LdsResult.model_validate(make_lds(0.4).model_dump() | {"replicates": [0.4] * 10})
    with pytest.raises(UserError, match="a and b hold 1000 and 10 bootstrap replicates"):
        ranges(lds_row("a", 0.5), lds_row("b", metrics=Metrics(lds={"heldout": short})))


def test_incomplete_entries_have_no_rank_and_hold_nobody_down() -> None:
    partial = lds_row("a", status="partial", metrics=Metrics(lds={"heldout": make_lds(0.6, missing=8)}))
    assert ranges(partial, lds_row("b", 0.4)) == {"b": (1, 1)}
    line = build_tables([partial, lds_row("b", 0.4)])[0].lines[0]
    assert (line.method, line.status, line.rank_best, line.beats_random) == ("a@1", "partial", None, None)


def test_random_is_the_bar_where_it_was_measured() -> None:
    rows = [lds_row("far", 0.3), lds_row("near", 0.2), lds_row("random", 0.1999)]
    ranked = far, near, _ = ranking.standings(rows)
    assert [ranking.beats_random(standing, ranked) for standing in ranked] == [True, False, None]
    assert ranking.beats_random(near, [far, near]) is True
    (weak,) = ranking.standings([lds_row("weak", 0.01)])
    assert ranking.beats_random(weak, [weak]) is False
