"""The ground-truth labels' format: a folder per task version, its manifest written last, hashes over everything.

<task>@<version>/manifest.json               recipe, queries, versions, provenance, file hashes; it says complete
                 problem.safetensors         queries, training ids, frozen weights: what methods may see
                 weights-<n>.safetensors     averaged weights after n updates; raw-<n>: those before averaging
                 truth-full.safetensors      losses under models trained on everything
                 truth-open.safetensors      subsets for tuning rules and learned references
                 truth-report.safetensors    subsets for metrics only
                 truth-<role>-<r>            losses under the models of replicate r of a role's subsets
                 regenerated-<role>-<r>      generated queries as these models make them again
                 regenerated-full            the same of models trained on everything
                 truth-groups-<r>            losses under the models of replicate r, each trained without one group
                 regenerated-groups-<r>      generated queries as these models make them again

A task may plan no regenerated queries. In folders of schema version 1, the weights are in problem.safetensors, and all
labels of a role are in one file.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..errors import CorruptFile, UserError, brief, shown
from ..store import FolderStore, read_file, sha256

SCHEMA_VERSION = 2
READ = (1, SCHEMA_VERSION)
SHIPPED = Path(__file__).parent / "truth"
Role = Literal["open", "report"]
FIELDS = ("task", "version", "n_train", "dataset", "recipe", "base_seed", "checkpoints", "queries", "files")
OWN = "manifest_sha256"  # the field with the hash of all others
# Own hashes of the manifests of schema 1 that are read: rows have the hash of the files alone, these bind the rest.
FIRST_SCHEMA = ("a9d6a41bf5a6e1d3a367841b89f92193dd4b4da74fdfe8bdff5c7abb030d3784",)  # digits@1
ABOUT_MODELS = ("truth-", "regenerated-")  # how the names of files begin that no method may see
ABOUT_TRUTH = ("truth_plan", "target", "target_unit")  # fields that a problem alone has not
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Truth:
    """Losses of queries under models retrained on M subsets.

    masks [M, N] bool (True = in the training set); outputs [R, M, Q, bins] float32, mean loss per noise-level bin;
    full [F, Q, bins], the same for models trained on everything.
    """

    role: Role
    query_ids: tuple[str, ...]
    masks: np.ndarray
    outputs: np.ndarray
    full: np.ndarray

    def replicates(self, query_ids: tuple[str, ...]) -> np.ndarray:
        """Return the target of each replicate [R, M, Q], float64: the loss averaged over all bins."""
        columns = [self.query_ids.index(query) for query in query_ids]
        return self.outputs[:, :, columns].astype(np.float64).mean(-1)

    def target(self, query_ids: tuple[str, ...]) -> np.ndarray:
        """Return the R-averaged target [M, Q], float64."""
        return self.replicates(query_ids).mean(0)


@dataclass(frozen=True)
class GroupTruth:
    """Losses of queries under models that were trained without one group each.

    names [G] and assignment int64 [N]: the groups; outputs [R, G, Q, bins] float32, mean loss per noise-level bin; full
    [F, Q, bins], the same for models trained on everything; replicates r of both were trained with the same seed.
    """

    names: tuple[str, ...]
    query_ids: tuple[str, ...]
    assignment: np.ndarray
    outputs: np.ndarray
    full: np.ndarray

    def effects(self, query_ids: tuple[str, ...]) -> np.ndarray:
        """Return by how much each query loses more without each group, in each replicate, [R, G, Q] float64.

        Loss without the group less loss with everything, both averaged over bins: of the same seed, so that what the
        seed does to both cancels, or of all such models where this seed has none.
        """
        columns = [self.query_ids.index(query) for query in query_ids]
        without, full = (part[..., columns, :].astype(np.float64).mean(-1) for part in (self.outputs, self.full))
        paired = [full[r] if r < len(full) else full.mean(0) for r in range(len(without))]
        return without - np.stack(paired)[:, None]


class Assets:
    """An assets folder, opened by its manifest; every file is checked against its hash when it is read."""

    def __init__(self, folder: Path) -> None:
        self.store = FolderStore(folder)
        self.folder = self.store.root
        if not self.store.exists("manifest.json"):
            raise UserError(f"no ground truth in {folder}: its manifest.json is missing; build or import it again")
        self.manifest: dict[str, Any] = self.store.get_json("manifest.json")
        found = self.manifest.get("schema_version") if isinstance(self.manifest, dict) else None
        if found not in READ:
            raise UserError(
                f"{self.folder / 'manifest.json'} has schema version {shown(found)}, not {SCHEMA_VERSION}: rebuild it"
            )
        self.schema: int = found
        check_manifest(self.manifest, self.folder / "manifest.json")

    @property
    def label(self) -> str:
        """``name@version`` of the task."""
        return f"{self.manifest['task']}@{self.manifest['version']}"

    @property
    def sha256(self) -> str:
        """The hash of all that a metric depends on: what a row records as the truth it was computed from."""
        return _hash(self.manifest["files"]) if self.schema == 1 else _hash(self._without("provenance", OWN))

    @property
    def problem_sha256(self) -> str:
        """The hash of all that a method's scores depend on: what a row records as the problem it was asked about."""
        if self.schema == 1:
            return self.manifest["files"]["problem.safetensors"]["sha256"]
        return _hash({**self._without("provenance", OWN, *ABOUT_TRUTH), "files": self._files_of_problem()})

    def _files_of_problem(self) -> dict[str, Any]:
        return {name: file for name, file in self.manifest["files"].items() if not name.startswith(ABOUT_MODELS)}

    def of_problem(self) -> Assets:
        """Return these assets with what methods may see alone, as if no model had been retrained."""
        found = copy.copy(self)
        kept = {name: value for name, value in self.manifest.items() if name not in ABOUT_TRUTH}
        found.manifest = _sealed({**kept, "files": self._files_of_problem()})
        return found

    @property
    def training_sha256(self) -> str:
        """The hash of all that rows of the training set depend on: where it is told apart, no queries."""
        return self.manifest.get("training_sha256") or self.problem_sha256

    def _without(self, *names: str) -> dict[str, Any]:
        """Return the manifest without some of it, nor where the dataset's code was: its fingerprint says all."""
        kept = {name: value for name, value in self.manifest.items() if name not in names}
        dataset = {name: value for name, value in kept["dataset"].items() if name not in ("plugin", "code")}
        return {**kept, "dataset": dataset}

    @property
    def query_ids(self) -> tuple[str, ...]:
        """The queries that losses are measured on, in their order: all but the controls."""
        return tuple(query["id"] for query in self.manifest["queries"] if query["role"] != "control")

    @property
    def generated_ids(self) -> tuple[str, ...]:
        """The queries that are made again, in their order: the generated ones, controls among them."""
        return tuple(query["id"] for query in self.manifest["queries"] if query["kind"] == "generated")

    def has(self, role: Role) -> bool:
        """Say whether there are labels of a role."""
        return f"truth-{role}.safetensors" in self.manifest["files"]

    def arrays(self, name: str) -> Arrays:
        """Return the arrays of one file; raises CorruptFile where it is missing, truncated or edited."""
        return read_arrays(self.store.path(name), self.manifest["files"][name]["sha256"])

    def check_files(self) -> None:
        """Read every file; raises CorruptFile for the first that is not what was written."""
        for name in self.manifest["files"]:
            self.arrays(name)

    def truth(self, role: Role) -> Truth:
        """Return the labels of a role."""
        arrays = self.arrays(f"truth-{role}.safetensors")
        masks = np.unpackbits(arrays["masks"], axis=1, count=self.manifest["n_train"]).astype(bool)
        if self.schema == 1:
            return Truth(role, tuple(self.manifest["query_ids"]), masks, arrays["outputs"], arrays["full"])
        outputs = np.stack([shard["outputs"] for shard in self._shards(f"truth-{role}-")])
        return Truth(role, self.query_ids, masks, outputs, self.arrays("truth-full.safetensors")["outputs"])

    @property
    def has_groups(self) -> bool:
        """Say whether models were trained without each group."""
        return "truth-groups-0.safetensors" in self.manifest["files"]

    def group_truth(self) -> GroupTruth:
        """Return the labels of groups."""
        names, assignment = tuple(self.manifest["groups"]["names"]), self.arrays("problem.safetensors")["groups"]
        outputs = np.stack([shard["outputs"] for shard in self._shards("truth-groups-")])
        full = self.arrays("truth-full.safetensors")["outputs"]
        return GroupTruth(names, self.query_ids, assignment, outputs, full)

    def regenerated(self, role: Role) -> tuple[np.ndarray, np.ndarray]:
        """Return the generated queries as retrained models make them again, float16.

        [R, M, G, C, H, W] of the models on a role's subsets, and [F, G, C, H, W] of those trained on everything. Raises
        UserError where the truth has none.
        """
        if self.schema == 1:
            arrays = self.arrays(f"truth-{role}.safetensors")
            return arrays["regenerated"], arrays["regenerated_full"]
        if "regenerated-full.safetensors" not in self.manifest["files"]:
            raise UserError(f"{self.folder} has no regenerated queries: its task plans none")
        images = np.stack([shard["images"] for shard in self._shards(f"regenerated-{role}-")])
        return images, self.arrays("regenerated-full.safetensors")["images"]

    def _shards(self, prefix: str) -> Iterator[Arrays]:
        for r in range(sum(name.startswith(prefix) for name in self.manifest["files"])):
            yield self.arrays(f"{prefix}{r}.safetensors")


def check_manifest(manifest: dict[str, Any], where: Path) -> None:
    """Raise CorruptFile, which names ``where``, for a manifest that lacks a field or is not what was written."""
    missing = [name for name in (*FIELDS, OWN) if name not in manifest]
    if missing:
        raise CorruptFile(f"{where} lacks {', '.join(missing)}: restore it, or build or import it again")
    if manifest_hash(manifest) != manifest[OWN]:
        raise CorruptFile(f"{where} was edited (its hash is not the one that it says of itself): restore it")
    if manifest.get("schema_version") == 1 and manifest[OWN] not in FIRST_SCHEMA:
        raise CorruptFile(f"{where} is of schema version 1, and not one that shipped: restore it, or build it again")


def manifest_hash(manifest: dict[str, Any]) -> str:
    """Return the hash of all of a manifest but this hash itself."""
    return _hash({name: value for name, value in manifest.items() if name != OWN})


def _sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    return {**manifest, OWN: manifest_hash(manifest)}


def _hash(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode())


def read_arrays(path: Path, expected: str) -> Arrays:
    """Return the arrays of a file of a known hash; raises CorruptFile where it is missing, truncated or edited."""
    try:
        data = read_file(path)
    except FileNotFoundError:
        raise CorruptFile(f"{path} is missing: build or import the truth again") from None
    if sha256(data) != expected:
        raise CorruptFile(f"{path} was truncated or edited (its hash is not the manifest's): restore it")
    try:
        return arrays_in(data)
    except ValueError as error:
        raise CorruptFile(f"{path} is not a safetensors file ({error}): restore it") from error


def arrays_in(data: bytes) -> Arrays:
    """Return the arrays of a safetensors file; raises ValueError for other bytes, and for numbers that NumPy lacks."""
    try:
        return load(data)
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(brief(str(error))) from error


def whole_assets(store: FolderStore, key: str) -> Assets | None:
    """Return the assets that a store keeps in the folder ``key``, None where there are none.

    Where a file of them is not what was written, the folder is set aside, so that they are made again.
    """
    if not store.exists(f"{key}/manifest.json"):
        return None
    try:
        assets = Assets(store.path(key))
        assets.check_files()
    except CorruptFile:
        store.set_aside(key)
        return None
    return assets


def write_assets(
    folder: Path, files: Iterable[tuple[str, Arrays]], manifest: dict[str, Any], base: Assets | None = None
) -> Assets:
    """Write the files one by one, then the manifest with their hashes and sizes; files of a former one are removed.

    base: assets whose files are these assets' too: as links, which take no room, where the disk has them.
    """
    store = FolderStore(folder)
    former = _former(store)
    store.delete("manifest.json")
    for name in former:
        store.delete(name)
    listed = {}
    if base is not None:
        listed |= base.manifest["files"]
        for name in listed:
            _link(base.folder / name, store.path(name))
    for name, arrays in files:
        data = save({key: np.ascontiguousarray(value) for key, value in arrays.items()})
        store.put(name, data)
        listed[name] = {"sha256": sha256(data), "bytes": len(data)}
    store.put_json("manifest.json", _sealed({**manifest, "schema_version": SCHEMA_VERSION, "files": listed}))
    return Assets(folder)


def _link(source: Path, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


def _former(store: FolderStore) -> list[str]:
    """Return the files that the manifest of a folder lists, if it has one that can be read."""
    try:
        return [name for name in store.get_json("manifest.json")["files"] if store.exists(name)]
    except (FileNotFoundError, CorruptFile, KeyError, TypeError, ValueError):
        return []
