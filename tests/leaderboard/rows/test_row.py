"""What a row holds must be consistent, and keys differ wherever cells do."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tdabench.leaderboard.rows.exemplars import ExemplarScores
from tdabench.leaderboard.rows.removal import Change
from tdabench.leaderboard.rows.row import LdsResult, row_key

from ..helpers import change as make_change
from ..helpers import make_key, make_lds
from ..helpers import removal as make_removal


def test_replicates_are_stored_short_and_scores_exact() -> None:
    result = make_lds(1 / 3)
    assert result.mean == 1 / 3
    assert all(value == round(value, 6) for value in result.replicates if value is not None)


@pytest.mark.parametrize(
    "change",
    [
        {"n_nan": 1},
        {"values": [0.1], "mean": 0.1},
        {"query_ids": ["q"] * 20},
        {"mean": float("nan")},
        {"mean": None},
        {"low": float("inf")},
        {"low": 0.5, "high": 0.4},
        {"low": None},
        {"high": None},
        {"values": [None] * 20, "n_nan": 20, "mean": 0.0},
        {"values": [0.0] * 20, "mean": None},
        {"values": [0.0] * 20, "mean": 1e-6},
    ],
)
def test_lds_result_must_be_consistent(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LdsResult.model_validate(make_lds(0.4).model_dump() | change)


def test_no_values_have_no_mean_and_nothing_changes_later() -> None:
    nothing = {"values": [None] * 20, "n_nan": 20, "mean": None, "low": None, "high": None}
    result = LdsResult.model_validate(make_lds(0.4).model_dump() | nothing)
    with pytest.raises(ValidationError, match="frozen"):
        result.mean = 0.4


@pytest.mark.parametrize("grid", [[], [[0.1], [0.1, 0.2]]])
def test_a_change_has_a_value_for_every_seed_and_query(grid: list[list[float]]) -> None:
    whole = make_change(0.1, 8).model_dump()
    assert Change.model_validate(whole)
    with pytest.raises(ValidationError, match="not of one shape"):
        Change.model_validate(whole | dict.fromkeys(("floor", "after", "random"), grid))


def test_a_removal_without_encoders_is_written_as_before_there_were_hashes_of_them() -> None:
    known = {"ssim": "b" * 16}
    assert "encoders" not in make_removal(0.3).model_dump()
    assert make_removal(0.3, encoders=known).model_dump() == make_removal(0.3).model_dump() | {"encoders": known}


def test_a_query_counts_once_among_exemplars() -> None:
    measures = {"ap": {"values": [0.5], "mean": 0.5, "chance": 0.1}}
    fields = {"k": 1, "steps": 5, "cases": [0], "measures": measures}
    assert ExemplarScores.model_validate(fields | {"query_ids": ["q"]})
    for ids in (["q", "q"], ["q", "r"], []):
        with pytest.raises(ValidationError, match="for each distinct query"):
            ExemplarScores.model_validate(fields | {"query_ids": ids})


def test_keys_differ_wherever_cells_do() -> None:
    changes = [
        {},
        {"seed": 1},
        {"query_set": "dev"},
        {"preset": "quick"},
        {"method_version": 2},
        {"params_hash": "f" * 16},
    ]
    assert len({row_key(make_key(**change)) for change in changes}) == len(changes)
