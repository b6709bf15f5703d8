"""Encoders for methods: which weights are meant, their hash, and images as vectors by them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, conv2d

from ...seeds import digest, torch_generator
from ...store import file_hash, sha256
from . import BUILT_IN
from .published import open_embedding, weight_files

Encode = Callable[[Tensor], Tensor]  # images [B, C, H, W] in [-1, 1] -> embeddings [B, D] float32 on the CPU


@dataclass(frozen=True)
class Weights:
    """An encoder's weights here: ``source`` is their folder or file (None: where the encoder looks by itself)."""

    name: str
    source: str | None
    sha256: str

    @property
    def identity(self) -> str:
        """What its embeddings depend on: the weights, and the code that reads and runs them."""
        code = [sha256(path.read_bytes()) for path in sorted(Path(__file__).parent.glob("*.py"))]
        return digest([self.name, self.sha256, code])


def find_weights(name: str, weights: str | None = None) -> Weights:
    """Return the weights of an encoder, a folder, file or hub id, or the published ones, brought here if need be.

    Raises UserError for an unknown name, Unavailable where they cannot be had.
    """
    if name in BUILT_IN:
        return Weights(name, None, "")
    files, source = weight_files(name, weights)
    return Weights(name, source, digest([[path.name, file_hash(path)] for path in sorted(files)]))


def open_encode(name: str, source: str | None = None, device: str = "cpu") -> Encode:
    """Return what embeds images; raises UserError for an unknown name, Unavailable where packages or weights lack."""
    return random_convolution(name) if name in BUILT_IN else open_embedding(name, source, device)


def random_convolution(key: str) -> Encode:
    """Return an encoder of 16 random filters, the same for the same key: their responses in 4 x 4 fields, D = 256."""

    @torch.no_grad()
    def encode(images: Tensor) -> Tensor:
        channels = images.shape[1]
        filters = torch.randn(16, channels, 3, 3, generator=torch_generator("encoder", key, channels))
        return adaptive_avg_pool2d(conv2d(images.cpu().float(), filters, padding=1).relu(), 4).flatten(1)

    return encode
