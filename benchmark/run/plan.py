"""Planning a run: which cells, from what entries, and what decides whether stored results still hold."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from ...datasets.truth import Assets
from ...errors import UserError, shown, unknown
from ...leaderboard.rows.row import Key
from ...methods.base import Method
from ...methods.registry import (
    Entry,
    Listing,
    listings,
    params_hash,
    params_json,
    preset_params,
)
from ...models.encoders import BUILT_IN
from ...models.encoders.published import Unavailable
from ...models.encoders.weights import Weights, find_weights
from ...models.precision import Precision, check_precision
from ...seeds import digest
from ..metrics.scores import of_kinds, query_ids
from ..processes import cores
from ..tasks.spec import TaskSpec
from .described import code_of, planning_class

MOST = 10**6  # of what is counted on the command line: cells at a time, images a pass


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
    precision: Precision = "float32"
    isolated: bool = True
    devices: tuple[str, ...] = ()  # several: they share making rows of the training set, and change no score

    @property
    def encloses(self) -> bool:
        """Whether cells are shut in: not where helpers on other devices must open the problem later."""
        return self.isolated and not self.devices


@dataclass(frozen=True)
class PlannedCell:
    """A cell with what decides whether stored results still hold.

    unmet: why an encoder that it needs cannot be had; compares: the encoders by which the method compares images.
    """

    key: Key
    cls: type[Method]
    params: Any
    assets: Assets
    query_ids: tuple[str, ...]
    code: str
    plugins: tuple[str, ...]
    members: dict[str, PlannedCell] = field(default_factory=dict)
    encoders: dict[str, Weights] = field(default_factory=dict)
    unmet: str | None = None
    compares: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """What the scores depend on: method, parameters, code, problem, queries, seed, and encoders if any."""
        members = [member.identity for member in self.members.values()]
        encoders = [[name, weights.identity] for name, weights in sorted(self.encoders.items())]
        parts = [self.key.model_dump(), self.code, self.problem_sha256, self.query_ids, members]
        return digest([*parts, encoders] if encoders else parts)

    @property
    def problem_sha256(self) -> str:
        """The hash of the problem: model, training set and queries."""
        return self.assets.problem_sha256

    @property
    def plugin_paths(self) -> tuple[Path, ...]:
        """The plugin files, of which one may hold the dataset."""
        return tuple(map(Path, self.plugins))

    @property
    def attributed_ids(self) -> tuple[str, ...]:
        """The queries of those kinds that the method takes; the others are missing from its row."""
        return of_kinds(self.assets.manifest, self.query_ids, self.cls.query_kinds)

    @property
    def entry(self) -> Entry:
        """The method and preset."""
        return Entry(self.key.method, self.key.preset)

    def on(self, assets: Assets, query_set: str, seed: int | None = None) -> PlannedCell:
        """Return the cell of the same method and parameters on a derived problem, with its members there."""
        members = {name: member.on(assets, query_set, seed) for name, member in self.members.items()}
        ids = query_ids(assets.manifest, query_set)
        return replace(self.asking(ids, query_set, seed), assets=assets, members=members)

    def asking(self, ids: tuple[str, ...], query_set: str, seed: int | None = None) -> PlannedCell:
        """Return the cell of the same method and parameters for other queries of the problem."""
        key = {"query_set": query_set, "seed": self.key.seed if seed is None else seed}
        return replace(self, key=self.key.model_copy(update=key), query_ids=ids)


class Selection(NamedTuple):
    """What a user asks for: methods by name (none: all) less the excluded ones, a default preset, seeds."""

    names: Sequence[str]
    excluded: Sequence[str]
    preset: str
    seeds: Sequence[int]


@dataclass(frozen=True)
class Planner:
    """Plans cells of one task, with methods of the package and of plugins.

    encoders: those that methods may have, by name, each with its weights, or None for the published ones; precision: in
    which their networks compute; isolated: whether what describes plugins is shut in.
    """

    spec: TaskSpec
    assets: Assets
    plugins: tuple[Path, ...] = ()
    encoders: Mapping[str, str | None] = field(default_factory=dict)
    precision: Precision = "float32"
    isolated: bool = True

    @cached_property
    def known(self) -> dict[str, Listing]:
        """All methods by name, read once; raises UserError for a plugin that cannot be read."""
        return listings(self.plugins)

    def method(self, name: str) -> type[Method]:
        """Return what planning takes of a method; raises UserError for an unknown one, or one that does not import."""
        if name not in self.known:
            raise unknown("method", name, self.known)
        return planning_class(name, self.known[name].origin, self.plugins, self.isolated)

    def selected(self, selection: Selection) -> list[PlannedCell]:
        """Return the cells of a selection on test queries; raises UserError for unknown names, or for none."""
        entries = parse_entries(selection.names, selection.excluded, selection.preset, self.known)
        if not entries:
            raise UserError("no methods left to run: check --methods and --exclude")
        return self.cells(entries, seeds=selection.seeds)

    def cells(
        self,
        entries: Sequence[Entry],
        query_set: str = "test",
        seeds: Sequence[int] = (0,),
        params: Mapping[str, Any] | None = None,
    ) -> list[PlannedCell]:
        """Return one cell per entry and seed, ensembles after the others; ``params`` by method replace the presets'."""
        ids = query_ids(self.assets.manifest, query_set)
        if not ids:
            raise UserError(f"task {self.spec.name!r} has no {query_set!r} queries")
        ordered = sorted(entries, key=lambda entry: bool(self.known[entry.method].members))
        given = params or {}
        return [self._cell(entry, query_set, ids, seed, given) for seed in seeds for entry in ordered]

    def _cell(
        self,
        entry: Entry,
        query_set: str,
        ids: tuple[str, ...],
        seed: int,
        given: Mapping[str, Any],
        above: tuple[Entry, ...] = (),
    ) -> PlannedCell:
        if entry in above:
            raise UserError(f"{entry} is a member of itself: give it other members")
        cls, above = self.method(entry.method), (*above, entry)
        params = given.get(entry.method) or preset_params(cls, entry.preset)
        read = {name: self._member(name, entry.preset) for name in cls.reads(params)}
        members = {name: self._cell(member, query_set, ids, seed, {}, above) for name, member in read.items()}
        for name, member in members.items():
            if member.cls.unit != cls.unit:
                raise UserError(f"{entry} scores {cls.unit}s and {name} {member.cls.unit}s: it cannot be a member")
        plugins = tuple(str(path.resolve()) for path in self.plugins)
        key = self._key(entry, cls, params, query_set, seed)
        compares = tuple(cls.encoders_of(params))
        encoders, unmet = self._weights(compares if "encoder" in cls.needs else ())
        code = code_of(cls)
        return PlannedCell(key, cls, params, self.assets, ids, code, plugins, members, encoders, unmet, compares)

    def _weights(self, wanted: Sequence[str]) -> tuple[dict[str, Weights], str | None]:
        """Return the weights of encoders that are given or need none, and why one of these cannot be had."""
        found: dict[str, Weights] = {}
        for name in wanted:
            if name in BUILT_IN or name in self.encoders:
                try:
                    found[name] = _found(name, self.encoders.get(name))
                except Unavailable as error:
                    return found, f"needs the image encoder {error}"
        return found, None

    def _member(self, name: str, preset: str) -> Entry:
        method, _, own = name.partition(":")
        if method not in self.known:
            raise unknown("ensemble member", method, self.known)
        return Entry(method, own or (preset if preset in self.known[method].presets else "quick"))

    def _key(self, entry: Entry, cls: type[Method], params: Any, query_set: str, seed: int) -> Key:
        return Key(
            task=self.spec.name,
            task_version=self.spec.version,
            method=entry.method,
            method_version=cls.version,
            preset=entry.preset,
            params=params_json(params),
            params_hash=params_hash(params),
            query_set=query_set,
            seed=seed,
            precision=self.precision,
        )


@cache
def _found(name: str, weights: str | None) -> Weights:
    return find_weights(name, weights)


def parse_entries(
    names: Sequence[str], excluded: Sequence[str], preset: str, known: Mapping[str, Listing]
) -> list[Entry]:
    """Return entries for names like ``pixel`` or ``pixel:rbf``; no names means every method.

    Raises UserError for an unknown method or preset.
    """
    entries = [_entry(name, preset, known) for name in names or sorted(known)]
    for name in excluded:
        if name.partition(":")[0] not in known:
            raise unknown("method", name, known)
    return [entry for entry in dict.fromkeys(entries) if entry.method not in excluded and str(entry) not in excluded]


def _entry(name: str, preset: str, known: Mapping[str, Listing]) -> Entry:
    method, _, own = name.partition(":")
    if method not in known:
        raise unknown("method", method, known)
    chosen = own or preset
    if not known[method].offers(chosen):
        raise unknown(f"preset of {method!r}:", chosen, known[method].presets)
    return Entry(method, chosen)


def command_line() -> str:
    """Return the command that is running, for a row's provenance."""
    return shlex.join(["tdabench", *sys.argv[1:]])


def checked_options(
    device: str = "cpu",
    jobs: int = 0,
    timeout: float = 3600.0,
    memory: float = 0.0,
    micro_batch: int = 512,
    force: bool = False,
    retry: bool = False,
    precision: str = "float32",
    isolated: bool = True,
) -> Options:
    """Return options for what the command line says; raises UserError for a device or precision that is not there."""
    check_device(device)
    known = check_precision(precision, device)
    if not (jobs >= 0 and 0 < timeout < math.inf and 0 <= memory < math.inf and micro_batch >= 1):
        raise UserError("--jobs and --memory must not be negative, --timeout and --micro-batch must be positive")
    if jobs > MOST or micro_batch > MOST:
        raise UserError(f"--jobs and --micro-batch must not be above {MOST:,}")
    jobs = jobs or (cores() if device == "cpu" else 1)
    limit = int(memory * 2**30) or int(0.8 * psutil.virtual_memory().available / jobs)
    threads, asked = max(1, cores() // jobs), memory > 0
    return Options(device, micro_batch, threads, jobs, timeout, limit, asked, force, retry, known, isolated)


def check_device(device: str) -> None:
    """Raise UserError unless ``device`` can be computed on."""
    import torch

    try:
        kind, index = torch.device(device).type, torch.device(device).index
    except RuntimeError:
        raise UserError(f"--device {shown(device)} is no device: use cpu, cuda or cuda:N") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {device}: no CUDA device is available here; use --device cpu")
    if kind == "cuda" and (index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {device}: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    if kind != "cuda" and device != "cpu":
        raise UserError(f"--device {shown(device)} is not supported: use cpu, cuda or cuda:N")
