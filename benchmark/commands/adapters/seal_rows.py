"""The command seal-rows: the list of the hashes of committed rows; no torch."""

from __future__ import annotations

from pathlib import Path

from ....errors import UserError
from ....leaderboard.rows.files import seal_rows
from ..leaderboard import rows_folder
from ..terminal import console


def seal(folder: Path | None) -> None:
    """Write the list of a folder's rows, or of the committed ones, beside it; raises UserError for a run's folder."""
    rows = rows_folder(folder)
    if folder is not None and (rows != folder or (rows.parent / "results.json").is_file()):
        raise UserError(f"{folder} is the folder of a run, whose rows have their hashes beside them: name another")
    path, n = seal_rows(rows)
    console.print(f"{path}: {n} rows", soft_wrap=True, markup=False)
