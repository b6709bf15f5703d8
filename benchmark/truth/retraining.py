"""Retrained models, cached by everything that decides them: recipe, data, seed and the ids that were kept."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from ...models.denoiser import Denoiser
from ...models.recipe import Recipe
from ...models.training import State, TrainingSet, build, load, snapshot, train, training_loss
from ...store import FolderStore


@dataclass(frozen=True)
class Retraining:
    """One model to be trained: on the items ``members`` (ascending ids) with a seed."""

    members: tuple[int, ...]
    seed: int

    def key(self, recipe: Recipe, fingerprint: str) -> str:
        """Return where its weights are stored."""
        ids = hashlib.sha256(repr(self.members).encode()).hexdigest()[:16]
        folder = f"models/{recipe.hash()[:12]}-{fingerprint[:12]}-torch{torch_version()}"
        return f"{folder}/seed{self.seed}-n{len(self.members)}-{ids}.safetensors"


def torch_version() -> str:
    """Return torch's version without its build, as another version's arithmetic makes other models."""
    return torch.__version__.partition("+")[0]


def retrained(
    retraining: Retraining,
    recipe: Recipe,
    data: TrainingSet,
    fingerprint: str,
    store: FolderStore,
    device: str = "cpu",
) -> Denoiser:
    """Return the retrained model, from the store or by training it there and then.

    Each kind of device has models of its own: another one's sums round otherwise, and after many updates differ.
    """
    kind = torch.device(device).type
    key = retraining.key(recipe, fingerprint) if kind == "cpu" else f"{kind}/{retraining.key(recipe, fingerprint)}"
    if not store.exists(key):
        model, _ = train(recipe, data, torch.tensor(retraining.members), retraining.seed, device)
        state: State = snapshot(model)
        store.put(key, save_tensors(state))
    model = load(recipe.model, load_tensors(store.get(key)), device)
    model.null = data.null
    return model


def seconds_per_update(recipe: Recipe, data: TrainingSet, device: str = "cpu") -> float:
    """Measure how long one update of a recipe takes here, in a second or so."""
    model = build(recipe.model, 0).to(device)
    model.null = data.null
    batch = data.batch(torch.arange(recipe.batch_size) % len(data))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        training_loss(model, batch, torch.Generator().manual_seed(0), recipe).backward()
        if device != "cpu":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return sorted(times)[2] * 1.2  # the optimiser's and the average's share
