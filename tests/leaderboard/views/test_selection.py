"""What views that show some rows only say of the others, and by which names they show them."""

from __future__ import annotations

import pytest

from tdabench.errors import UserError
from tdabench.leaderboard.views.catalogue import build_view

from ..helpers import HASH, only, removal_row


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
        build_view(view, [removal_row("a", top=None, removal=None, sanity=None)])
    assert all(word in str(caught.value) for word in words)


def test_presets_of_one_name_are_told_apart() -> None:
    given = [removal_row("a"), removal_row("a", params_hash="f" * 16)]
    for view in ("removal", "published", "per-query", "sanity"):
        presets = {line[only(view, given).headings.index("Preset")] for line in only(view, given).rows}
        assert presets == {f"quick-{HASH}", "quick-ffffffff"}
