"""What a model is (ModelSpec) and how it was trained (Recipe), as plain values with a hash."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from ..seeds import digest


@dataclass(frozen=True)
class Sampler:
    """DDIM (arXiv 2010.02502) with ``steps`` steps and noise share ``eta``; eta = 0 is deterministic given x_T.

    clip: whether predicted images are clipped to [-1, 1] at each step, as pixel models want and latent ones do not.
    """

    steps: int = 25
    eta: float = 0.0
    clip: bool = True


@dataclass(frozen=True)
class ModelSpec:
    """A denoiser's architecture (a model class of diffusers and its arguments), noise process and sampler.

    process: arguments of diffusers' DDPMScheduler.
    """

    architecture: str
    config: dict[str, Any]
    process: dict[str, Any] = field(default_factory=dict)
    sampler: Sampler = Sampler()


@dataclass(frozen=True)
class Recipe:
    """Model and optimisation: everything besides data and seed that decides what training yields.

    Training is AdamW on the eps-MSE with linear warm-up then cosine decay to zero, gradients clipped at ``clip_norm``,
    and an exponential moving average of the weights that is the model; ``checkpoints`` are the updates after which the
    average is kept besides the last one. Every model sees ``steps`` updates, however small its training set.
    """

    model: ModelSpec
    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    ema_decay: float
    checkpoints: tuple[int, ...] = ()
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Recipe:
        """Rebuild a recipe from ``to_json``'s values, with or without a trip through JSON."""
        lists = {name: tuple(value[name]) for name in ("checkpoints", "betas")}
        model = ModelSpec(**{**value["model"], "sampler": Sampler(**value["model"]["sampler"])})
        return cls(**{**value, **lists, "model": model})

    def hash(self) -> str:
        """Return a hash of all values."""
        return digest(self.to_json())

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of update ``step`` (0-based)."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
