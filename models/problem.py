"""A problem: model, training set, queries and recipe, which is all that a method ever sees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..datasets.base import ImageDataset
from ..datasets.find import load_dataset
from ..datasets.queries import Queries
from ..datasets.truth import Arrays, Assets
from ..errors import CorruptFile
from .denoiser import Denoiser
from .latents import Autoencoder
from .recipe import ModelSpec, Recipe
from .training import State, build, load


@dataclass(frozen=True)
class Problem:
    """What attribution is asked about.

    train: N items; weights: network weights by update count (0 = untrained, the largest = final);
    recipe: None for a model whose training is unknown; autoencoder: its weights, of a latent model; base: the weights
    that training starts from, where only a part of them trains and ``weights`` holds that part.
    """

    name: str
    train: ImageDataset
    queries: Queries
    spec: ModelSpec
    weights: dict[int, State]
    recipe: Recipe | None = None
    seed: int = 0
    autoencoder: State | None = None
    base: State | None = None

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Update counts of the stored weights in ascending order."""
        return tuple(sorted(self.weights))

    def model(self, at: int, device: torch.device | str = "cpu") -> Denoiser:
        """Return a private copy of the model after ``at`` updates, in eval mode; 0: untrained, stored or not."""
        if at == 0 and 0 not in self.weights:
            model = build(self.spec, self.seed, self.base).to(device)
        else:
            model = load(self.spec, self.weights[at], device, self.base)
        model.null = self.train.null
        return model

    def pixels(self, x: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """Return what the model makes as images [B, C, H, W]: decoded, of a latent model."""
        if self.spec.autoencoder is None or self.autoencoder is None:
            return x
        return Autoencoder(self.spec.autoencoder, self.autoencoder, device).decode(x)


def read_problem(folder: Path, plugins: tuple[Path, ...] = ()) -> Problem:
    """Return the problem of an assets folder; only the manifest and the problem's file are opened.

    plugins: files that may hold its dataset.
    """
    assets = Assets(folder)
    meta, arrays = assets.manifest, assets.arrays("problem.safetensors")
    recipe, coder = Recipe.from_json(meta["recipe"]), _named(arrays, "autoencoder/")
    data = load_dataset(meta["dataset"]["name"], plugins).select(torch.from_numpy(arrays["train_ids"]))
    if recipe.model.autoencoder:
        encoder = Autoencoder(recipe.model.autoencoder, coder).hash
        data = replace(data, latents=torch.from_numpy(arrays["train_latents"]), encoder=encoder)
    if data.fingerprint() != meta["dataset"]["fingerprint"]:
        raise CorruptFile(
            f"the images of {meta['dataset']['name']!r} are not those that {folder} was built from: "
            "install the dataset's pinned revision or rebuild the truth"
        )
    weights, queries = {step: weights_from(arrays, step) for step in meta["checkpoints"]}, queries_from(meta, arrays)
    parts = {"autoencoder": coder or None, "base": _named(arrays, "base/") or None}
    return Problem(meta["task"], data, queries, recipe.model, weights, recipe, meta["base_seed"], **parts)


def problem_arrays(
    train_ids: Tensor,
    weights: dict[int, State],
    queries: Queries,
    latents: Tensor | None = None,
    autoencoder: State | None = None,
    base: State | None = None,
) -> Arrays:
    """Return what ``read_problem`` reads back; of a latent model with the training set's latents, the same for all."""
    named = {f"weights/{step}/{name}": value for step, state in weights.items() for name, value in state.items()}
    named |= {"queries/x": queries.x, "queries/noise": queries.noise, "queries/guidance": queries.guidance}
    named |= {f"queries/cond/{name}": value for name, value in queries.cond.items()}
    named |= {f"autoencoder/{name}": value for name, value in (autoencoder or {}).items()}
    named |= {f"base/{name}": value for name, value in (base or {}).items()}
    named |= {"queries/images": queries.images} if queries.images is not None else {}
    named |= {"train_latents": latents} if latents is not None else {}
    return {name: value.numpy() for name, value in {"train_ids": train_ids, **named}.items()}


def query_list(queries: Queries) -> list[dict[str, str | int]]:
    """Return the queries' plain values for a manifest."""
    fields = zip(queries.ids, queries.kinds, queries.roles, queries.source, strict=True)
    return [{"id": i, "kind": kind, "role": role, "source": source} for i, kind, role, source in fields]


def queries_from(meta: dict[str, Any], arrays: Arrays) -> Queries:
    """Return the queries that ``problem_arrays`` and ``query_list`` describe."""
    listed = meta["queries"]
    tensors = {name: torch.from_numpy(arrays[f"queries/{name}"]) for name in ("x", "noise", "guidance")}
    images = arrays.get("queries/images")
    return Queries(
        ids=tuple(query["id"] for query in listed),
        kinds=tuple(query["kind"] for query in listed),
        roles=tuple(query["role"] for query in listed),
        source=tuple(query["source"] for query in listed),
        cond=_named(arrays, "queries/cond/"),
        images=None if images is None else torch.from_numpy(images),
        **tensors,
    )


def weights_from(arrays: Arrays, step: int) -> State:
    """Return the weights after ``step`` updates from ``problem_arrays``."""
    return _named(arrays, f"weights/{step}/")


def _named(arrays: Arrays, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): torch.from_numpy(a) for name, a in arrays.items() if name.startswith(prefix)}
