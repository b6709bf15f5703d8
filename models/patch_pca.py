"""A linear autoencoder: the principal components of square patches, one vector of them per patch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle


class PatchPCA(nn.Module):
    """Images [B, C, H, W] to the first ``latent_channels`` components of each patch, over their scales, and back.

    patch: pixels on a side, which divides H and W; latents are [B, latent_channels, H / patch, W / patch]. It answers
    as the autoencoders of diffusers do, so it can stand where one of them can.
    """

    def __init__(self, in_channels: int = 3, patch: int = 4, latent_channels: int = 16) -> None:
        super().__init__()
        size = in_channels * patch**2
        if not 1 <= latent_channels <= size:
            raise ValueError(f"patches of {size} values have 1 to {size} components, and not {latent_channels}")
        self.patch = patch
        self.mean = nn.Parameter(torch.zeros(size))
        self.components = nn.Parameter(torch.eye(latent_channels, size))
        self.scales = nn.Parameter(torch.ones(latent_channels))

    def encode(self, images: Tensor) -> Any:
        """Return an object whose ``latents`` are those of images."""
        patches = pixel_unshuffle(images, self.patch).movedim(1, -1) - self.mean
        return SimpleNamespace(latents=(patches @ self.components.T / self.scales).movedim(-1, 1).contiguous())

    def decode(self, latents: Tensor) -> Any:
        """Return an object whose ``sample`` is the images nearest to having such latents."""
        patches = (latents.movedim(1, -1) * self.scales) @ self.components + self.mean
        return SimpleNamespace(sample=pixel_shuffle(patches.movedim(-1, 1).contiguous(), self.patch))


def fit_patch_pca(images: Tensor, patch: int, latent_channels: int, whitening: float = 1.0) -> dict[str, Tensor]:
    """Return the weights of a ``PatchPCA`` for images [N, C, H, W], computed in float64 (Pearson 1901).

    whitening: the power of a component's deviation that it is divided by. 1 makes all deviations 1; 0 leaves them in
    proportion, so that a squared error of latents is one of pixels; their mean square is 1 for any. The largest entry
    of every component is positive, so that equal images give equal weights.
    """
    patches = pixel_unshuffle(images.double(), patch).movedim(1, -1).flatten(0, -2)
    mean = patches.mean(0)
    variances, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
    deviations = variances.flip(0)[:latent_channels].clamp_min(1e-12).sqrt()
    components = vectors.T.flip(0)[:latent_channels]
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    scales = deviations**whitening
    scales = scales * (deviations / scales).square().mean().sqrt()
    found = {"mean": mean, "components": components * largest.sign(), "scales": scales}
    return {name: value.float().contiguous() for name, value in found.items()}
