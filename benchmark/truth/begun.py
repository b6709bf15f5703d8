"""Builds in parts: runs that were measured elsewhere, and the share of them that one of several processes does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from ...datasets.truth import whole_assets, write_assets
from ...errors import UserError, shown
from ...store import FolderStore
from ..tasks.spec import TaskSpec
from .build import Job, base_key


class Part(NamedTuple):
    """The ``number``-th of ``count`` parts, from 1: every ``count``-th run."""

    number: int
    count: int

    def of(self, jobs: list[Job]) -> list[Job]:
        """Return the part's runs; no two parts share one, and all parts together have each."""
        return jobs[self.number - 1 :: self.count]

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


WHOLE = Part(1, 1)


def parse_part(text: str) -> Part:
    """Return the part that ``K/N`` names; raises UserError for anything else."""
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    part = Part(int(found[1]), int(found[2])) if found else Part(0, 0)
    if not 1 <= part.number <= part.count:
        raise UserError(f"--part {shown(text)}: say which of how many, as in 2/8")
    return part


def take_base(spec: TaskSpec, origin: FolderStore, store: FolderStore, plugins: tuple[Path, ...] = ()) -> None:
    """Take the base model and queries of a build that was begun in the home ``origin``, unless they are here.

    Raises UserError where there are none of the task as it is here, or where ``store`` has others: runs of the one say
    nothing of the other's queries.
    """
    key = base_key(spec, plugins)
    theirs, ours = whole_assets(origin, key), whole_assets(store, key)
    if theirs is None:
        raise UserError(f"{origin.root} has no base model of {spec.label} as it is here: was it another version's?")
    if ours is None:
        write_assets(store.path(key), (), theirs.manifest, theirs)
    elif ours.problem_sha256 != theirs.problem_sha256:
        raise UserError(f"{origin.root} has another base model of {spec.label} than {ours.folder}: delete one of them")


def take_runs(jobs: list[Job], origin: FolderStore, store: FolderStore) -> int:
    """Copy what runs measured in the home ``origin`` and not here yet; return how many. Damaged ones are left there."""
    taken = 0
    for key in (job.key for job in jobs if store.kept(job.key) is None):
        data = origin.kept(key)
        if data is not None:
            store.keep(key, data)
            taken += 1
    return taken
