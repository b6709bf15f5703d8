"""Planning a run: which cells, from what entries, and what each will cost."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...datasets.truth import Assets
from ...errors import UserError, unknown
from ...leaderboard.rows.row import Key
from ...methods.base import Method
from ...methods.registry import Entry, Listing, listings, method_class, params_hash, preset_params
from ...seeds import digest
from ..metrics.scores import query_ids
from ..tasks.spec import TaskSpec
from .environment import code_hash


@dataclass(frozen=True)
class Options:
    """How cells are run: what ``tdabench run`` takes besides the entries."""

    device: str = "cpu"
    micro_batch: int = 512
    threads: int = 1
    jobs: int = 2
    timeout_s: float = 3600.0
    memory_bytes: int | None = None
    memory_asked: bool = True  # False: the limit is what happened to be free, which is no reason to run again
    force: bool = False
    retry: bool = False


@dataclass(frozen=True)
class PlannedCell:
    """A cell with what decides whether stored results still hold."""

    key: Key
    cls: type[Method]
    params: Any
    assets: Assets
    query_ids: tuple[str, ...]
    code: str
    plugins: tuple[str, ...]
    members: dict[str, PlannedCell] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """What the scores depend on: method, parameters, code, problem, queries and seed."""
        problem = self.assets.manifest["files"]["problem.safetensors"]["sha256"]
        return digest(
            [
                self.key.model_dump(),
                self.code,
                problem,
                self.query_ids,
                [member.identity for member in self.members.values()],
            ]
        )

    @property
    def attributed_ids(self) -> tuple[str, ...]:
        """The queries of those kinds that the method takes; the others are missing from its row."""
        kinds = {query["id"]: query["kind"] for query in self.assets.manifest["queries"]}
        return tuple(query for query in self.query_ids if kinds[query] in self.cls.query_kinds)

    @property
    def entry(self) -> Entry:
        """The method and preset."""
        return Entry(self.key.method, self.key.preset)


def parse_entries(names: list[str], excluded: list[str], preset: str, known: dict[str, Listing]) -> list[Entry]:
    """Return entries for names like ``pixel`` or ``pixel:rbf``; no names means every method.

    Raises UserError for an unknown method or preset.
    """
    entries = []
    for name in names or sorted(known):
        method, _, own = name.partition(":")
        if method not in known:
            raise unknown("method", method, known)
        chosen = own or preset
        if not known[method].offers(chosen):
            raise unknown(f"preset of {method!r}:", chosen, known[method].presets)
        entries.append(Entry(method, chosen))
    for name in excluded:
        if name.partition(":")[0] not in known:
            raise unknown("method", name, known)
    return [entry for entry in dict.fromkeys(entries) if entry.method not in excluded and str(entry) not in excluded]


def plan_cells(
    spec: TaskSpec,
    assets: Assets,
    entries: list[Entry],
    seeds: list[int],
    query_set: str,
    plugins: tuple[Path, ...] = (),
    params: dict[str, Any] | None = None,
) -> list[PlannedCell]:
    """Return one cell per entry and seed, ensembles after the others; ``params`` overrides those of every entry."""
    known = listings(plugins)
    ordered = sorted(entries, key=lambda entry: bool(known[entry.method].members))
    make = _Planner(spec, assets, query_set, plugins, known)
    return [make.cell(entry, seed, params) for seed in seeds for entry in ordered]


@dataclass(frozen=True)
class _Planner:
    spec: TaskSpec
    assets: Assets
    query_set: str
    plugins: tuple[Path, ...]
    known: dict[str, Listing]

    def cell(self, entry: Entry, seed: int, overrides: dict[str, Any] | None = None) -> PlannedCell:
        cls = method_class(entry.method, self.plugins)
        params = overrides[entry.method] if overrides else preset_params(cls, entry.preset)
        members = {name: self.cell(self._member(name, entry.preset), seed) for name in cls.reads(params)}
        ids = query_ids(self.assets.manifest, self.query_set)
        if not ids:
            raise UserError(f"task {self.spec.name!r} has no {self.query_set!r} queries")
        plugins = tuple(str(path.resolve()) for path in self.plugins)
        file = Path(sys.modules[cls.__module__].__file__ or "")
        key = self._key(entry, cls, params, seed)
        return PlannedCell(key, cls, params, self.assets, ids, code_hash(file), plugins, members)

    def _member(self, name: str, preset: str) -> Entry:
        method, _, own = name.partition(":")
        if method not in self.known:
            raise unknown("ensemble member", method, self.known)
        wanted = own or (preset if preset in self.known[method].presets else "quick")
        return Entry(method, wanted)

    def _key(self, entry: Entry, cls: type[Method], params: Any, seed: int) -> Key:
        return Key(
            task=self.spec.name,
            task_version=self.spec.version,
            method=entry.method,
            method_version=cls.version,
            preset=entry.preset,
            params=json.loads(json.dumps(asdict(params))),
            params_hash=params_hash(params),
            query_set=self.query_set,
            seed=seed,
        )


def command_line() -> str:
    """Return the command that is running, for a row's provenance."""
    return shlex.join(["tdabench", *sys.argv[1:]])
