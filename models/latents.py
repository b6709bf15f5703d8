"""Latents: what a frozen autoencoder makes of images, and back."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..datasets.base import ImageDataset
from ..datasets.stored import CHECKED
from ..seeds import digest
from ..store import FolderStore, file_hash, remove_tree
from .networks import make_network
from .recipe import AutoencoderSpec, compact

SIZE = 8  # images a pass, always as many, since another number rounds otherwise and equal images must stay equal
PART = 128 * SIZE  # images that a kill can lose
OnItem = Callable[[int, int], None]


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


def ignore(done: int, total: int) -> None:
    """Take no notice of progress."""


def with_latents(
    data: ImageDataset, autoencoder: Autoencoder, store: FolderStore | None = None, on_item: OnItem = ignore
) -> ImageDataset:
    """Return the dataset as a latent model sees it: every image encoded once, and kept in the store if there is one.

    Kept latents are mapped into memory, and up to CHECKED bytes compared with their hash; damaged ones are made again.
    A killed encoding goes on. ``on_item`` sees (images encoded, of how many).
    """
    encoder = autoencoder.hash
    if store is None:
        return replace(
            data, latents=torch.cat([autoencoder.encode(data.pixels(ids)) for ids in _parts(data)]), encoder=encoder
        )
    key = f"latents/{encoder[:16]}-{data.fingerprint()[:16]}.safetensors"
    if not _is_whole(store, key):
        _keep(data, autoencoder, store, key, on_item)
    return replace(data, latents=load_file(store.path(key))["latents"], encoder=encoder)


def _is_whole(store: FolderStore, key: str) -> bool:
    """Say whether latents are kept as they were written; damaged ones are set aside."""
    path = store.path(key)
    if not store.exists(key) or store.is_sealed(key, "") is None:
        return False
    if path.stat().st_size > CHECKED or store.is_sealed(key, file_hash(path)):
        return True
    store.set_aside(key)
    return False


def _parts(data: ImageDataset) -> tuple[Tensor, ...]:
    return torch.arange(len(data)).split(PART)


def _keep(data: ImageDataset, autoencoder: Autoencoder, store: FolderStore, key: str, on_item: OnItem) -> None:
    """Encode all images part by part, each part kept until all are there, so that no more than one is in memory."""
    folder, parts = f"{key.removesuffix('.safetensors')}.parts", []
    for ids in _parts(data):
        parts.append(f"{folder}/{int(ids[0]):08d}.f32")
        if store.kept(parts[-1]) is None:
            store.keep(parts[-1], autoencoder.encode(data.pixels(ids)).numpy().tobytes())
        on_item(int(ids[-1]) + 1, len(data))
    shape = [len(data), *autoencoder.encode(data.pixels(torch.arange(1))).shape[1:]]
    _join(store, parts, key, shape)
    remove_tree(store.path(folder))


def _join(store: FolderStore, parts: list[str], key: str, shape: list[int]) -> None:
    """Write a safetensors file of float32 numbers that lie in parts."""
    size = 4 * math.prod(shape)
    header = json.dumps({"latents": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)
    found = hashlib.sha256()
    with store.writing(key) as file:
        for data in chain([len(header).to_bytes(8, "little") + header], map(store.get, parts)):
            found.update(data)
            file.write(data)
    store.seal(key, found.hexdigest())
