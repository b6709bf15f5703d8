"""TRAK, featurised by its authors' package (`traker`), solved by our float64 kernel."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..datasets.base import Batch
from ..datasets.queries import Queries
from ..models.denoiser import Denoiser
from ..models.draws import Draws, Law
from .base import Estimate, Method, Sizes, register
from .engines.kernel import GradientKernel, kernel_bytes
from .rows import held_bytes
from .view import View

SAMPLES = 2560


def batch_size(draws: int) -> int:
    """Return how many items traker gets at a time: it holds activations of all their draws, and projects per call."""
    return max(8, min(256, SAMPLES // draws))


@dataclass(frozen=True)
class Params:
    """draws: levels per item, equally spaced over the training law; proj_dim: k of traker's projector.

    damping: lambda relative to tr(kernel)/N. The TRAK paper has lambda = 0 and k < N; on diffusion models D-TRAK's
    authors found that k > N with damping is needed; 1 is `tdabench tune`'s choice on digits.
    """

    draws: int = 100
    proj_dim: int = 32768
    damping: float = 1.0


@dataclass(frozen=True)
class State:
    """traker's featuriser, its stored gradients' kernel, and the draws both sides share."""

    traker: Any
    kernel: GradientKernel
    draws: Draws


@register("trak")
class Trak(Method):
    """phi_q (Phi^T Phi + lambda I)^-1 Phi^T with phi the projected loss gradient (Park et al., arXiv 2303.14186).

    One checkpoint and Q = I, as D-TRAK (arXiv 2311.00500) adapts it to diffusion: the attributed output is the loss.
    """

    needs = ("gradients",)
    citation = "Park et al., TRAK: Attributing Model Behavior at Scale, arXiv 2303.14186"
    Params = Params
    presets = {"paper": Params(draws=10, proj_dim=4096), "quick": Params(draws=2, proj_dim=512)}
    notes = {
        "paper": "10 draws and k = 4096 where D-TRAK's authors have 10 or 100 draws and k = 32768 for TRAK",
        "quick": "2 draws and k = 512",
    }
    search = {"damping": (0.001, 0.01, 0.1, 1.0, 10.0)}

    def fit(self, view: View) -> State:
        """Featurise the training set with traker and factorise the kernel of its stored gradients."""
        model = view.model()
        draws = view.draws(self.params.draws, Law("even"))
        folder, names = view.scratch / "traker", tuple(sorted(view.train.cond))
        traker = open_traker(model, len(view.train), self.params.proj_dim, view.seed, folder, names)
        inputs = {"draws": self.params.draws, "proj_dim": self.params.proj_dim}

        def stored(batch: Batch) -> Tensor:
            index = np.array(batch.ids)
            traker.featurize(trak_batch(model, batch, draws), inds=index)
            return torch.from_numpy(traker.saver.current_store["grads"][index])

        size = batch_size(self.params.draws)
        rows = view.kept("traker-features", stored, (self.params.proj_dim,), inputs, size)
        return State(traker, GradientKernel(rows, self.params.damping), draws)

    def attribute(self, view: View, state: State, queries: Queries) -> Iterator[tuple[slice, Tensor]]:
        """Yield (ids, scores [Q, n]) blockwise."""
        for part, block in state.kernel.score_blocks(query_features(state.traker, queries.batch, state.draws).cpu()):
            yield part, block.float()

    def estimate(self, sizes: Sizes) -> Estimate:
        """One gradient per draw of every item and query; unprojected gradients of one batch, features, kernel."""
        n, width = sizes.n_items, self.params.proj_dim
        held = held_bytes(n, width) + kernel_bytes(n, width) + 4 * batch_size(self.params.draws) * sizes.n_trained
        return Estimate(per_sample=(n + sizes.n_queries) * self.params.draws, bytes=held)


def open_traker(
    model: Denoiser, n: int, proj_dim: int, seed: int, folder: Path, conditions: tuple[str, ...] = ()
) -> Any:
    """Return a TRAKer in float32 on an empty folder with the model loaded as checkpoint 0.

    conditions: their names in the order in which batches hold them.

    traker compares the device with the string "cpu": a torch.device would silently change its projection.
    """
    from trak import TRAKer

    shutil.rmtree(folder, ignore_errors=True)
    traker = TRAKer(
        model=model,
        task=_diffusion_output(conditions),
        train_set_size=n,
        save_dir=str(folder),
        load_from_save_dir=False,
        device=model.device.type,
        gradient_computer=_gradient_computer(),
        grad_wrt=_part(model),
        proj_dim=proj_dim,
        projector_seed=seed,
        use_half_precision=False,
        logging_level=logging.ERROR,
    )
    state: Any = model.state_dict()  # traker annotates an iterable of tensors and wants this
    traker.load_checkpoint(state, model_id=0)
    return traker


def _part(model: Denoiser) -> list[str] | None:
    """Return the names of what trains, or None where all does."""
    names = list(model.trainable_parameters())
    return names if len(names) < len(list(model.parameters())) else None


def trak_batch(model: Denoiser, batch: Batch, draws: Draws) -> tuple[Tensor, ...]:
    """Return what traker's vmap maps over: inputs [B, S, C, H, W], times [B, S], targets, and conditions by name.

    Levels and noise travel in the batch: traker's own random draws would depend on how items are batched.
    """
    batch = batch.to(model.device)
    logsnr, noise = (part.to(model.device) for part in draws.for_ids(batch.ids))
    items = batch.x[:, None].expand_as(noise).flatten(0, 1)
    question = model.ask(items, logsnr.flatten(), noise.flatten(0, 1))
    parts = (part.unflatten(0, logsnr.shape) for part in (question.inputs, question.times, question.target))
    return *parts, *(batch.cond[name] for name in sorted(batch.cond))


def query_features(traker: Any, batch: Batch, draws: Draws) -> Tensor:
    """Return projected query gradients [Q, k] as traker's ``score`` would store them.

    ``score`` itself insists on ``finalize_features``, which inverts the kernel in single precision.
    """
    inputs = trak_batch(traker.model, batch, draws)
    gradients = traker.gradient_computer.compute_per_sample_grad(batch=inputs)
    return traker.projector.project(gradients, model_id=0) / traker.normalize_factor


def _gradient_computer() -> Any:
    from trak.gradient_computers import FunctionalGradientComputer

    class MicroBatched(FunctionalGradientComputer):
        """traker's per-sample gradients, ``micro_batch`` images at a time; it projects whole batches all the same."""

        def compute_per_sample_grad(self, batch: Any) -> Any:
            model: Any = self.model
            size = max(1, model.micro_batch // batch[1].shape[1])
            with sdpa_kernel(SDPBackend.MATH):  # vmap has no rule for the fused attention kernels
                computed = super().compute_per_sample_grad
                parts = [computed(part) for part in zip(*(values.split(size) for values in batch), strict=True)]
            return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    return MicroBatched


def _diffusion_output(conditions: tuple[str, ...]) -> Any:
    from trak.modelout_functions import AbstractModelOutput

    class DiffusionLoss(AbstractModelOutput):
        """The mean training loss of one item over its draws; Q = I."""

        def __init__(self) -> None:
            """Nothing to keep."""

        @staticmethod
        def get_output(
            model: nn.Module, weights: Any, buffers: Any, inputs: Tensor, times: Tensor, target: Tensor, *cond: Tensor
        ) -> Tensor:
            repeated = (value.expand(len(inputs), *value.shape) for value in cond)
            words = inputs, times, dict(zip(conditions, repeated, strict=True))
            answer = torch.func.functional_call(model, (weights, buffers), words)
            return (answer - target).square().mean()

        def get_out_to_loss_grad(
            self, model: nn.Module, weights: Any, buffers: Any, batch: tuple[Tensor, ...]
        ) -> Tensor:
            return torch.ones(len(batch[0]), 1, device=batch[0].device)

    return DiffusionLoss()
