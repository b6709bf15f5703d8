"""Sanity checks as columns."""

from __future__ import annotations

from ..helpers import only, removal_row, sanity


def test_sanity_checks_in_columns_with_chance_and_reasons() -> None:
    given = [removal_row("a"), removal_row("b", sanity=sanity(recall="draws no\nnoise")), removal_row("c", sanity=None)]
    sheet = only("sanity", given)
    assert sheet.headings == ["Method", "Preset", "rank", "recall"]
    assert sheet.rows == [["a@1", "quick", "1,234", "0.75"], ["b@1", "quick", "1,234", "-"]]
    assert "Random scores would get: recall 0.002." in sheet.notes
    assert "recall skipped for b@1 quick: draws no noise" in sheet.notes
    assert "Without sanity checks: c@1 quick." in sheet.notes
