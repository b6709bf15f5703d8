"""The problem of a request, stored once by its content: model and training images, and beside these each query set."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ...datasets.base import Batch
from ...datasets.own.items import Own
from ...datasets.own.sources import given
from ...datasets.queries import Queries, concatenate, item_queries
from ...datasets.truth import Assets, whole_assets, write_assets
from ...errors import UserError, brief
from ...methods.rows import parts_of
from ...methods.view import Progress, silent
from ...models.latents import state_hash, with_latents
from ...models.pipelines.problem import pipeline_problem
from ...models.pipelines.saved import Pipeline
from ...models.problem import QUERIES, Problem, problem_files, query_arrays, query_list, read_problem
from ...models.recipe import Recipe
from ...seeds import derive, digest, torch_generator
from ...store import LONG_CLAIM_S, FolderStore, home
from ..run.worker import is_oom
from ..truth.build import provenance
from ..truth.queries import generated
from .items import LABEL, TEXT, check_said, pictured, said_conditions, training_items
from .opening import open_model
from .request import Request

FORMAT = 1  # bumped when requests become problems in another way
ROLE = "queries"
GUIDANCE = {TEXT: 7.5, LABEL: 4.0}  # the defaults of StableDiffusionPipeline and DiTPipeline
AT_ONCE = 8  # pictures that are generated together
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
    skipped: Mapping[str, str] = field(default_factory=dict)

    def problem(self) -> Problem:
        """Read the problem."""
        return read_problem(self.assets.folder)


def make(request: Request, device: str = "cpu", report: Progress = silent) -> Made:
    """Open the model, read the images, make or read the queries, and store it all as a problem, or find it stored.

    Raises UserError for what cannot be had or does not fit.
    """
    pipeline = open_model(request.model, request.lora, device)
    check_said(pipeline, request.prompts, request.labels)
    if request.queries is not None:
        given(request.queries)  # what is wrong with these is said before anything takes long
    try:
        return _made(request, pipeline, device, report)
    except (RuntimeError, MemoryError) as error:
        if not is_oom(error):
            raise
        raise UserError(
            f"out of memory while {pipeline.folder} was read or made pictures ({brief(str(error))}): "
            "stop what else runs, or use --device cpu or a machine with more"
        ) from error


def _made(request: Request, pipeline: Pipeline, device: str, report: Progress) -> Made:
    own, numbers = training_items(pipeline, request.images, report)
    if request.top > len(own.data):
        raise UserError(f"--top {request.top} is more than the {len(own.data)} training images: ask for fewer")
    said_conditions(pipeline, (), request.labels, numbers, len(request.labels))  # unknown labels are named before work
    base = Made(request, pipeline, own, _base(request, pipeline, own, report), numbers)
    return _generated(base, device, report) if request.generate else _given(base)


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

    def write(path: Path) -> Assets:
        problem = pipeline_problem(
            pipeline,
            own.data,
            store=FolderStore(home()),
            on_item=lambda done, total: report("encoding images", done, total),
        )
        problem = replace(problem, recipe=recipe)
        everything = torch.arange(len(own.data))
        return write_assets(path, problem_files(problem, everything), manifest_of(key, own, problem))

    return stored(key, write)


def stored(key: str, write: Callable[[Path], Assets]) -> Assets:
    """Return the problem under a key; where it is not there whole, ``write`` makes it at the path that it is given.

    Raises UserError where another process is making it.
    """
    with store().claim(key, LONG_CLAIM_S) as held:
        if not held:
            raise UserError(f"another process is reading the same model and images into {store().path(key)}: wait")
        return whole_assets(store(), key) or write(store().path(key))


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


def _given(base: Made) -> Made:
    """Return the problem of pictures that were given."""
    request, pipeline = base.request, base.pipeline
    assert request.queries is not None
    said = request.prompts or request.labels
    found = pictured(pipeline, request.queries, base.problem().train, base.numbers, said)
    data, coder = found.data, pipeline.autoencoder
    key = f"given-{digest([list(found.names), data.item_hashes(torch.arange(len(data)))])}"

    def queries() -> Queries:
        return item_queries(with_latents(data, coder) if coder else data, found.names, "external", ROLE)

    assets = _beside(base, key, queries)
    return replace(base, assets=assets, skipped=found.skipped)


def _generated(base: Made, device: str, report: Progress) -> Made:
    """Return the problem of pictures that the model makes, each from noise by its own seed."""
    request, guidance = base.request, guidance_of(base.request, base.pipeline)
    asked = [request.generate, request.seed, request.prompts, request.labels, guidance, device != "cpu"]
    return replace(base, assets=_beside(base, f"generated-{digest(asked)}", lambda: _samples(base, device, report)))


def guidance_of(request: Request, pipeline: Pipeline) -> float:
    """Return the scale of guidance: as asked, or the pipeline's own where it knows what stands for no condition."""
    if request.guidance is not None:
        return request.guidance
    knows = pipeline.text is not None or LABEL in pipeline.spec.null
    return next((GUIDANCE[name] for name in pipeline.cond if knows), 0.0)


def _samples(base: Made, device: str, report: Progress) -> Queries:
    """Return pictures under prompts, labels, or the conditions of training images, a few at a time."""
    request, problem = base.request, base.problem()
    count, guidance = request.generate, guidance_of(request, base.pipeline)
    seeds = [derive("attribute", request.seed, i) for i in range(count)]
    cond = said_conditions(base.pipeline, request.prompts, request.labels, base.numbers, count)
    drawn = [int(torch.randint(len(problem.train), (1,), generator=torch_generator("cond", seed))) for seed in seeds]
    names = tuple(f"generated-{request.seed}-{i:03d}" for i in range(count))
    model, coder, found = problem.model(problem.checkpoints[-1], device), problem.coder(device), []
    for part in parts_of(count, AT_ONCE):
        batch = problem.train.batch(torch.tensor(drawn[part]))
        said = {name: cond[name][part] if name in cond else value for name, value in batch.cond.items()}
        asked = Batch(batch.ids, batch.x, said)
        found.append(generated(model, problem.spec, asked, seeds[part], names[part], ROLE, guidance, coder))
        report("generating pictures", part.stop, count)
    return concatenate(found)


def _beside(base: Made, name: str, queries: Callable[[], Queries]) -> Assets:
    """Return the stored problem of a query set, whose other files are those of the base; made where it is missing."""
    key = f"{base.assets.folder.name}/{name}"

    def write(path: Path) -> Assets:
        found = queries()
        manifest = base.assets.manifest | {
            "task": f"{base.assets.manifest['task']}-{digest([key, list(found.ids)], 8)}",
            "queries": query_list(found, base.own.data),
            "training_sha256": base.assets.problem_sha256,
        }
        return write_assets(path, [(QUERIES, query_arrays(found))], manifest, base.assets)

    return stored(key, write)
