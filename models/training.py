"""Training a recipe on a subset, every draw keyed by (seed, step) so that any retraining can be replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..datasets.base import Batch, TrainingSet
from ..errors import UserError
from ..seeds import seeded, torch_generator
from .conditions import drop, dropped
from .denoiser import Denoiser
from .networks import make_network
from .processes import Process, open_process
from .recipe import ModelSpec, Recipe, Tuning
from .trainable import restrict

State = dict[str, Tensor]


def build(spec: ModelSpec, seed: int, base: State | None = None) -> Denoiser:
    """Return the untrained model of a seed, in eval mode; the global random state is left alone.

    base: the weights that it starts from instead of random ones; adapters, where there are any, still are the seed's.
    Raises UserError for a network that diffusers does not have, or arguments that it does not take.
    """
    with seeded(torch.device("cpu"), "init", seed):
        net = make_network(spec.architecture, spec.config)
        if base is not None:
            net.load_state_dict(base)
        restrict(net, spec.trainable)
    return Denoiser(net.eval(), open_process(spec.process))


def load(spec: ModelSpec, state: State, device: torch.device | str = "cpu", base: State | None = None) -> Denoiser:
    """Return the model with given weights, in eval mode; raises RuntimeError where names or shapes do not fit.

    base: the weights that do not train, of a model of which ``state`` holds what does.
    """
    model = build(spec, 0, base)
    model.net.load_state_dict(state if base is None else {**model.net.state_dict(), **state})
    return model.to(device)


def batches(n_items: int, members: Tensor, batch_size: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Yield ``steps`` batches of ids [batch_size] from endless epochs over ``members``.

    An epoch is a permutation of all ids, keyed by (seed, epoch), of which the members are kept: two subsets trained
    with one seed see their common items in the same order, which lowers the noise between them.
    """
    if not len(members):
        raise ValueError("there is nothing to train on: members is empty")
    inside = torch.zeros(n_items, dtype=torch.bool)
    inside[members] = True
    queue, epoch = torch.empty(0, dtype=torch.long), 0
    for _ in range(steps):
        while len(queue) < batch_size:
            order = _epoch(n_items, seed, epoch)
            queue, epoch = torch.cat([queue, order[inside[order]]]), epoch + 1
        yield queue[:batch_size]
        queue = queue[batch_size:]


class TrainingStep(NamedTuple):
    """What one update saw: ids [B] int64, log-SNRs [B], noise [B, C, H, W], and whose conditions were dropped [B]."""

    ids: Tensor
    logsnr: Tensor
    noise: Tensor
    dropped: Tensor


def training_step(recipe: Recipe, n_items: int, shape: Sequence[int], seed: int, step: int) -> TrainingStep:
    """Return what update ``step`` (0-based) saw in training on all of ``n_items`` items of a shape [C, H, W].

    Of a tuned model, updates before tuning saw none of the exemplars. Raises ValueError for an update that the recipe
    does not have.
    """
    if not 0 <= step < recipe.updates:
        raise ValueError(f"there are updates 0 to {recipe.updates - 1}, and {step} is none of them")
    tuning = recipe.tuning
    if tuning is not None and step >= recipe.steps:
        ids = tuning_ids(tuning, n_items, recipe.batch_size, step - recipe.steps)
        return _step(recipe, ids, shape, torch_generator("tune", tuning.seed, step - recipe.steps))
    ids = _ids_of(step, recipe.batch_size, tuning.n_before if tuning else n_items, seed)
    return _step(recipe, ids, shape, torch_generator("train", seed, step))


def _ids_of(step: int, batch_size: int, n_items: int, seed: int) -> Tensor:
    first = step * batch_size
    epochs = range(first // n_items, (first + batch_size - 1) // n_items + 1)
    order = torch.cat([_epoch(n_items, seed, epoch) for epoch in epochs])
    start = first - epochs[0] * n_items
    return order[start : start + batch_size]


def _step(recipe: Recipe, ids: Tensor, shape: Sequence[int], generator: torch.Generator) -> TrainingStep:
    logsnr, noise = training_draws(open_process(recipe.model.process), (len(ids), *shape), generator)
    return TrainingStep(ids, logsnr, noise, drop(len(ids), recipe.cond_drop, generator))


def tuning_ids(tuning: Tuning, n_items: int, batch_size: int, step: int) -> Tensor:
    """Return the ids [batch_size] that update ``step`` (0-based) of tuning sees: exemplars in turn, then other items.

    At least one exemplar. The other items, and the draws for each place in the batch, are the same for any exemplars.
    """
    n, count = n_items - tuning.n_before, max(1, round(tuning.share * batch_size))
    exemplars = tuning.n_before + torch.arange(step * count, (step + 1) * count) % n
    generator = torch_generator("tune-items", tuning.seed, step)
    others = torch.randint(tuning.n_before, (batch_size - count,), generator=generator)
    return torch.cat([exemplars, others])


def training_draws(process: Process, shape: Sequence[int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return log-SNRs [B] of the training law and noise for a batch of a shape [B, C, H, W]."""
    logsnr = process.quantile(torch.rand(shape[0], generator=generator))
    return logsnr, torch.randn(tuple(shape), generator=generator)


def _epoch(n_items: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(n_items, generator=torch_generator("epoch", seed, epoch))


def training_loss(model: Denoiser, batch: Batch, generator: torch.Generator, recipe: Recipe | None = None) -> Tensor:
    """Return the scalar training loss of a batch with levels and noise from ``generator``, in the process's unit.

    A recipe says whether conditions are dropped, by draws after those.
    """
    logsnr, noise = training_draws(model.process, batch.x.shape, generator)
    null = {**recipe.model.null, **model.null} if recipe else {}
    cond = dropped(batch.cond, null, recipe.cond_drop, generator) if recipe else batch.cond
    batch = replace(batch, cond=cond).to(model.device)
    return model.loss_pairs(batch.x, logsnr.to(model.device), noise.to(model.device), batch.cond).mean()


def optimizer(recipe: Recipe, parameters: Iterator[nn.Parameter] | list[nn.Parameter], scale: float = 1.0):  # noqa: ANN201
    """Return the recipe's optimiser with its learning rate times ``scale``."""
    rate = recipe.learning_rate * scale
    return torch.optim.AdamW(parameters, lr=rate, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True)


def descend(loss: Tensor, steps: torch.optim.Optimizer, trained: list[nn.Parameter], clip_norm: float) -> None:
    """Make one update of the parameters, gradients clipped unless ``clip_norm`` is 0."""
    steps.zero_grad()
    loss.backward()
    if clip_norm:
        nn.utils.clip_grad_norm_(trained, clip_norm)
    steps.step()


def train(
    recipe: Recipe,
    data: TrainingSet,
    members: Tensor,
    seed: int,
    device: torch.device | str = "cpu",
    on_step: Callable[[int], None] = lambda step: None,
    base: State | None = None,
    raw: dict[int, State] | None = None,
) -> tuple[Denoiser, dict[int, State]]:
    """Train on the items ``members`` [n] and return the averaged model and its checkpoints by update count.

    The untrained weights are checkpoint 0. Bits are reproducible for one machine, build and thread count.
    raw: where given, gets the weights before averaging at the same update counts, and at the end.
    base: the weights to start from; raises UserError where there are none and only a part of them trains.
    """
    if recipe.model.trainable and base is None:
        raise UserError("this recipe trains a part of the weights: give the base weights that the others keep")
    model = build(recipe.model, seed, base).to(device)
    model.null = data.null
    average = model.clone()
    trained = list(model.trainable_parameters().values())
    steps = optimizer(recipe, trained)
    kept = {0: snapshot(average)}
    model.net.train()
    for step, ids in enumerate(batches(len(data), members, recipe.batch_size, recipe.steps, seed)):
        for group in steps.param_groups:
            group["lr"] = recipe.learning_rate_at(step)
        with seeded(model.device, "dropout", seed, step):
            loss = training_loss(model, data.batch(ids), torch_generator("train", seed, step), recipe)
        descend(loss, steps, trained, recipe.clip_norm)
        _update_average(average, model, min(recipe.ema_decay, (1 + step) / (10 + step)))
        if step + 1 in recipe.checkpoints:
            kept[step + 1] = snapshot(average)
        if raw is not None and step + 1 in (*recipe.checkpoints, recipe.steps):
            raw[step + 1] = snapshot(model)
        on_step(step + 1)
    return average, kept


def snapshot(model: Denoiser) -> State:
    """Return a copy of the network's weights on the CPU; where only a part of them trains, of that part."""
    frozen = {name for name, value in model.net.named_parameters() if not value.requires_grad}
    kept = model.net.named_parameters() if frozen else model.net.state_dict().items()
    return {name: value.detach().cpu().clone().contiguous() for name, value in kept if name not in frozen}


@torch.no_grad()
def _update_average(average: Denoiser, model: Denoiser, decay: float) -> None:
    kept, trained = ([p.detach() for p in one.trainable_parameters().values()] for one in (average, model))
    torch._foreach_lerp_(kept, trained, 1 - decay)
    for target, source in zip(average.buffers(), model.buffers(), strict=True):
        target.copy_(source)
