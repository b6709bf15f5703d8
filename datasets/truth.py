"""The ground-truth labels' format: a folder per task version, its manifest written last, hashes over everything.

<task>@<version>/manifest.json            recipe, versions, provenance, file hashes; its presence says complete
                 problem.safetensors      weights by update count, queries, training ids: what methods may see
                 truth-open.safetensors   subsets for tuning rules and learned references
                 truth-report.safetensors subsets for metrics only
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..errors import CorruptFile, UserError
from ..store import FolderStore, sha256

SCHEMA_VERSION = 1
SHIPPED = Path(__file__).parent / "truth"
Role = Literal["open", "report"]
FIELDS = ("task", "version", "n_train", "dataset", "recipe", "base_seed", "checkpoints")
FIELDS += ("queries", "query_ids", "generated_ids", "files")
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Truth:
    """Losses of queries under models retrained on M subsets.

    masks [M, N] bool (True = in the training set); outputs [R, M, Q, bins] float32, mean loss per noise-level bin;
    full [F, Q, bins], the same for models trained on everything; regenerated [R, M, G, C, H, W] and
    regenerated_full [F, G, C, H, W] float16, generated queries and controls made again from their initial noise.
    """

    role: Role
    query_ids: tuple[str, ...]
    generated_ids: tuple[str, ...]
    masks: np.ndarray
    outputs: np.ndarray
    full: np.ndarray
    regenerated: np.ndarray
    regenerated_full: np.ndarray

    def replicates(self, query_ids: tuple[str, ...]) -> np.ndarray:
        """Return the target of each replicate [R, M, Q], float64: the loss averaged over all bins."""
        columns = [self.query_ids.index(query) for query in query_ids]
        return self.outputs[:, :, columns].astype(np.float64).mean(-1)

    def target(self, query_ids: tuple[str, ...]) -> np.ndarray:
        """Return the R-averaged target [M, Q], float64."""
        return self.replicates(query_ids).mean(0)


class Assets:
    """An assets folder, opened by its manifest; every file is checked against its hash when it is read."""

    def __init__(self, folder: Path) -> None:
        self.store = FolderStore(folder)
        self.folder = self.store.root
        if not self.store.exists("manifest.json"):
            raise UserError(f"no ground truth in {folder}: its manifest.json is missing; build or import it again")
        self.manifest: dict[str, Any] = self.store.get_json("manifest.json")
        found = self.manifest.get("schema_version") if isinstance(self.manifest, dict) else None
        if found != SCHEMA_VERSION:
            raise UserError(
                f"{self.folder / 'manifest.json'} has schema version {found}, not {SCHEMA_VERSION}: rebuild it"
            )
        missing = [name for name in FIELDS if name not in self.manifest]
        if missing:
            raise CorruptFile(f"{self.folder / 'manifest.json'} lacks {', '.join(missing)}: restore it")

    @property
    def sha256(self) -> str:
        """The hash of all files' hashes: what a row records as the truth it was computed from."""
        return sha256(json.dumps(self.manifest["files"], sort_keys=True).encode())

    def arrays(self, name: str) -> Arrays:
        """Return the arrays of one file; raises CorruptFile where it is missing, truncated or edited."""
        expected = self.manifest["files"][name]["sha256"]
        try:
            data = self.store.get(name)
        except FileNotFoundError:
            raise CorruptFile(f"{self.folder / name} is missing: build or import the truth again") from None
        if sha256(data) != expected:
            raise CorruptFile(
                f"{self.folder / name} was truncated or edited (its hash is not the manifest's): restore it"
            )
        try:
            return load(data)
        except SafetensorError as error:
            raise CorruptFile(f"{self.folder / name} is not a safetensors file ({error}): restore it") from error

    def truth(self, role: Role) -> Truth:
        """Return the labels of a role."""
        arrays, meta = self.arrays(f"truth-{role}.safetensors"), self.manifest
        masks = np.unpackbits(arrays["masks"], axis=1, count=meta["n_train"]).astype(bool)
        ids = tuple(meta["query_ids"]), tuple(meta["generated_ids"])
        names = ("outputs", "full", "regenerated", "regenerated_full")
        return Truth(role, *ids, masks, *(arrays[name] for name in names))


def truth_arrays(truth: Truth) -> Arrays:
    """Return what ``Assets.truth`` reads back."""
    return {
        "masks": np.packbits(truth.masks, axis=1),
        "outputs": truth.outputs.astype(np.float32),
        "full": truth.full.astype(np.float32),
        "regenerated": truth.regenerated.astype(np.float16),
        "regenerated_full": truth.regenerated_full.astype(np.float16),
    }


def write_assets(folder: Path, files: dict[str, Arrays], manifest: dict[str, Any]) -> Assets:
    """Write the files, then the manifest with their hashes and sizes."""
    store = FolderStore(folder)
    store.delete("manifest.json")
    listed = {}
    for name, arrays in files.items():
        data = save({key: np.ascontiguousarray(value) for key, value in arrays.items()})
        store.put(name, data)
        listed[name] = {"sha256": sha256(data), "bytes": len(data)}
    store.put_json("manifest.json", {"schema_version": SCHEMA_VERSION, **manifest, "files": listed})
    return Assets(folder)
