"""Builds in parts: runs that were measured elsewhere, and the share of them that one of several processes does.

Elsewhere is another home, or a finished truth of fewer models, which grows so.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from safetensors.numpy import save

from ...datasets.truth import Arrays, Assets, whole_assets, write_assets
from ...errors import UserError, shown
from ...store import FolderStore
from ..tasks.find import check_assets
from ..tasks.spec import TaskSpec
from .build import Job, base_key, shard_of
from .subsets import ROLES


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


COUNTS = {"report", "open", "report_replicates", "open_replicates", "full"}  # of models; the rest says what they are


class Begun(Protocol):
    """Where a build was begun."""

    @property
    def where(self) -> Path:
        """The folder, for messages."""
        ...

    def base(self, spec: TaskSpec, key: str) -> Assets | None:
        """Return the base model and queries; None where there are none of the task."""
        ...

    def measured(self, job: Job) -> bytes | None:
        """Return what was measured of a run, as a build stores it; None where it was not, or is damaged."""
        ...


class BegunHome(NamedTuple):
    """Another home, with what builds store there."""

    store: FolderStore

    @property
    def where(self) -> Path:
        """The folder, for messages."""
        return self.store.root

    def base(self, spec: TaskSpec, key: str) -> Assets | None:
        """Return the whole ones under the key that they have here too."""
        return whole_assets(self.store, key)

    def measured(self, job: Job) -> bytes | None:
        """Return it as it was kept."""
        return self.store.kept(job.key)


class FinishedTruth:
    """A whole truth of the task, with other numbers of models than it has now."""

    def __init__(self, assets: Assets) -> None:
        self.assets, self._shards = assets, dict[str, Arrays]()

    @property
    def where(self) -> Path:
        """The folder, for messages."""
        return self.assets.folder

    def base(self, spec: TaskSpec, key: str) -> Assets | None:
        """Return the truth's; raises CorruptFile where it is of another recipe or measured otherwise."""
        if self.assets.label != spec.label:
            return None
        if self.assets.schema == 1:
            raise UserError(f"{self.where} is of schema version 1, whose losses are not told apart: build the whole")
        check_assets(self.assets, _as_planned(spec, self.assets.manifest), self.where)
        return self.assets.of_problem()

    def measured(self, job: Job) -> bytes | None:
        """Return a row of the truth's arrays; raises UserError where its models are no part of this task's."""
        self._check(job)
        found = {"outputs": self._row(f"truth-{shard_of(job.run)}", "outputs", job.run.index)}
        if job.plan.regenerated:
            found["regenerated"] = self._row(f"regenerated-{shard_of(job.run)}", "images", job.run.index)
        whole = {name: value for name, value in found.items() if value is not None}
        return save(whole) if len(whole) == len(found) else None

    def _row(self, name: str, array: str, index: int) -> Any:
        found = self._arrays(f"{name}.safetensors").get(array, ())
        return found[index] if index < len(found) else None

    def _arrays(self, name: str) -> Arrays:
        if name not in self._shards:
            self._shards[name] = self.assets.arrays(name) if name in self.assets.manifest["files"] else {}
        return self._shards[name]

    def _check(self, job: Job) -> None:
        """Raise UserError where the truth's models are of another kind of device, or its subsets are others."""
        run, device = job.run, self.assets.manifest["provenance"].get("device", "cpu")
        if device != job.device.split(":")[0]:
            raise UserError(
                f"{self.where} was built on {device}: say --device {device}, as all of a truth's models are"
            )
        masks = self._arrays(f"truth-{run.role}.safetensors").get("masks", ()) if run.role in ROLES else ()
        if run.index < len(masks) and masks[run.index].tobytes() != run.retraining.members.packed:
            raise UserError(f"{self.where} has another {run.role} subset {run.index} than the task: it cannot grow")


def _as_planned(spec: TaskSpec, manifest: dict[str, Any]) -> TaskSpec:
    """Return a task with as many models as a truth has of it."""
    planned = manifest.get("truth_plan") or {}
    counts = {name: planned[name] for name in COUNTS & set(planned)}
    return replace(spec, truth=replace(spec.truth, **counts))


def open_begun(folder: Path) -> Begun:
    """Return what was begun in a folder; raises UserError where that is neither a home nor a truth."""
    if (folder / "manifest.json").is_file():
        return FinishedTruth(Assets(folder))
    if (folder / "base").is_dir():
        return BegunHome(FolderStore(folder))
    raise UserError(
        f"--begun {folder} holds no begun build: name a home, the folder that has `base` and `measured`, or a truth's"
    )


def take_base(spec: TaskSpec, begun: Begun, store: FolderStore, plugins: tuple[Path, ...] = ()) -> None:
    """Take the base model and queries of a build that was begun elsewhere, unless they are here.

    Raises UserError where there are none of the task as it is here, or where ``store`` has others: runs of the one say
    nothing of the other's queries.
    """
    key = base_key(spec, plugins)
    theirs, ours = begun.base(spec, key), whole_assets(store, key)
    if theirs is None:
        raise UserError(f"{begun.where} has no base model of {spec.label} as it is here: was it another version's?")
    if ours is None:
        write_assets(store.path(key), (), theirs.manifest, theirs)
    elif ours.problem_sha256 != theirs.problem_sha256:
        raise UserError(f"{begun.where} has another base model of {spec.label} than {ours.folder}: delete one of them")


def take_runs(jobs: list[Job], begun: Begun, store: FolderStore) -> int:
    """Copy what runs measured elsewhere and not here yet; return how many. Damaged ones are left there."""
    taken = 0
    for job in (job for job in jobs if store.kept(job.key) is None):
        data = begun.measured(job)
        if data is not None:
            store.keep(job.key, data)
            taken += 1
    return taken
