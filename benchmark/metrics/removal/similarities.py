"""How alike two images are: pixel similarities, and those of image encoders where their weights can be had."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor
from torch.nn.functional import cosine_similarity

from ....errors import UserError, shown, unknown
from ....leaderboard.rows.removal import LOSS
from ....models.encoders.published import MIN_SIDE, NAMES, Unavailable, open_encoder
from ....models.encoders.weights import find_weights

Compare = Callable[[Tensor, Tensor], Tensor]
SSIM_WINDOW = 7
SIGNED = frozenset({LOSS, "l2"})  # never above zero, so that a change in per cent says nothing


@dataclass(frozen=True)
class Similarity:
    """A similarity of two batches [n, C, H, W] in [-1, 1] -> [n], higher = more alike; None: minus the query's loss.

    encoder: what compares the images, for telling whether a method uses the same; meaningful: whether they are large
    enough for it; weights: the hash of the encoder's weights and code, where it has any.
    """

    name: str
    compare: Compare | None
    encoder: str = ""
    meaningful: bool = True
    weights: str = ""


@dataclass(frozen=True)
class Similarities:
    """The similarities that could be had, and why others could not."""

    found: tuple[Similarity, ...]
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, str]:
        """The hashes of the encoders' weights and code by similarity."""
        return {one.name: one.weights for one in self.found if one.weights}


def ssim(one: Tensor, other: Tensor) -> Tensor:
    """Return the structural similarity (Wang et al., 2004) under uniform windows of 7 pixels, or as many as fit.

    The mean over windows centred at every pixel, images reflected at their borders.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    side = min(*one.shape[-2:], SSIM_WINDOW)
    window = side - 1 + side % 2  # odd
    options = {"gaussian_kernel": False, "kernel_size": window, "data_range": 2.0, "reduction": "none"}
    values = structural_similarity_index_measure(one.clamp(-1, 1), other.clamp(-1, 1), **options)
    assert isinstance(values, Tensor)
    return values


def cosine(one: Tensor, other: Tensor) -> Tensor:
    """Return the cosine of the flattened pixels."""
    return cosine_similarity(one.flatten(1), other.flatten(1), dim=1)


def l2(one: Tensor, other: Tensor) -> Tensor:
    """Return minus the Euclidean distance of the pixels, so that higher is more alike."""
    return -(one - other).flatten(1).norm(dim=1)


BUILT_IN = (
    Similarity("ssim", ssim),
    Similarity("cosine", cosine, "pixels"),
    Similarity("l2", l2, "pixels"),
    Similarity(LOSS, None),
)


def parse_encoders(text: str) -> dict[str, str | None] | None:
    """Return the encoders of ``--encoders`` with local weights where given; None for ``auto``.

    ``none``, ``auto``, or a list such as ``clip,dino=/models/dinov2``. Raises UserError for an unknown name.
    """
    if text == "auto":
        return None
    parts = [part.strip() for part in text.split(",") if part.strip() and part.strip() != "none"]
    chosen = {name: weights or None for name, _, weights in (part.partition("=") for part in parts)}
    for name in chosen:
        if name not in NAMES:
            raise unknown("encoder", name, (*NAMES, "auto", "none"))
    if chosen.get("lpips"):
        raise UserError("--encoders lpips takes no weights: name it alone")
    if len(chosen) != len(parts):
        raise UserError(f"--encoders {shown(text)} names an encoder twice: name each once")
    return chosen


def open_similarities(chosen: Mapping[str, str | None] | None, side: int, device: str) -> Similarities:
    """Return the built-in similarities and the chosen encoders' for images of ``side`` pixels.

    ``chosen`` None: all encoders where images are large enough for them.
    """
    if chosen is None and side < MIN_SIDE:
        reason = f"not meaningful on images below {MIN_SIDE} pixels; --encoders {{}} computes it all the same"
        return Similarities(BUILT_IN, {name: reason.format(name) for name in NAMES})
    found, skipped = list(BUILT_IN), {}
    for name, weights in (dict.fromkeys(NAMES) if chosen is None else chosen).items():
        try:
            found.append(_by_encoder(name, weights, side, device))
        except Unavailable as error:
            skipped[name] = str(error)
    return Similarities(tuple(found), skipped)


def _by_encoder(name: str, weights: str | None, side: int, device: str) -> Similarity:
    meant = find_weights(name, weights)
    return Similarity(name, open_encoder(name, meant.source, device), name, side >= MIN_SIDE, meant.identity)
