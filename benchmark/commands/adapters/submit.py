"""The commands about submissions: packing one, and deriving again what one claims."""

from __future__ import annotations

import secrets
import tempfile
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from ....errors import UserError
from ....leaderboard.rows.files import write_row
from ....leaderboard.rows.row import row_key
from ....store import FolderStore
from ...contract.suite import Check, render, summary
from ...run.plan import checked_options
from ...run.results import Results
from ...sandbox.enclosure import SUBMISSION
from ...submission.contents import Submission, opened
from ...submission.pack import collected, submitted_method, suite_report, write_submission
from ...submission.rerun import Sampled, compared, contract_here, on_open, sampled, verified
from ...submission.verify import Verifier
from ..session import Session, open_planner
from ..terminal import console


class Rerun(NamedTuple):
    """How a submission is run again: queries of each row, what picks them, where, and how far scores may differ."""

    queries: int
    seed: int | None
    device: str
    timeout: float
    tolerance: float


def pack(method: Path, folder: Path, archive: Path, licence: str) -> None:
    """Run the contract suite on a method's file and write it with its rows and their scores as one archive."""
    if not (folder / "results.json").is_file():
        raise UserError(f"{folder} is no folder of results: name that of `tdabench run` with --results")
    file = method.resolve()
    listing = submitted_method(file)
    files = collected(listing, file, Results(folder))
    console.print(f"{listing.name}: running the contract suite, a minute or so")
    write_submission(archive, listing, file, files, suite_report(file), licence)
    rows, size = sum(name.startswith("rows/") for name in files), archive.stat().st_size / 2**20
    console.print(f"{archive}: {rows} rows, {len(files)} files, {size:.1f} MiB", soft_wrap=True, markup=False)


def verify(archive: Path, rerun: Rerun | None, into: Path | None) -> int:
    """Derive again what a submission claims, print what was found, and return the exit code: 1 where something differs.

    With ``rerun`` its code is imported and run; rows that pass are then written ``into`` a folder as verified.
    """
    if into is not None and rerun is None:
        raise UserError("--into writes verified rows, and only --rerun verifies: add it")
    if rerun is not None and (rerun.queries < 1 or not 0 <= rerun.tolerance < 1):
        raise UserError("--queries is at least 1, and --tolerance from 0 to 1")
    with tempfile.TemporaryDirectory(prefix=SUBMISSION) as scratch:
        submission = opened(archive, Path(scratch) / "files")
        verifier = Verifier(submission)
        checks = verifier.checks()
        done: list[Sampled] = []
        if rerun is not None and not _failed(checks):
            done, more = _run_again(verifier, rerun, Path(scratch))
            checks += more
    console.print(render(checks))
    console.print(f"{submission.manifest.method}: {summary(checks)}", soft_wrap=True, markup=False)
    if _failed(checks):
        return 1
    _keep(submission, done, rerun, into)
    return 0


def _failed(checks: list[Check]) -> bool:
    return any(check.status == "fail" for check in checks)


def _run_again(verifier: Verifier, rerun: Rerun, scratch: Path) -> tuple[list[Sampled], list[Check]]:
    seed = secrets.randbits(31) if rerun.seed is None else rerun.seed  # not for a submission's author to foresee
    console.print(f"running submitted code; queries picked by --seed {seed}")
    checks = [contract_here(verifier)]
    if _failed(checks):
        return [], checks
    chosen = sampled(verifier, rerun.queries, seed)
    options, plugins = checked_options(rerun.device, 1, rerun.timeout), (verifier.submission.adapter,)
    for number, (task, group) in enumerate(groupby(chosen, key=lambda one: one.row.key.task)):
        cells = list(group)
        session = Session(open_planner(task, plugins), scratch / f"results-{number}", options)
        rows = {row_key(row.key): row for row in session.run([one.planned for one in cells])}
        checks += [
            compared(verifier, one, rows[row_key(one.planned.key)], session.results, rerun.tolerance) for one in cells
        ]
        checks += [on_open(one, session.run([one.dev])[0]) for one in cells if one.dev is not None]
    return chosen, checks


def _keep(submission: Submission, done: list[Sampled], rerun: Rerun | None, into: Path | None) -> None:
    if rerun is None:
        console.print("metrics follow from the scores; whether the adapter gives these scores, --rerun tells")
    elif into is not None:
        for one in done:
            write_row(FolderStore(into), verified(one, rerun.tolerance))
        console.print(f"{len(done)} verified rows in {into}", soft_wrap=True, markup=False)
