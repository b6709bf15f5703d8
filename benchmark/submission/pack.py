"""Packing a submission: the adapter, the rows of a run, their scores, and the contract suite's report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ...errors import UserError
from ...leaderboard.rows.files import row_bytes
from ...leaderboard.rows.row import Row, row_key
from ...methods.registry import Listing, listings
from ...plugins import code_files, code_hash
from ...store import sha256
from ..contract.shut import check_shut_in
from ..contract.suite import Check, summary
from ..run.environment import environment
from ..run.results import Results
from ..unpacking import Listed
from .archive import MANIFEST, write_archive
from .contents import scores_folder, stored_slices
from .derive import derivable
from .manifest import Checked, Manifest


def submitted_method(file: Path) -> Listing:
    """Return the one method in a file; raises UserError where there is none, or more."""
    if not file.is_file():
        raise UserError(f"no file {file}: --method is the Python file that registers the method")
    own = [listing for listing in listings((file,)).values() if listing.origin == str(file)]
    if len(own) != 1:
        raise UserError(f"{file} registers {len(own)} methods: a submission is of one")
    if own[0].members:
        raise UserError(f"{own[0].name} reads other methods' scores: submit these, an ensemble is made here")
    return own[0]


def collected(listing: Listing, file: Path, results: Results) -> dict[str, bytes]:
    """Return the adapter, rows and scores by name in the archive; raises UserError where they do not belong together.

    Metrics that need more than scores and truth are left out: nobody could derive them again.
    """
    rows = [row for row in results.all_rows() if row.key.method == listing.name and row.key.query_set == "test"]
    usable = [row for row in rows if row.status in ("ok", "partial")]
    if not usable:
        raise UserError(
            f"{results.folder} has no row of {listing.name} with scores of test queries: run `tdabench run TASK "
            f"--methods {listing.name} --plugin {file} --results {results.folder}` first"
        )
    files = {f"adapter/{name}": source for name, source in code_files(str(file)).items()}
    for row in usable:
        _check(row, listing, file)
        record = results.record(row.key, row.diagnostics["identity"])
        if record.scores_hash() != row.source.scores_sha256:
            raise UserError(f"the scores of {row_key(row.key)} are not those of its row: run its cell again")
        files[f"rows/{row_key(row.key)}"] = row_bytes(derivable(row))
        files |= {f"{scores_folder(row)}/{name}": data for name, data in stored_slices(record).items()}
    return files


def _check(row: Row, listing: Listing, file: Path) -> None:
    if row.key.method_version != listing.version or row.source.adapter_sha256 != code_hash(str(file)):
        raise UserError(
            f"{row_key(row.key)} was run with another state of {file} than it has now: run its cell again, and give a "
            f"changed method a new version"
        )


def suite_report(file: Path) -> list[Check]:
    """Return the contract suite's outcome on a method's file; raises UserError where it breaks the contract."""
    checks = check_shut_in(file)
    if any(check.status == "fail" for check in checks):
        raise UserError(f"{file} breaks the contract ({summary(checks)}): see `tdabench check-method {file}`")
    return checks


def write_submission(
    archive: Path, listing: Listing, file: Path, files: Mapping[str, bytes], checks: list[Check], licence: str
) -> None:
    """Write the archive with its manifest."""
    manifest = Manifest(
        method=listing.name,
        method_version=listing.version,
        adapter=file.name,
        licence=licence,
        contract=[Checked(name=one.name, status=one.status, detail=one.detail) for one in checks],
        environment=environment("cpu", 1, 1),
        files={name: Listed(sha256=sha256(data), bytes=len(data)) for name, data in sorted(files.items())},
    )
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"
    write_archive(archive, {**files, MANIFEST: text.encode()})
