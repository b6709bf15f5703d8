"""The tiny twins of `digits`: real scans, and models and queries made by the same code, in seconds.

Between them they meet every need that a method may have.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from ...datasets.base import ImageDataset
from ...datasets.find import load_dataset
from ...datasets.queries import Queries, no_queries
from ...models.latents import Autoencoder, with_latents
from ...models.networks import make_network
from ...models.problem import Problem
from ...models.recipe import AutoencoderSpec, LoRA, ModelSpec, Sampler
from ...models.training import State, snapshot, train
from ...seeds import seeded, torch_generator
from ..tasks.digits import TASK
from ..tasks.digits_tiny_edm import TASK as EDM
from ..tasks.digits_tiny_v import TASK as BY_CLASS
from ..tasks.spec import QueryPlan, TaskSpec
from ..truth.queries import Split, make_queries

N_TRAIN, N_PLANTED, N_HELDOUT, N_GENERATED = 48, 3, 1, 3

_CONFIG = {"block_out_channels": [8], "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
_MODEL = replace(TASK.recipe.model, config={**TASK.recipe.model.config, **_CONFIG}, sampler=Sampler(steps=5))
_TRAINING = {"steps": 60, "batch_size": 16, "warmup_steps": 6, "ema_decay": 0.9, "checkpoints": (20, 40)}
TWIN = replace(
    TASK,
    name="digits-twin",
    title="A tiny digits, whose training set holds copies of queries",
    n_train=N_TRAIN,
    recipe=replace(TASK.recipe, model=_MODEL, **_TRAINING),
    queries=QueryPlan(dev=1, test=1, controls=1),
)

_UNET = {**BY_CLASS.recipe.model.config, "block_out_channels": [8], "down_block_types": ["AttnDownBlock2D"]}
BY_LABEL = replace(
    TWIN,
    name="digits-twin-label",
    title="The same by class, with attention, conditions dropped in training, and guidance",
    dataset="digits_classes",
    recipe=replace(
        TWIN.recipe,
        model=replace(_MODEL, config={**_UNET, "up_block_types": ["AttnUpBlock2D"]}, null={"class_labels": 10}),
        cond_drop=0.1,
    ),
    queries=replace(TWIN.queries, guidance=2.0),
)
BY_TEXT = replace(
    TWIN,
    name="digits-twin-text",
    title="The same by embeddings as of text, under EDM",
    dataset="digits_classes",
    recipe=replace(
        TWIN.recipe,
        model=ModelSpec(
            architecture="UNet2DConditionModel",
            config={
                **_MODEL.config,
                "down_block_types": ["CrossAttnDownBlock2D"],
                "up_block_types": ["CrossAttnUpBlock2D"],
                "mid_block_type": None,
                "cross_attention_dim": 8,
                "attention_head_dim": 4,
            },
            process={"kind": "edm", "sigma_data": 0.75},
            sampler=Sampler(steps=4),
        ),
    ),
)
BY_TEXT.recipe.model.config.pop("add_attention")
_CODER = {
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [4, 4],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "latent_channels": 2,
    "norm_num_groups": 2,
    "sample_size": 8,
}
LATENT = replace(
    TWIN,
    name="digits-twin-latent",
    title="Latents by class, adapters on a transformer under EDM",
    dataset=EDM.dataset,
    recipe=replace(
        TWIN.recipe,
        model=replace(
            EDM.recipe.model,
            config={**EDM.recipe.model.config, "sample_size": 4, "in_channels": 2, "out_channels": 2, "num_layers": 1},
            autoencoder=AutoencoderSpec("AutoencoderKL", _CODER),
            trainable=LoRA(rank=2),
        ),
        learning_rate=EDM.recipe.learning_rate,
    ),
)
TWINS = {spec.name: spec for spec in (TWIN, BY_LABEL, BY_TEXT, LATENT)}


def tiny_problem(seed: int = 0, spec: TaskSpec = TWIN, kinds: Collection[str] = ("heldout", "generated")) -> Problem:
    """Return a private copy of a twin of a seed, trained once per process: 48 training images and 5 queries.

    Four queries are held-out in kind, but the first ``N_PLANTED`` are copies of training images (``planted_ids`` says
    which); the last one was generated. Where ``kinds`` has no held-out ones, there are ``N_GENERATED`` generated ones
    instead, and copies of them in the training set; external ones are held-out ones under that name.
    Raises UserError for the latent twin where peft is missing.
    """
    if "heldout" not in kinds and "generated" in kinds:
        return copy.deepcopy(_generated_only(spec.name, seed))
    problem = copy.deepcopy(_trained(spec.name, seed))
    if "heldout" in kinds or "external" not in kinds:
        return problem
    renamed = tuple("external" if kind == "heldout" else kind for kind in problem.queries.kinds)
    return replace(problem, queries=replace(problem.queries, kinds=renamed))


def planted_ids(problem: Problem) -> dict[str, int]:
    """Return the id of the training image that equals a query, for every query that has one."""
    queries = problem.queries
    items = problem.train.batch(torch.arange(len(problem.train))).x
    same = (queries.x.flatten(1)[:, None] == items.flatten(1)).all(2)
    return {queries.ids[row]: int(found.nonzero()[0]) for row, found in enumerate(same) if found.any()}


def shuffled(problem: Problem) -> Problem:
    """Return the problem with the training images' conditions given to others, in an order without fixed points."""
    order = problem.train.classes.argsort(stable=True).roll(len(problem.train) // 2)
    moved = torch.empty_like(order)
    moved[problem.train.classes.argsort(stable=True)] = order
    cond = {name: value[moved] for name, value in problem.train.cond.items()}
    return replace(problem, train=replace(problem.train, cond=cond))


def offering(problem: Problem, needs: Collection[str]) -> Problem:
    """Return the problem with the optional parts that ``needs`` names and no others.

    Optional are the recipe, which brings the untrained weights with it, and the checkpoints between these and the end.
    """
    last = problem.checkpoints[-1]
    kept = {0: "recipe" in needs, last: True}
    weights = {step: state for step, state in problem.weights.items() if kept.get(step, "checkpoints" in needs)}
    return replace(problem, weights=weights, recipe=problem.recipe if "recipe" in needs else None)


@cache
def _trained(name: str, seed: int) -> Problem:
    spec = TWINS[name]
    data, coder = _data(name)
    chosen, asked = _chosen(len(data), seed)
    items, recipe = data.select(chosen), spec.recipe
    items = with_latents(items, coder) if coder else items
    base = _base(spec, items, seed) if recipe.model.trainable else None
    model, weights = train(recipe, items, torch.arange(N_TRAIN), seed, base=base)
    weights[recipe.steps] = snapshot(model)
    state = coder.state if coder else None
    problem = Problem(spec.name, items, no_queries(items), recipe.model, weights, recipe, seed, state, base)
    return replace(problem, queries=_queries(spec, problem, data, Split(chosen, asked[:0], asked), coder))


@cache
def _generated_only(name: str, seed: int) -> Problem:
    """Return the problem with generated queries alone, of which copies take the place of the first training images."""
    problem, (data, coder) = _trained(name, seed), _data(name)
    spec = replace(TWINS[name], queries=replace(TWINS[name].queries, test=N_GENERATED))
    chosen, _ = _chosen(len(data), seed)
    queries = _queries(spec, problem, data, Split(chosen, chosen[:0], chosen[:0]), coder)
    return replace(problem, train=_planted(problem.train, queries), queries=queries)


def _planted(items: ImageDataset, queries: Queries) -> ImageDataset:
    n = len(queries)
    images = torch.cat([queries.pixels.clamp(-1, 1) if items.latents is not None else queries.x, items.images[n:]])
    latents = None if items.latents is None else torch.cat([queries.x, items.latents[n:]])
    cond = {name: torch.cat([queries.cond[name], value[n:]]) for name, value in items.cond.items()}
    return replace(items, images=images, latents=latents, cond=cond)


def _chosen(n: int, seed: int) -> tuple[Tensor, Tensor]:
    order = torch.randperm(n, generator=torch_generator("twin", seed))
    return order[:N_TRAIN], order[N_TRAIN - N_PLANTED : N_TRAIN + N_HELDOUT]


def _queries(spec: TaskSpec, problem: Problem, data: ImageDataset, parts: Split, coder: Autoencoder | None) -> Queries:
    base = problem.model(spec.recipe.steps)
    return make_queries(spec, data, parts, problem.train, base, coder).where(role="test").anonymous()


def _base(spec: TaskSpec, items: ImageDataset, seed: int) -> State:
    """Return weights that adapters start from: of a model that was trained as a whole for a moment."""
    whole = replace(spec.recipe, model=replace(spec.recipe.model, trainable=""), steps=20, checkpoints=())
    model, _ = train(whole, items, torch.arange(len(items)), seed)
    return snapshot(model)


@cache
def _data(name: str) -> tuple[ImageDataset, Autoencoder | None]:
    spec = TWINS[name]
    data = load_dataset(spec.dataset)
    if spec is BY_TEXT:
        return _in_words(data), None
    if spec.recipe.model.autoencoder is None:
        return data, None
    with seeded(torch.device("cpu"), "twin-autoencoder"):
        state = make_network("AutoencoderKL", _CODER).state_dict()
    return data, Autoencoder(spec.recipe.model.autoencoder, state)


def _in_words(data: ImageDataset) -> ImageDataset:
    """Return the dataset with an embedding [3, 8] of every class for a condition, and zeros for none."""
    words = torch.randn(10, 3, 8, generator=torch_generator("twin-words"))
    name = "encoder_hidden_states"
    return replace(data, cond={name: words[data.classes]}, null={name: torch.zeros(3, 8)})
