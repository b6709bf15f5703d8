"""Latents: what a frozen autoencoder makes of images, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors
from torch import Tensor

from ..datasets.base import ImageDataset
from ..seeds import digest
from ..store import FolderStore
from .networks import make_network
from .recipe import AutoencoderSpec, compact

SIZE = 8  # images a pass, always as many, since another number rounds otherwise and equal images must stay equal


def state_hash(state: Mapping[str, Tensor], start: str = "") -> str:
    """Return the SHA-256 of weights: names, types, shapes and bytes, after those of a text."""
    found = hashlib.sha256(start.encode())
    for name, value in sorted(state.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.contiguous().numpy().tobytes())
    return found.hexdigest()


class Autoencoder:
    """A frozen autoencoder in float32: images [B, C, H, W] in [-1, 1] to latents [B, c, h, w] and back."""

    def __init__(self, spec: AutoencoderSpec, state: Mapping[str, Tensor], device: torch.device | str = "cpu") -> None:
        self.spec, self.device = spec, torch.device(device)
        with torch.random.fork_rng(devices=[]):  # whatever weights it has first are replaced
            self.net: Any = make_network(spec.architecture, spec.config)
        self.net.load_state_dict(dict(state))
        self.net.eval().requires_grad_(False).to(self.device)

    @property
    def state(self) -> dict[str, Tensor]:
        """The weights on the CPU."""
        return {name: value.cpu() for name, value in self.net.state_dict().items()}

    @property
    def hash(self) -> str:
        """A hash of its specification and weights."""
        return state_hash(self.state, digest(compact(self.spec)))

    def encode(self, images: Tensor) -> Tensor:
        """Return latents on the CPU; of an encoder that answers a distribution, its mode."""
        return self._in_parts(images, lambda x: (_code(self.net.encode(x)) - self.spec.shift) * self.spec.scale)

    def decode(self, latents: Tensor) -> Tensor:
        """Return images on the CPU, not clipped."""
        return self._in_parts(latents, lambda x: self.net.decode(x / self.spec.scale + self.spec.shift).sample)

    @torch.no_grad()
    def _in_parts(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        filler = x[:1] if len(x) else x.new_zeros(1, *x.shape[1:])
        parts = [torch.cat([part, filler.expand(SIZE - len(part), -1, -1, -1)]) for part in x.split(SIZE)]
        made = [function(part.to(self.device, torch.float32)).cpu() for part in parts]
        return torch.cat(made)[: len(x)].contiguous()


def _code(answer: Any) -> Tensor:
    return answer.latent_dist.mode() if hasattr(answer, "latent_dist") else answer.latents


def latent_shape(spec: AutoencoderSpec, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape [c, h, w] of the latents of images of a shape [C, H, W], computed without any weights."""
    with torch.device("meta"):
        net: Any = make_network(spec.architecture, spec.config).eval()
        return tuple(_code(net.encode(torch.zeros(1, *shape))).shape[1:])


def with_latents(data: ImageDataset, autoencoder: Autoencoder, store: FolderStore | None = None) -> ImageDataset:
    """Return the dataset as a latent model sees it: every image encoded once, and kept in the store if there is one.

    Kept latents are mapped into memory and not read.
    """
    encoder = autoencoder.hash
    if store is None:
        return replace(data, latents=_encoded(data, autoencoder), encoder=encoder)
    key = f"latents/{encoder[:16]}-{data.fingerprint()[:16]}.safetensors"
    try:
        latents = load_file(store.path(key))["latents"]
    except (FileNotFoundError, SafetensorError, KeyError):  # not there yet, or damaged
        store.put(key, save_tensors({"latents": _encoded(data, autoencoder)}))
        latents = load_file(store.path(key))["latents"]
    return replace(data, latents=latents, encoder=encoder)


def _encoded(data: ImageDataset, autoencoder: Autoencoder) -> Tensor:
    return torch.cat([autoencoder.encode(data.pixels(ids)) for ids in torch.arange(len(data)).split(128 * SIZE)])
