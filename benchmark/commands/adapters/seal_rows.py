"""The command seal-rows: the hashes of committed rows, and of what is committed beside them; no torch."""

from __future__ import annotations

from pathlib import Path

from ....errors import UserError
from ....leaderboard.rows.files import seal_rows
from ....leaderboard.rows.listed import seal_folder
from ....leaderboard.rows.reported import seal_reported
from ..leaderboard import rows_folder
from ..terminal import console

BESIDE = {"reported": seal_reported, "ensembles": seal_folder}  # folders beside the committed rows


def seal(folder: Path | None) -> None:
    """Write the list of a folder's rows beside it, or those of all that is committed.

    Raises UserError for a run's folder, CorruptFile where a file is not what its folder holds.
    """
    rows = rows_folder(folder)
    if folder is not None and (rows != folder or (rows.parent / "results.json").is_file()):
        raise UserError(f"{folder} is the folder of a run, whose rows have their hashes beside them: name another")
    seals = {rows: seal_rows} | ({rows.with_name(name): one for name, one in BESIDE.items()} if folder is None else {})
    for place, write in seals.items():
        if place.is_dir():
            path, n = write(place)
            console.print(f"{path}: {n} files", soft_wrap=True, markup=False)
