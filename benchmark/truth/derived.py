"""Problems derived from a task's, kept by what they were made from: assets without truth, for ordinary cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...datasets.base import ImageDataset
from ...datasets.find import load_dataset
from ...datasets.truth import FIELDS, Assets, whole_assets, write_assets
from ...errors import UserError
from ...models.latents import with_latents
from ...models.problem import Problem, problem_files, query_list, read_problem
from ...seeds import digest
from ...store import LONG_CLAIM_S, FolderStore, home

Plugins = tuple[Path, ...]
DERIVATION = 2  # part of every derived problem's name: bumped when they are derived in another way


@dataclass(frozen=True)
class Source:
    """What problems are derived from: a task's assets, and the plugins that may hold its dataset."""

    assets: Assets
    plugins: Plugins = ()

    @property
    def label(self) -> str:
        """``name@version`` of the task."""
        return self.assets.label

    @property
    def train_ids(self) -> Tensor:
        """The dataset's ids of the training items, int64 [N]."""
        return torch.from_numpy(self.assets.arrays("problem.safetensors")["train_ids"])

    def problem(self) -> Problem:
        """Read the task's problem."""
        return read_problem(self.assets.folder, self.plugins)

    def dataset(self) -> ImageDataset:
        """Load the task's dataset, all of it."""
        return load_dataset(self.assets.manifest["dataset"]["name"], self.plugins)

    def items(self, ids: Tensor, problem: Problem) -> ImageDataset:
        """Return items of the dataset as the problem's model sees them: of a latent model with their latents."""
        found, coder = self.dataset().select(ids), problem.coder()
        return found if coder is None else with_latents(found, coder, FolderStore(home()))

    def key(self, variant: str, *inputs: Any) -> str:
        """Return where a variant lies in the store of derived problems: by the task's problem and these inputs."""
        return f"{self.label}-{variant}-{digest([DERIVATION, self.assets.problem_sha256, *inputs])}"


def derived_store() -> FolderStore:
    """Return the store of derived problems, a folder for each key."""
    return FolderStore(home() / "derived")


def is_derived(key: str) -> bool:
    """Say whether a problem was derived, and is as it was written."""
    return whole_assets(derived_store(), key) is not None


@contextmanager
def deriving(key: str) -> Iterator[None]:
    """Derive what belongs to a key alone; raises UserError where another process is deriving it."""
    store = derived_store()
    with store.claim(key, LONG_CLAIM_S) as held:
        if not held:
            raise UserError(f"another process is deriving {store.path(key)}: wait for it, or stop it first")
        yield


def write_derived(
    key: str, source: Source, variant: str, train_ids: Tensor, problem: Problem, more: Mapping[str, Any] | None = None
) -> Assets:
    """Write a derived problem, its queries in the role ``variant``; ``more``: fields of its manifest."""
    queries, assets = replace(problem.queries, roles=(variant,) * len(problem.queries)), source.assets
    manifest = {
        **{name: assets.manifest[name] for name in FIELDS},
        **({"groups": assets.manifest["groups"]} if problem.groups else {}),
        "n_train": len(problem.train),
        "dataset": {**assets.manifest["dataset"], "fingerprint": problem.train.fingerprint()},
        "checkpoints": list(problem.weights),
        "queries": query_list(queries, source.dataset()),
        "derived": {"variant": variant, "problem_sha256": assets.problem_sha256},
        **(more or {}),
    }
    files = problem_files(replace(problem, queries=queries), train_ids)
    return write_assets(derived_store().path(key), files, manifest)
