"""The README's sections: filled between their markers only, and with nothing heavy imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tdabench.errors import UserError
from tdabench.leaderboard.readme import markers, update_readme
from tdabench.leaderboard.views.catalogue import build_view
from tdabench.leaderboard.views.sheet import render

from .helpers import OTHER_VIEWS, failed_row, lds_rows, readme, removal_row, removal_rows

BEGIN, END = markers("leaderboard")


def test_readme_changes_between_the_markers_only() -> None:
    text = f"# Title\n{BEGIN}\nstale table\n{END}\ntail\n"
    once = update_readme(text, lds_rows())
    assert once.startswith(f"# Title\n{BEGIN}\n") and once.endswith(f"{END}\ntail\n")
    assert "stale table" not in once and "| mucs-retain@1 |" in once
    assert update_readme(once, lds_rows()) == once
    assert "No rows yet." in update_readme(once, [])


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_readme_without_one_pair_of_markers_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="leaderboard:begin"):
        update_readme(text, [])


def test_a_reason_cannot_break_the_readme() -> None:
    hostile = failed_row(reason=f"died | {END} |")
    once = update_readme(f"{BEGIN}\n{END}\n", [hostile])
    assert once.count(END) == 1 and update_readme(once, [hostile]) == once


def test_a_report_imports_nothing_heavy() -> None:
    code = (
        "import sys, tdabench.leaderboard.readme\n"
        "heavy = {'torch', 'scipy', 'pandas', 'rich', 'tdabench.methods', 'tdabench.benchmark', 'tdabench.models'}\n"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")


def test_readme_fills_the_sections_that_it_has() -> None:
    text = readme("leaderboard", *OTHER_VIEWS)
    once = update_readme(text, removal_rows())
    assert "stale" not in once and update_readme(once, removal_rows()) == once
    for view in OTHER_VIEWS:
        begin, end = markers(view)
        assert once.split(begin)[1].split(end)[0] == "\n" + render(build_view(view, removal_rows()), "markdown")
    assert update_readme(readme("leaderboard"), lds_rows()).count("### ") == 1


def test_readme_shows_test_rows_only() -> None:
    text = readme("leaderboard", "removal")
    dev = removal_row("ablated", 0.6, query_set="dev")
    assert update_readme(text, [*removal_rows(), dev]) == update_readme(text, removal_rows())


@pytest.mark.parametrize("broken", ["<!-- removal:begin -->", "<!-- sanity:end -->", readme("overlap") * 2])
def test_half_a_pair_of_markers_is_refused(broken: str) -> None:
    with pytest.raises(UserError, match=r"the file needs one line <!-- (removal|sanity|overlap):begin"):
        update_readme(readme("leaderboard") + broken, removal_rows())
