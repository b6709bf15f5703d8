"""Training a recipe on a subset, every draw keyed by (seed, step) so that any retraining can be replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..datasets.base import Batch, TrainingSet
from ..seeds import seeded, torch_generator
from .conditions import dropped
from .denoiser import Denoiser
from .networks import make_network
from .processes import open_process
from .recipe import ModelSpec, Recipe

State = dict[str, Tensor]


def build(spec: ModelSpec, seed: int) -> Denoiser:
    """Return the untrained model of a seed, in eval mode; the global random state is left alone.

    Raises UserError for a network that diffusers does not have, or arguments that it does not take.
    """
    with seeded(torch.device("cpu"), "init", seed):
        net = make_network(spec.architecture, spec.config)
    return Denoiser(net.eval(), open_process(spec.process))


def load(spec: ModelSpec, state: State, device: torch.device | str = "cpu") -> Denoiser:
    """Return the model with given weights, in eval mode; raises RuntimeError where names or shapes do not fit."""
    model = build(spec, 0)
    model.net.load_state_dict(state)
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
            order = torch.randperm(n_items, generator=torch_generator("epoch", seed, epoch))
            queue, epoch = torch.cat([queue, order[inside[order]]]), epoch + 1
        yield queue[:batch_size]
        queue = queue[batch_size:]


def training_loss(model: Denoiser, batch: Batch, generator: torch.Generator, recipe: Recipe | None = None) -> Tensor:
    """Return the scalar training loss of a batch with levels and noise from ``generator``, in the process's unit.

    A recipe says whether conditions are dropped, by draws after those.
    """
    logsnr = model.process.quantile(torch.rand(len(batch), generator=generator))
    noise = torch.randn(batch.x.shape, generator=generator)
    null = {**recipe.model.null, **model.null} if recipe else {}
    cond = dropped(batch.cond, null, recipe.cond_drop, generator) if recipe else batch.cond
    batch = replace(batch, cond=cond).to(model.device)
    return model.loss_pairs(batch.x, logsnr.to(model.device), noise.to(model.device), batch.cond).mean()


def optimizer(recipe: Recipe, parameters: Iterator[nn.Parameter] | list[nn.Parameter], scale: float = 1.0):  # noqa: ANN201
    """Return the recipe's optimiser with its learning rate times ``scale``."""
    rate = recipe.learning_rate * scale
    return torch.optim.AdamW(parameters, lr=rate, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True)


def train(
    recipe: Recipe,
    data: TrainingSet,
    members: Tensor,
    seed: int,
    device: torch.device | str = "cpu",
    on_step: Callable[[int], None] = lambda step: None,
) -> tuple[Denoiser, dict[int, State]]:
    """Train on the items ``members`` [n] and return the averaged model and its checkpoints by update count.

    The untrained weights are checkpoint 0. Bits are reproducible for one machine, build and thread count.
    """
    model = build(recipe.model, seed).to(device)
    model.null = data.null
    average = model.clone()
    steps = optimizer(recipe, list(model.parameters()))
    kept = {0: snapshot(average)}
    model.net.train()
    for step, ids in enumerate(batches(len(data), members, recipe.batch_size, recipe.steps, seed)):
        for group in steps.param_groups:
            group["lr"] = recipe.learning_rate_at(step)
        with seeded(model.device, "dropout", seed, step):
            loss = training_loss(model, data.batch(ids), torch_generator("train", seed, step), recipe)
        steps.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        steps.step()
        _update_average(average, model, min(recipe.ema_decay, (1 + step) / (10 + step)))
        if step + 1 in recipe.checkpoints:
            kept[step + 1] = snapshot(average)
        on_step(step + 1)
    return average, kept


def snapshot(model: Denoiser) -> State:
    """Return a copy of the network's weights on the CPU."""
    return {name: value.detach().cpu().clone().contiguous() for name, value in model.net.state_dict().items()}


@torch.no_grad()
def _update_average(average: Denoiser, model: Denoiser, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), [p.detach() for p in model.parameters()], 1 - decay)
    for target, source in zip(average.buffers(), model.buffers(), strict=True):
        target.copy_(source)
