"""What a row says of sanity checks: a value per query and check."""

from __future__ import annotations

from pydantic import model_validator

from .strict import Hash, Name, Strict, Text, check_distinct, check_mean


class SanityCheck(Strict):
    """Values per query of one sanity check, and their mean; ``chance``: what random scores would get, if known."""

    query_ids: list[Text]
    values: list[float]
    mean: float
    chance: float | None = None

    @model_validator(mode="after")
    def _values_are_the_queries(self) -> SanityCheck:
        check_distinct(self.query_ids, "query ids")
        if len(self.values) != len(self.query_ids):
            raise ValueError(f"{len(self.values)} values for {len(self.query_ids)} queries")
        check_mean(self.mean, self.values)
        return self


class Sanity(Strict):
    """Cheap checks by name (``inputs``: the hash of what they were computed from); skipped ones with the reason."""

    inputs: Hash
    checks: dict[Name, SanityCheck]
    skipped: dict[Name, Text] = {}
