"""Removal of one query's top items."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ..helpers import SIZES, cells, numbers, only, removal, removal_row


def test_per_query_curve_over_sizes() -> None:
    held = {"a": removal(0.01), "b": removal(0.0), "c": None}
    given = [removal_row(name, removal=its) for name, its in held.items()]
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
