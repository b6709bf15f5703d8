"""Entries and whole tables without the similarity that is asked for."""

from __future__ import annotations

import pytest

from tdabench.errors import UserError
from tdabench.leaderboard.views.catalogue import build_view
from tdabench.leaderboard.views.sheet import FORMATS, render

from ..helpers import cells, only, removal_row, removal_rows, similarity, with_union

VIEWS_ON_REMOVAL = ("removal", "published", "per-query")


def test_entries_without_the_similarity_are_listed_with_the_reason() -> None:
    sheet = only("removal", [removal_row("a"), with_union("b", similarities={"dino": similarity(0.3)})])
    assert list(cells(sheet)) == ["a@1"]
    assert [(failure.method, failure.reason) for failure in sheet.failures] == [("b@1", "not compared by ssim")]
    assert all("not compared by ssim" in render([sheet], format) for format in FORMATS)


@pytest.mark.parametrize("view", VIEWS_ON_REMOVAL)
def test_a_similarity_that_nobody_has_is_one_line(view: str) -> None:
    with pytest.raises(UserError, match="'dino' was skipped in all rows: too"):
        build_view(view, removal_rows(), "dino")
    with pytest.raises(UserError, match="unknown similarity 'ssin': did you mean 'ssim'"):
        build_view(view, removal_rows(), "ssin")
