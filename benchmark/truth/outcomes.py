"""What a retrained model makes of the queries: their losses, and generated images made again."""

from __future__ import annotations

import numpy as np
import torch

from ...datasets.queries import Queries
from ...models.denoiser import Denoiser
from ...models.draws import Draws, Law
from ...models.problem import Problem
from ...models.sampling import sample
from ..tasks.spec import TruthPlan


@torch.no_grad()
def measure(model: Denoiser, queries: Queries, plan: TruthPlan) -> np.ndarray:
    """Return the target of every query per noise-level bin [Q, bins]: mean loss over the bin's draws.

    In the unit of training, which for noise prediction is the eps-MSE.

    Draws are keyed by query id and the same for every model, so that their noise cancels in comparisons.
    """
    n = plan.bins * plan.draws_per_bin
    draws = Draws("truth", n, Law("even"), "item", 0, tuple(queries.x.shape[1:]), model.process)
    losses = model.losses(queries.batch, draws)
    return losses.view(len(queries), plan.bins, plan.draws_per_bin).mean(-1).cpu().numpy()


def regenerate(model: Denoiser, problem: Problem) -> np.ndarray:
    """Return the generated queries and controls as a model makes them from their initial noise, as people see them.

    [G, C, H, W] float32; of a latent model decoded.
    """
    generated = problem.queries.where(kind="generated")
    made = sample(model, generated.noise, problem.spec, generated.cond, generated.guidance)
    return problem.pixels(made.cpu(), model.device).numpy()
