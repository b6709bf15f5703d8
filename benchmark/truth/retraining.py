"""Retrained models, cached by everything that decides them: recipe, data, seed and the ids that were kept."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from ...models.denoiser import Denoiser
from ...models.problem import Problem, read_problem
from ...models.recipe import Recipe
from ...models.training import snapshot, train, training_loss
from ...store import FolderStore

OVERHEAD = 1.2  # of an update beside its passes: the optimiser's and the average's share


@dataclass(frozen=True)
class Members:
    """Which of the items 0..n-1 a model is trained on, a bit for each: 25 kB for 200,000 of them."""

    packed: bytes
    n: int

    @classmethod
    def of(cls, mask: np.ndarray | Tensor) -> Members:
        """Return the members of a mask [n]."""
        return cls(np.packbits(np.asarray(mask, dtype=bool)).tobytes(), len(mask))

    @property
    def ids(self) -> Tensor:
        """Their ids, ascending, int64."""
        mask = np.unpackbits(np.frombuffer(self.packed, np.uint8), count=self.n)
        return torch.from_numpy(mask.nonzero()[0])

    @cached_property
    def name(self) -> str:
        """How many they are, and a hash of which."""
        ids = tuple(self.ids.tolist())
        return f"n{len(ids)}-{hashlib.sha256(repr(ids).encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class Retraining:
    """One model to be trained: on some items, with a seed."""

    members: Members
    seed: int

    def key(self, recipe: Recipe, fingerprint: str) -> str:
        """Return where its weights are stored."""
        folder = f"models/{recipe.hash()[:12]}-{fingerprint[:12]}-torch{torch_version()}"
        return f"{folder}/seed{self.seed}-{self.members.name}.safetensors"


def torch_version() -> str:
    """Return torch's version without its build, as another version's arithmetic makes other models."""
    return torch.__version__.partition("+")[0]


def retrained(retraining: Retraining, problem: Problem, store: FolderStore, device: str = "cpu") -> Denoiser:
    """Return the retrained model, from the store or by training it there and then.

    Each kind of device has models of its own: another one's sums round otherwise, and after many updates differ. The
    problem's recipe is used, and must be there.
    """
    recipe, kind = problem.recipe, torch.device(device).type
    assert recipe is not None
    key = retraining.key(recipe, problem.identity)
    key = key if kind == "cpu" else f"{kind}/{key}"
    if not store.exists(key):
        members = retraining.members.ids
        model, _ = train(recipe, problem.train, members, retraining.seed, device, base=problem.base)
        store.put(key, save_tensors(snapshot(model)))
    return problem.loaded(load_tensors(store.get(key)), device)


@cache
def opened(folder: Path, plugins: tuple[Path, ...]) -> Problem:
    """Return the problem of a folder, read once for all the models that a worker trains."""
    return read_problem(folder, plugins)


def seconds_per_update(recipe: Recipe, problem: Problem, device: str = "cpu") -> float:
    """Measure how long one update of a recipe takes here, in a second or so."""
    data, model = problem.train, problem.model(0, device)
    batch = data.batch(torch.arange(recipe.batch_size) % len(data))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        training_loss(model, batch, torch.Generator().manual_seed(0), recipe).backward()
        if device != "cpu":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return sorted(times)[2] * OVERHEAD
