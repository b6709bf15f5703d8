"""The command check: current rows against a baseline; no torch."""

from __future__ import annotations

import math
from pathlib import Path

from ...errors import UserError, shown
from ...leaderboard.check.costs import Limits
from ...leaderboard.check.formats import FORMATS, report
from ...leaderboard.check.verdict import judge
from ...leaderboard.rows.files import load_rows
from ...store import FolderStore
from .leaderboard import rows_folder
from .terminal import console, text_width


def check(baseline: Path | None, current: Path, task: str | None, limits: Limits, format: str, out: Path | None) -> int:
    """Print, or write to a file, what got worse; return 1 where something did, or where nothing could be compared."""
    if format not in FORMATS:
        raise UserError(f"--format {shown(format)} is none of {', '.join(FORMATS)}")
    if not (1 <= limits.time < math.inf and 1 <= limits.memory < math.inf and 0 <= limits.fall < 1):
        raise UserError("--time-factor and --memory-factor are at least 1, --fall is from 0 to 1")
    verdict = judge(load_rows(rows_folder(baseline), task), load_rows(rows_folder(current), task), limits)
    text = report(verdict, format, text_width())
    if out is None:
        print(text, end="")
    else:
        FolderStore(out.parent).put(out.name, text.encode())
        console.print(f"{verdict.summary}; {format} in {out}", soft_wrap=True, markup=False)
    return int(not verdict.passed)
