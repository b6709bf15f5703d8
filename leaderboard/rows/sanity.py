"""What a row says of sanity checks: a value per query and check."""

from __future__ import annotations

from .strict import Hash, Name, Strict


class SanityCheck(Strict):
    """Values per query of one sanity check, and their mean; ``chance``: what random scores would get, if known."""

    query_ids: list[str]
    values: list[float]
    mean: float
    chance: float | None = None


class Sanity(Strict):
    """Cheap checks by name (``inputs``: the hash of what they were computed from); skipped ones with the reason."""

    inputs: Hash
    checks: dict[Name, SanityCheck]
    skipped: dict[Name, str] = {}
