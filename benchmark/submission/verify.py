"""Deriving again what a submission claims, from its scores and the truth here; its code is read and never imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...datasets.truth import Assets
from ...errors import UserError, brief
from ...leaderboard.rows.row import Row, row_key
from ...plugins import code_files, code_hash
from ...store import file_hash
from ..contract.rules import RULES, Broken
from ..contract.suite import Check
from ..run.record import hash_of_slices
from ..tasks.find import find_task, open_assets
from .archive import MANIFEST
from .contents import Submission
from .derive import NOT_DERIVED, TOLERANCE, Deriver, attributed, width


@dataclass
class Verifier:
    """Checks of one submission against the tasks and truths that are here."""

    submission: Submission
    _assets: dict[str, Assets] = field(default_factory=dict)
    deriver: Deriver = field(default_factory=Deriver)

    def checks(self) -> list[Check]:
        """Return the outcome of every check, up to the first that fails; raises UserError for files that are broken."""
        found: list[Check] = []
        for name, test in CHECKS.items():
            try:
                found.append(Check(name, "pass", test(self)))
            except Broken as reason:
                return [*found, Check(name, "fail", str(reason))]
        return found

    def assets(self, row: Row) -> Assets:
        """Return the truth of a row's task; raises UserError where there is no such task, or no truth of it here."""
        label = row.key.label
        if label not in self._assets:
            self._assets[label] = open_assets(find_task(label))
        return self._assets[label]

    def attributed(self, row: Row) -> tuple[str, ...]:
        """Return the queries of a row's set that its method takes."""
        return attributed(self.assets(row), row.key.query_set, self.submission.listing)

    def width(self, row: Row) -> int:
        """Return how many scores a query has: one an item, or one a group."""
        return width(self.assets(row), self.submission.listing)


def _hashes(verifier: Verifier) -> str:
    """The archive holds what its manifest lists, byte for byte."""
    submission = verifier.submission
    listed, there = submission.manifest.files, set(submission.names) - {MANIFEST}
    if odd := sorted(listed.keys() ^ there):
        raise Broken(f"{brief(odd[0])} is in the manifest or in the archive, not in both")
    for name, entry in listed.items():
        path = submission.folder / name
        if path.stat().st_size != entry.bytes or file_hash(path) != entry.sha256:
            raise Broken(f"{name} is not what the manifest says")
    return f"{len(listed)} files are what the manifest says"


def _adapter(verifier: Verifier) -> str:
    """The adapter is one method of its own name, with just what it imports, and the one that the rows were run with."""
    submission, listing = verifier.submission, verifier.submission.listing
    if listing.version != submission.manifest.method_version:
        raise Broken(
            f"the adapter is version {listing.version}, the manifest says {submission.manifest.method_version}"
        )
    try:
        files = {f"adapter/{name}" for name in code_files(str(submission.adapter))}
    except (SyntaxError, ValueError, ImportError, RecursionError, MemoryError) as error:
        raise UserError(f"the adapter is not valid Python: {brief(str(error))}") from error
    if odd := sorted(files ^ {name for name in submission.names if name.startswith("adapter/")}):
        raise Broken(f"{odd[0]} is no file that the adapter imports, or is missing")
    for row in submission.rows:
        if row.source.adapter_sha256 != code_hash(str(submission.adapter)):
            raise Broken(f"{row_key(row.key)} was run with another adapter than the one submitted")
    return f"{listing.name}@{listing.version}, {len(files)} files, and the hash that all rows have"


def _contract(verifier: Verifier) -> str:
    """The report is one of the whole suite, in which nothing fails."""
    reported = {check.name: check.status for check in verifier.submission.manifest.contract}
    if set(reported) != {rule.name for rule in RULES}:
        raise Broken("the report is not of the contract suite as it is here: pack with this version of tdabench")
    if failed := [name for name, status in reported.items() if status == "fail"]:
        raise Broken(f"the report says that {', '.join(failed)} failed")
    return (
        f"{list(reported.values()).count('pass')} of {len(reported)} checks passed, as reported; --rerun repeats them"
    )


def _rows(verifier: Verifier) -> str:
    """Rows are of the method, measured, of test queries, and hold what can be derived."""
    submission = verifier.submission
    if not submission.rows:
        raise Broken("there is no row")
    for row in submission.rows:
        if wrong := _wrong(row, submission):
            raise Broken(f"{row_key(row.key)}: {wrong}")
    return f"{len(submission.rows)} rows of {submission.manifest.method}"


def _wrong(row: Row, submission: Submission) -> str | None:
    key = row.key
    if (key.method, key.method_version) != (submission.manifest.method, submission.manifest.method_version):
        return f"a row of {key.versioned}, which is not the method submitted"
    if row.source.kind != "measured":
        return f"says {row.source.kind}, which is not for its author to say"
    if row.status not in ("ok", "partial") or key.query_set != "test":
        return f"status {row.status} of {key.query_set} queries, where scores of test queries are due"
    underivable = [name for name in NOT_DERIVED if row.metrics and getattr(row.metrics, name) is not None]
    return f"holds {', '.join(underivable)}, which scores alone do not give" if underivable else None


def _tasks(verifier: Verifier) -> str:
    """Tasks are known here, in the rows' version, with the same problem and truth."""
    for row in verifier.submission.rows:
        assets = verifier.assets(row)
        if (row.source.problem_sha256, row.source.truth_sha256) != (assets.problem_sha256, assets.sha256):
            raise Broken(f"{row_key(row.key)} was measured on another problem or truth than the task has here")
    labels = sorted({row.key.label for row in verifier.submission.rows})
    return f"problem and truth of {', '.join(labels)} are those here"


def _scores(verifier: Verifier) -> str:
    """Scores are there for every query of every row, and for no other, of the shape that the task asks for."""
    submission, used, count = verifier.submission, 0, 0
    for row in submission.rows:
        name, ids, parts = row_key(row.key), verifier.attributed(row), submission.slices(row)
        if [part.start for part, _ in parts] + [len(ids)] != [0] + [part.stop for part, _ in parts]:
            raise Broken(f"the scores of {name} do not cover its {len(ids)} queries, each once")
        for block in submission.blocks(row, ids, verifier.width(row)):
            count += block[1].size
        hashes = [file_hash(path) for _, path in parts]
        if row.source.scores_sha256 != hash_of_slices(hashes):
            raise Broken(f"the scores of {name} are not those whose hash it has")
        used += len(parts)
    if used != sum(name.startswith("scores/") for name in submission.names):
        raise Broken("there are scores that belong to no row")
    return f"{count:,} scores in {used} files, whose hashes are the rows'"


def _metrics(verifier: Verifier) -> str:
    """Every metric and status follows from the scores and the truth here."""
    for row in verifier.submission.rows:
        assets, listing = verifier.assets(row), verifier.submission.listing
        k = find_task(row.key.task).removal.top_k(assets.manifest["n_train"])
        odd = verifier.deriver.disagreement(row, assets, listing, k, lambda row=row: _blocks(verifier, row))
        if odd:
            raise Broken(f"{row_key(row.key)}: {odd}")
    return f"all follow from the scores, within {TOLERANCE:g}"


def _blocks(verifier: Verifier, row: Row) -> Any:
    return verifier.submission.blocks(row, verifier.attributed(row), verifier.width(row))


CHECKS: dict[str, Callable[[Verifier], str]] = {
    "hashes": _hashes,
    "adapter": _adapter,
    "contract": _contract,
    "rows": _rows,
    "tasks": _tasks,
    "scores": _scores,
    "metrics": _metrics,
}
