"""A problem: model, training set, queries and recipe, which is all that a method ever sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..datasets.base import ImageDataset
from ..datasets.find import load_dataset
from ..datasets.groups import Groups
from ..datasets.queries import Queries, concatenate, item_queries
from ..datasets.truth import Arrays, Assets, read_arrays
from ..errors import CorruptFile
from ..store import FolderStore, home, sha256
from .denoiser import Denoiser
from .latents import Autoencoder, state_hash, with_latents
from .recipe import ModelSpec, Recipe
from .training import State, build, load


@dataclass(frozen=True)
class Problem:
    """What attribution is asked about.

    train: N items; weights: network weights by update count (0 = untrained, the largest = final), averaged where the
    recipe averages; raw: those before averaging, where they were kept; recipe: None for a model whose training is
    unknown; autoencoder: its weights, of a latent model; base: the weights that training starts from, where only a part
    of them trains and ``weights`` holds that part; groups: of the items, where the task has any.
    """

    name: str
    train: ImageDataset
    queries: Queries
    spec: ModelSpec
    weights: Mapping[int, State]
    recipe: Recipe | None = None
    seed: int = 0
    autoencoder: State | None = None
    base: State | None = None
    raw: Mapping[int, State] = field(default_factory=dict)
    groups: Groups | None = None

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Update counts of the stored weights in ascending order."""
        return tuple(sorted(self.weights))

    @cached_property
    def identity(self) -> str:
        """A hash of what training depends on besides recipe and seed: items, and the weights that it starts from."""
        fingerprint = self.train.fingerprint()
        return fingerprint if self.base is None else sha256(f"{fingerprint}{state_hash(self.base)}".encode())

    def model(self, at: int, device: torch.device | str = "cpu", raw: bool = False) -> Denoiser:
        """Return a private copy of the model after ``at`` updates, in eval mode; 0: untrained, stored or not.

        raw: with the weights before averaging; raises KeyError where these were not kept.
        """
        stored = self.raw if raw else self.weights
        if at in stored or at != 0:
            return self.loaded(stored[at], device)
        model = build(self.spec, self.seed, self.base).to(device)
        model.null = self.train.null
        return model

    def loaded(self, state: State, device: torch.device | str = "cpu") -> Denoiser:
        """Return a model of this kind with other weights, such as those of a retrained one, in eval mode."""
        model = load(self.spec, state, device, self.base)
        model.null = self.train.null
        return model

    def coder(self, device: torch.device | str = "cpu") -> Autoencoder | None:
        """Return the autoencoder of a latent model, None for another one."""
        if self.spec.autoencoder is None or self.autoencoder is None:
            return None
        return Autoencoder(self.spec.autoencoder, self.autoencoder, device)

    def pixels(self, x: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """Return what the model makes as images [B, C, H, W]: decoded, of a latent model."""
        coder = self.coder(device)
        return x if coder is None else coder.decode(x)


class StoredWeights(Mapping[int, State]):
    """Weights by update count, each read from its file when it is asked for."""

    def __init__(self, assets: Assets, kind: Literal["weights", "raw"]) -> None:
        found = {name: file for name, file in assets.manifest["files"].items() if name.startswith(f"{kind}-")}
        steps = {int(name.removeprefix(f"{kind}-").removesuffix(".safetensors")): name for name in found}
        # Paths and hashes alone: the assets would lead a method to the truth.
        self._files = {step: (assets.store.path(name), found[name]["sha256"]) for step, name in sorted(steps.items())}

    def __getitem__(self, step: int) -> State:
        return _tensors(read_arrays(*self._files[step]))

    def __contains__(self, step: object) -> bool:
        return step in self._files

    def __iter__(self) -> Iterator[int]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def read_problem(folder: Path, plugins: tuple[Path, ...] = ()) -> Problem:
    """Return the problem of an assets folder; only the manifest and the problem's own files are opened.

    plugins: files that may hold its dataset. Raises CorruptFile where that is not the one the folder was made from.
    """
    assets = Assets(folder)
    meta, arrays = assets.manifest, assets.arrays("problem.safetensors")
    arrays |= assets.arrays(QUERIES) if QUERIES in meta["files"] else {}
    recipe, coder = Recipe.from_json(meta["recipe"]), _named(arrays, "autoencoder/")
    everything = load_dataset(meta["dataset"]["name"], plugins)
    encoder = Autoencoder(recipe.model.autoencoder, coder) if recipe.model.autoencoder else None
    data = _trained_on(assets, arrays, everything, encoder)
    if data is None:
        raise _another(meta, folder)
    data = with_latents(data, encoder, FolderStore(home())) if encoder else data
    return Problem(
        meta["task"],
        data,
        _queries(assets, arrays, everything, encoder),
        recipe.model,
        _weights(assets, arrays),
        recipe,
        meta["base_seed"],
        coder or None,
        _named(arrays, "base/") or None,
        StoredWeights(assets, "raw"),
        _groups(assets, arrays),
    )


def built_on(assets: Assets, everything: ImageDataset) -> bool:
    """Say whether a truth was built on items of this dataset, as they are now."""
    arrays, spec = assets.arrays("problem.safetensors"), Recipe.from_json(assets.manifest["recipe"]).model.autoencoder
    encoder = Autoencoder(spec, _named(arrays, "autoencoder/")) if spec else None
    return _trained_on(assets, arrays, everything, encoder) is not None


def _trained_on(
    assets: Assets, arrays: Arrays, everything: ImageDataset, encoder: Autoencoder | None
) -> ImageDataset | None:
    """Return the training items, without latents; None where they are not those that a truth was built on."""
    train_ids = torch.from_numpy(arrays["train_ids"])
    if int(train_ids.max()) >= len(everything):
        return None
    data = everything.select(train_ids)
    seen = replace(data, encoder=encoder.hash) if encoder else data
    return data if seen.fingerprint() == assets.manifest["dataset"]["fingerprint"] else None


def _groups(assets: Assets, arrays: Arrays) -> Groups | None:
    listed = assets.manifest.get("groups")
    return Groups(tuple(listed["names"]), torch.from_numpy(arrays["groups"])) if listed else None


def _another(meta: dict[str, Any], folder: Path) -> CorruptFile:
    return CorruptFile(
        f"the images of {meta['dataset']['name']!r} are not those that {folder} was built from: "
        "install the dataset's pinned revision or rebuild the truth"
    )


def _weights(assets: Assets, arrays: Arrays) -> Mapping[int, State]:
    if assets.schema > 1:
        return StoredWeights(assets, "weights")
    return {step: _named(arrays, f"weights/{step}/") for step in assets.manifest["checkpoints"]}


def problem_files(problem: Problem, train_ids: Tensor) -> Iterable[tuple[str, Arrays]]:
    """Yield the files that ``read_problem`` reads, one at a time; ``train_ids`` [N] are the dataset's ids.

    Without the pixels of held-out queries, which the dataset holds, and without latents, which its encoder makes.
    """
    named = {"train_ids": train_ids}
    named |= {f"autoencoder/{name}": value for name, value in (problem.autoencoder or {}).items()}
    named |= {f"base/{name}": value for name, value in (problem.base or {}).items()}
    named |= {"groups": problem.groups.assignment} if problem.groups else {}
    yield "problem.safetensors", _arrays({**named, **_query_tensors(problem.queries)})
    for kind, stored in (("weights", problem.weights), ("raw", problem.raw)):
        for step in sorted(stored):
            yield f"{kind}-{step}.safetensors", _arrays(stored[step])


def query_arrays(queries: Queries) -> Arrays:
    """Return what ``read_problem`` reads of queries that lie in a file of their own, ``QUERIES``."""
    return _arrays(_query_tensors(queries))


def _query_tensors(queries: Queries) -> State:
    kept = queries.pick([i for i in range(len(queries)) if queries.kinds[i] != "heldout" or queries.source[i] < 0])
    named = {"queries/x": kept.x, "queries/noise": kept.noise, "queries/guidance": kept.guidance}
    named |= {f"queries/cond/{name}": value for name, value in kept.cond.items()}
    return named if kept.images is None else {**named, "queries/images": kept.images}


def query_list(queries: Queries, data: ImageDataset) -> list[dict[str, str | int]]:
    """Return the queries' plain values for a manifest; held-out ones by their id in the dataset and their hash."""
    fields = zip(queries.ids, queries.kinds, queries.roles, queries.source, strict=True)
    listed: list[dict[str, str | int]] = [dict(zip(FIELDS_OF_QUERIES, values, strict=True)) for values in fields]
    for query in listed:
        if query["kind"] == "heldout" and query["source"] != -1:
            query["sha256"] = data.item_hashes(torch.tensor([query["source"]]))[0]
    return listed


QUERIES = "queries.safetensors"  # where they lie apart, so that another set of them changes nothing else
FIELDS_OF_QUERIES = ("id", "kind", "role", "source")


def _queries(assets: Assets, arrays: Arrays, data: ImageDataset, encoder: Autoencoder | None) -> Queries:
    """Return the queries: what is stored of them, and items of the dataset that are known by their hashes."""
    listed = assets.manifest["queries"]
    stored = _stored_queries([query for query in listed if "sha256" not in query], arrays)
    wanted = [query for query in listed if "sha256" in query]
    if not wanted:
        return stored
    source = tuple(query["source"] for query in wanted)
    chosen = torch.tensor(source)
    if int(chosen.max()) >= len(data) or data.item_hashes(chosen) != [query["sha256"] for query in wanted]:
        raise CorruptFile(
            f"held-out queries of {assets.folder} are other images in the dataset here: install its revision"
        )
    items = data.select(chosen)
    items = with_latents(items, encoder) if encoder else items
    found = item_queries(items, tuple(query["id"] for query in wanted), "heldout", "", source)
    found = replace(found, roles=tuple(query["role"] for query in wanted))
    both = concatenate([found, stored])
    places = {query: place for place, query in enumerate(both.ids)}
    return both.pick([places[query["id"]] for query in listed])


def _stored_queries(listed: list[dict[str, Any]], arrays: Arrays) -> Queries:
    columns = {name: tuple(query[name] for query in listed) for name in FIELDS_OF_QUERIES}
    tensors: dict[str, Any] = {name: torch.from_numpy(arrays[f"queries/{name}"]) for name in ("x", "noise", "guidance")}
    tensors |= {"images": torch.from_numpy(arrays["queries/images"])} if "queries/images" in arrays else {}
    cond = _named(arrays, "queries/cond/")
    return Queries(columns["id"], columns["kind"], columns["role"], source=columns["source"], cond=cond, **tensors)


def _arrays(named: Mapping[str, Tensor]) -> Arrays:
    return {name: value.numpy() for name, value in named.items()}


def _tensors(arrays: Arrays) -> State:
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


def _named(arrays: Arrays, prefix: str) -> State:
    return _tensors({name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)})
