"""Tuning: a trained model goes on for some updates on a few exemplars, among what it was trained on before."""

from __future__ import annotations

from collections.abc import Callable, Collection

from ..datasets.base import TrainingSet
from ..seeds import seeded, torch_generator
from .denoiser import Denoiser
from .recipe import Recipe
from .training import State, descend, optimizer, snapshot, training_loss, tuning_ids


def tune(
    model: Denoiser,
    items: TrainingSet,
    recipe: Recipe,
    keep: Collection[int],
    on_step: Callable[[int], None] = lambda step: None,
) -> dict[int, State]:
    """Tune a model in place as ``recipe.tuning`` says, and return its weights after each of ``keep`` updates.

    items: those that it was trained on before, then the exemplars. Of the recipe, whatever trained the model, only the
    settings of the optimiser count, the batch size and the dropping of conditions. Raises ValueError without a tuning.
    """
    tuning = recipe.tuning
    if tuning is None:
        raise ValueError("this recipe says nothing of tuning")
    model.null = items.null
    trained = list(model.trainable_parameters().values())
    steps, kept = optimizer(recipe, trained, tuning.rate), {}
    model.net.train()
    for step in range(tuning.steps):
        batch = items.batch(tuning_ids(tuning, len(items), recipe.batch_size, step))
        with seeded(model.device, "tune-dropout", tuning.seed, step):
            loss = training_loss(model, batch, torch_generator("tune", tuning.seed, step), recipe)
        descend(loss, steps, trained, recipe.clip_norm)
        if step + 1 in keep:
            kept[step + 1] = snapshot(model)
        on_step(step + 1)
    model.net.eval()
    return kept
