"""Random streams named by what they are for, so that no draw depends on the order in which work is done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def derive(*axes: str | int) -> int:
    """Return a 63-bit seed determined by the named axes alone (stable over processes, machines and versions)."""
    text = json.dumps(axes, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_generator(*axes: str | int) -> torch.Generator:
    """Return a CPU generator seeded by ``axes``; draws are made on the CPU so that every device sees the same ones."""
    import torch

    return torch.Generator().manual_seed(derive(*axes))


@contextmanager
def seeded(device: torch.device, *axes: str | int) -> Iterator[None]:
    """Seed the global state of the CPU (and of a CUDA device) by ``axes``, and restore it afterwards.

    For layers that take no generator (initialisation, dropout); ``torch.manual_seed`` would reseed every device.
    """
    import torch

    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(derive(*axes))
        if devices:
            torch.cuda.manual_seed(derive(*axes))
        yield


def numpy_generator(*axes: str | int) -> np.random.Generator:
    """Return a NumPy generator seeded by ``axes``."""
    import numpy as np

    return np.random.default_rng(derive(*axes))


def digest(value: object, length: int = 16) -> str:
    """Return the hexadecimal hash of a JSON-serialisable value, insensitive to the order of mappings' keys.

    Raises ValueError for what is no JSON: numbers that are not finite, lone surrogates.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    if "\\ud" in text:  # of a pair, or alone
        json.dumps(value, ensure_ascii=False).encode()
    return hashlib.sha256(text.encode()).hexdigest()[:length]
