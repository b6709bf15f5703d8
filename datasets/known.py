"""What is known of published datasets' pixels: short hashes, by which a source is recognised, whatever its row order.

<name>.safetensors in ``known/``: ``hashes`` uint8 [n, 6], sorted, of the images that could be had when it was made;
and, packed to bits over these, named sets of them, such as a split, or a paper's draw of training images. By them, or
by its card's fingerprint, a stored dataset is told from another track.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from .base import HELDOUT, Card, ImageDataset
from .stored import StoredColumn

FOLDER = Path(__file__).parent / "known"
BYTES = 6  # of a SHA-256: among 10^5 images, one in 10^4 datasets has a false match


def pixel_hash(pixels: np.ndarray) -> bytes:
    """Return the first bytes of the SHA-256 of an image, uint8 [C, H, W], and of its shape."""
    return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).digest()[:BYTES]


@cache
def known_sets(name: str) -> dict[str, frozenset[bytes]]:
    """Return the sets of a dataset's images by their names, as hashes."""
    arrays = load_file(FOLDER / f"{name}.safetensors")
    hashes = arrays.pop("hashes")
    masks = {chosen: np.unpackbits(bits, count=len(hashes)).astype(bool) for chosen, bits in arrays.items()}
    return {chosen: frozenset(row.tobytes() for row in hashes[mask]) for chosen, mask in masks.items()}


def write_known(name: str, sets: dict[str, set[bytes]]) -> Path:
    """Write the sets of a dataset's images, by their hashes, and return the file."""
    hashes = sorted(set().union(*sets.values()))
    masks = {chosen: np.packbits([one in members for one in hashes]) for chosen, members in sets.items()}
    rows = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, BYTES)
    FOLDER.mkdir(exist_ok=True)
    save_file({"hashes": rows, **masks}, FOLDER / f"{name}.safetensors")
    return FOLDER / f"{name}.safetensors"


def known_items(card: Card) -> frozenset[bytes]:
    """Return the pixel hashes of a dataset's items, as far as they are known; of one without a set, of its parts."""
    sets = known_sets(card.known) if card.known else {}
    named = [name for name in (card.name, f"{card.name}-{HELDOUT}") if name in sets]
    parts = ("train", "test") if card.heldout else ("train",)
    return frozenset().union(*(sets.get(name, ()) for name in named or parts))


def pixel_hashes(images: StoredColumn) -> frozenset[bytes]:
    """Return the pixel hashes of stored images."""
    return frozenset(pixel_hash(images.raw(i)) for i in range(len(images)))


def matching(data: ImageDataset) -> tuple[int, int]:
    """Return how many of a dataset's known items are among those that are stored, and how many are known."""
    known = known_items(data.card)
    found = pixel_hashes(data.images) if known and isinstance(data.images, StoredColumn) else frozenset[bytes]()
    return len(known & found), len(known)


def is_original(data: ImageDataset) -> bool | None:
    """Say whether a dataset is the one that its card means; None where nothing is known to tell by."""
    if data.card.fingerprint:
        return data.fingerprint() == data.card.fingerprint
    found, known = matching(data)
    return found == known if known else None
