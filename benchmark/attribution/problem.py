"""The problem of a request, stored once by its content: model and training images, and beside these each query set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...datasets.base import Batch
from ...datasets.own.items import Own
from ...datasets.queries import Queries, item_queries
from ...datasets.truth import Assets, write_assets, write_beside
from ...errors import UserError
from ...methods.view import Progress, silent
from ...models.latents import state_hash, with_latents
from ...models.pipelines.problem import pipeline_problem
from ...models.pipelines.saved import Pipeline
from ...models.problem import QUERIES, Problem, problem_files, query_arrays, query_list, read_problem
from ...models.recipe import Recipe
from ...seeds import derive, digest, torch_generator
from ...store import LONG_CLAIM_S, FolderStore, home
from ..truth.build import provenance
from ..truth.queries import generated
from .items import LABEL, TEXT, pictured, said_conditions, training_items
from .opening import open_model
from .request import Request

FORMAT = 1  # bumped when requests become problems in another way
ROLE = "queries"
GUIDANCE = {TEXT: 7.5, LABEL: 4.0}  # the defaults of StableDiffusionPipeline and DiTPipeline
BATCH = 64  # of updates, for methods that go on training


@dataclass(frozen=True)
class Made:
    """What a request became: the pipeline, its training images, and the problem that is attributed.

    numbers: of classes, by the groups of the images; skipped: why a picture to explain could not be read, by name.
    """

    request: Request
    pipeline: Pipeline
    own: Own
    assets: Assets
    numbers: Mapping[str, int]
    skipped: Mapping[str, str]

    def problem(self) -> Problem:
        """Read the problem."""
        return read_problem(self.assets.folder)


def make(request: Request, device: str = "cpu", report: Progress = silent) -> Made:
    """Open the model, read the images, make or read the queries, and store it all as a problem, or find it stored.

    Raises UserError for what cannot be had or does not fit.
    """
    pipeline = open_model(request.model, request.lora, device)
    own, numbers = training_items(pipeline, request.images, report)
    if request.top > len(own.data):
        raise UserError(f"--top {request.top} is more than the {len(own.data)} training images: ask for fewer")
    base = _base(request, pipeline, own, report)
    assets, skipped = _with_queries(request, pipeline, own, numbers, base, device)
    return Made(request, pipeline, own, assets, numbers, skipped)


def store() -> FolderStore:
    """Return where problems of requests lie."""
    return FolderStore(home() / "attribution" / "problems")


def assumed_recipe(pipeline: Pipeline, rate: float) -> Recipe:
    """Return what stands for the unknown training of a model: AdamW at a constant rate, as for one more update."""
    adapters = pipeline.adapters
    spec = replace(pipeline.spec, trainable=adapters.lora) if adapters else pipeline.spec
    return Recipe(spec, 1, BATCH, rate, 0, 0.0, assumed=True)


def _base(request: Request, pipeline: Pipeline, own: Own, report: Progress) -> Assets:
    """Return the assets of model and training images, without any queries."""
    recipe = assumed_recipe(pipeline, request.learning_rate)
    coder = pipeline.autoencoder
    trained = [pipeline.adapters.weights] if pipeline.adapters else []
    hashes = [state_hash(weights) for weights in (pipeline.weights, *trained)] + ([coder.hash] if coder else [])
    key = f"{_name(pipeline)}-{digest([FORMAT, own.name, recipe.hash(), hashes])}"
    with claimed(key):
        if store().exists(f"{key}/manifest.json"):
            return Assets(store().path(key))
        problem = pipeline_problem(
            pipeline,
            own.data,
            store=FolderStore(home()),
            on_item=lambda done, total: report("encoding images", done, total),
        )
        problem = replace(problem, recipe=recipe)
        everything = torch.arange(len(own.data))
        return write_assets(store().path(key), problem_files(problem, everything), manifest_of(key, own, problem))


@contextmanager
def claimed(key: str) -> Iterator[None]:
    """Make what belongs to a key alone; raises UserError where another process is making it."""
    with store().claim(key, LONG_CLAIM_S) as held:
        if not held:
            raise UserError(f"another process is reading the same model and images into {store().path(key)}: wait")
        yield


def _name(pipeline: Pipeline) -> str:
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", pipeline.folder.resolve().name)[:40]
    return name if name[:1].isalnum() else "model"


def manifest_of(key: str, own: Own, problem: Problem) -> dict[str, Any]:
    """Return the manifest of a problem without queries."""
    assert problem.recipe is not None
    return {
        "task": key,
        "version": FORMAT,
        "n_train": len(problem.train),
        "dataset": {"name": own.name, "fingerprint": problem.train.fingerprint()},
        "recipe": problem.recipe.to_json(),
        "base_seed": problem.seed,
        "checkpoints": list(problem.checkpoints),
        "queries": [],
        "provenance": provenance(),
    }


def _with_queries(
    request: Request, pipeline: Pipeline, own: Own, numbers: Mapping[str, int], base: Assets, device: str
) -> tuple[Assets, Mapping[str, str]]:
    """Return the problem of a query set, whose other files are those of the base, and what could not be read."""
    if request.generate:
        guidance = guidance_of(request, pipeline)
        asked = [request.generate, request.seed, request.prompts, request.labels, guidance, device != "cpu"]
        key = f"{base.folder.name}/generated-{digest(asked)}"
        if not store().exists(f"{key}/manifest.json"):
            queries = _generated(request, pipeline, numbers, base, guidance, device)
            return _beside(key, base, queries, own), {}
        return Assets(store().path(key)), {}
    problem = read_problem(base.folder)
    assert request.queries is not None
    said = request.prompts or request.labels
    found = pictured(pipeline, request.queries, problem.train, numbers, said)
    data = with_latents(found.data, pipeline.autoencoder) if pipeline.autoencoder else found.data
    queries = item_queries(data, found.names, "external", ROLE)
    hashes = data.item_hashes(torch.arange(len(data)))
    key = f"{base.folder.name}/given-{digest([list(found.names), hashes])}"
    there = store().exists(f"{key}/manifest.json")
    return Assets(store().path(key)) if there else _beside(key, base, queries, own), found.skipped


def guidance_of(request: Request, pipeline: Pipeline) -> float:
    """Return the scale of guidance: as asked, or the pipeline's own where it knows what stands for no condition."""
    if request.guidance is not None:
        return request.guidance
    knows = pipeline.text is not None or LABEL in pipeline.spec.null
    return next((GUIDANCE[name] for name in pipeline.cond if knows), 0.0)


def _generated(
    request: Request, pipeline: Pipeline, numbers: Mapping[str, int], base: Assets, guidance: float, device: str
) -> Queries:
    """Return pictures that the model makes, each from noise by its own seed."""
    problem, count = read_problem(base.folder), request.generate
    seeds = [derive("attribute", request.seed, i) for i in range(count)]
    cond = said_conditions(pipeline, request.prompts, request.labels, numbers, count)
    drawn = [int(torch.randint(len(problem.train), (1,), generator=torch_generator("cond", seed))) for seed in seeds]
    batch = problem.train.batch(torch.tensor(drawn))
    asked = Batch(batch.ids, batch.x, {name: cond.get(name, value) for name, value in batch.cond.items()})
    names = tuple(f"generated-{request.seed}-{i:03d}" for i in range(count))
    model, coder = problem.model(problem.checkpoints[-1], device), problem.coder(device)
    return generated(model, problem.spec, asked, seeds, names, ROLE, guidance, coder)


def _beside(key: str, base: Assets, queries: Queries, own: Own) -> Assets:
    """Write the problem of a query set, whose other files are those of the base."""
    manifest = base.manifest | {
        "task": f"{base.manifest['task']}-{digest([key, list(queries.ids)], 8)}",
        "queries": query_list(queries, own.data),
        "training_sha256": base.problem_sha256,
    }
    return write_beside(base, store().path(key), [(QUERIES, query_arrays(queries))], manifest)
