"""Retrained models, cached by everything that decides them: recipe, data, seed and the ids that were kept."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from ..models.denoiser import Denoiser
from ..models.recipe import Recipe
from ..models.training import State, TrainingSet, load, train
from ..store import FolderStore


@dataclass(frozen=True)
class Retraining:
    """One model to be trained: on the items ``members`` (ascending ids) with a seed."""

    members: tuple[int, ...]
    seed: int

    def key(self, recipe: Recipe, fingerprint: str) -> str:
        """Return where its weights are stored."""
        ids = hashlib.sha256(repr(self.members).encode()).hexdigest()[:16]
        return f"models/{recipe.hash()[:12]}-{fingerprint[:12]}/seed{self.seed}-n{len(self.members)}-{ids}.safetensors"


def retrained(
    retraining: Retraining, recipe: Recipe, data: TrainingSet, fingerprint: str, store: FolderStore
) -> Denoiser:
    """Return the retrained model, from the store or by training it there and then."""
    key = retraining.key(recipe, fingerprint)
    if not store.exists(key):
        model, _ = train(recipe, data, torch.tensor(retraining.members), retraining.seed)
        state: State = {name: value.contiguous() for name, value in model.net.state_dict().items()}
        store.put(key, save_tensors(state))
    return load(recipe.model, load_tensors(store.get(key)))
