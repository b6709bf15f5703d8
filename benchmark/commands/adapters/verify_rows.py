"""The command verify-rows: metrics and costs of stored rows, derived again from their cells' records and the truth."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from rich.text import Text

from ....datasets.truth import Assets
from ....errors import CorruptFile, UserError, brief, shown
from ....leaderboard.rows.files import load_row, load_rows
from ....leaderboard.rows.row import Cost, Row, row_key
from ....methods.registry import Listing, listings
from ....store import FolderStore
from ...metrics.scores import Blocks
from ...run.record import Record
from ...run.reporting import TRUTH_OF
from ...run.results import Results
from ...submission.derive import NOT_DERIVED, NOT_RECORDED, Deriver, attributed, derived_cost, difference, width
from ...tasks.find import find_task, open_assets
from ...tasks.spec import TaskSpec
from ..leaderboard import rows_folder
from ..terminal import console

Verdict = Literal["agrees", "differs", "unchecked"]
STYLES = {"agrees": "green", "differs": "bold red", "unchecked": "yellow"}
IDENTITY = re.compile(r"[0-9a-f]{8,64}")


class Found(NamedTuple):
    """What became of a row: its verdict, and the figures or the reason."""

    row: Row
    verdict: Verdict
    detail: str


class _Unchecked(Exception):
    """Why a row cannot be checked here."""


def verify_rows(folder: Path, task: str | None, plugins: tuple[Path, ...]) -> int:
    """Derive every row's metrics again and print what agrees; return 1 where one differs, or none could be checked."""
    store = FolderStore(rows_folder(folder))
    rows = load_rows(store, task, edited=True)
    if not rows:
        raise UserError(f"no rows{f' of {shown(task)}' if task else ''} in {folder}: run `tdabench run` first")
    results = Results(folder) if (folder / "results.json").is_file() else None
    checker, counts = Checker(store, results, listings(plugins), plugins), Counter[str]()
    for found in map(checker.check, rows):
        counts[found.verdict] += 1
        where = row_key(found.row.key).removesuffix(".json")
        line = Text.assemble((f"{found.verdict:9}", STYLES[found.verdict]), f" {where}: {found.detail}")
        console.print(line, soft_wrap=True)
    said = f"{counts['agrees']} agree, {counts['differs']} differ, {counts['unchecked']} cannot be checked here"
    console.print(f"{len(rows)} rows: {said}", NOT_RECORDED, sep="\n", soft_wrap=True)
    return int(counts["differs"] > 0 or counts["agrees"] == 0)


@dataclass
class Checker:
    """Checks rows of a results folder, or, where ``results`` is None, rows without any scores."""

    rows: FolderStore
    results: Results | None
    known: dict[str, Listing]
    plugins: tuple[Path, ...]
    deriver: Deriver = field(default_factory=Deriver)
    _tasks: dict[str, tuple[TaskSpec, Assets]] = field(default_factory=dict)

    def check(self, row: Row) -> Found:
        """Return what becomes of a row: one whose numbers agree also has the hash that lies beside it."""
        found = self._derived(row)
        if found.verdict == "differs":
            return found
        try:
            load_row(self.rows, row_key(row.key))
        except CorruptFile as error:
            return Found(row, "differs", str(error))
        return found

    def _derived(self, row: Row) -> Found:
        try:
            assets, listing, record = self._inputs(row)
        except _Unchecked as reason:
            return Found(row, "unchecked", str(reason))
        try:
            cost = derived_cost(row, record)
            odd = self._disagreement(row, assets, listing, record) or _other_cost(row, cost)
        except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
            return Found(row, "differs", f"what its cell left cannot be read: {brief(str(error))}")
        return Found(row, "differs", odd) if odd else Found(row, "agrees", _what_agrees(row, cost))

    def _inputs(self, row: Row) -> tuple[Assets, Listing, Record]:
        """Return what a row is checked by; raises _Unchecked where some of it is not here."""
        if row.metrics is None:
            raise _Unchecked(f"status {row.status}, without any numbers")
        if row.key.query_set not in TRUTH_OF:
            raise _Unchecked(f"no truth goes with {row.key.query_set} queries")
        listing = self.known.get(row.key.method)
        if listing is None:
            raise _Unchecked(f"the method {row.key.method!r} is not here: give its file with --plugin")
        if listing.version != row.key.method_version:
            raise _Unchecked(f"the method is at version {listing.version} here")
        return self._assets(row), listing, self._record(row)

    def _assets(self, row: Row) -> Assets:
        try:
            _, assets = self._task(row.key.label)
        except UserError as error:
            raise _Unchecked(str(error)) from error
        own = row.source.problem_sha256, row.source.truth_sha256
        for what, said, here in zip(("problem", "truth"), own, (assets.problem_sha256, assets.sha256), strict=True):
            if said != here:
                raise _Unchecked(f"it is of another {what} ({(said or 'none')[:16]}) than the one here ({here[:16]})")
        return assets

    def _task(self, label: str) -> tuple[TaskSpec, Assets]:
        if label not in self._tasks:
            spec = find_task(label, self.plugins)
            self._tasks[label] = spec, open_assets(spec)
        return self._tasks[label]

    def _record(self, row: Row) -> Record:
        identity = row.diagnostics.get("identity")
        if self.results is None or not isinstance(identity, str) or not IDENTITY.fullmatch(identity):
            raise _Unchecked("no scores of it are here")
        record = self.results.record(row.key, identity)
        if not record.parts():
            raise _Unchecked(f"no scores of it are here: {record.store.root} holds none")
        return record

    def _disagreement(self, row: Row, assets: Assets, listing: Listing, record: Record) -> str | None:
        if row.source.scores_sha256 != record.scores_hash():
            return "its scores are not those whose hash it has"
        ids, n = attributed(assets, row.key.query_set, listing), width(assets, listing)
        k = self._task(row.key.label)[0].removal.top_k(assets.manifest["n_train"])
        return self.deriver.disagreement(row, assets, listing, k, lambda: _checked(record.blocks(ids), n))


def _checked(blocks: Blocks, n: int) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """Yield scores; raises CorruptFile where they are not float32 of as many queries and items."""
    for ids, scores in blocks:
        if scores.dtype != np.float32 or scores.shape != (len(ids), n):
            raise CorruptFile(f"{scores.dtype} {list(scores.shape)} where float32 {[len(ids), n]} belong")
        yield ids, scores


def _other_cost(row: Row, cost: Cost | None) -> str | None:
    """Return where a row's cost is not what was measured, where that is known."""
    if row.cost is None or cost is None:
        return None
    return difference(row.cost.model_dump(mode="json"), cost.model_dump(mode="json"), "cost")


def _what_agrees(row: Row, cost: Cost | None) -> str:
    assert row.metrics is not None
    means = [f"LDS of {kind} {100 * (one.mean or 0):.1f}" for kind, one in row.metrics.lds.items()]
    means += [f"groups of {kind}" for kind in row.metrics.groups] + (["top items"] if row.metrics.top else [])
    means += ["cost"] if cost is not None else []
    other = [name for name in NOT_DERIVED if getattr(row.metrics, name) is not None]
    other += ["cost"] if row.cost is not None and cost is None else []
    return ", ".join(means) + (f" (not derivable: {', '.join(other)})" if other else "")
