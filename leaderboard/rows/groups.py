"""What a row says of groups that were left out: whether their scores foretell which of them a query needed."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from .strict import Name, Strict


class GroupScore(Strict):
    """One measure's value per query, as fractions, and their mean; None where it has none.

    shuffled: the mean value that other queries' scores get; ceiling: what replicates of the truth reach, if known.
    """

    values: list[float | None]
    mean: float | None
    shuffled: float | None
    ceiling: float | None = None
    ceiling_low: float | None = None
    ceiling_high: float | None = None

    @model_validator(mode="after")
    def _mean_is_that_of_the_values(self) -> GroupScore:
        present = [value for value in self.values if value is not None]
        expected = sum(present) / len(present) if present else None
        if (self.mean is None) != (expected is None) or abs((self.mean or 0.0) - (expected or 0.0)) > 1e-9:
            raise ValueError("mean is not that of the values")
        return self


class GroupsResult(Strict):
    """Measures by name of one query kind; unit: ``group`` for scores of groups, ``item`` for summed ones of items."""

    query_ids: list[str]
    unit: Literal["item", "group"]
    names: list[str]
    n_replicates: int
    scores: dict[Name, GroupScore]

    @model_validator(mode="after")
    def _counts_agree(self) -> GroupsResult:
        distinct = len(set(self.query_ids))
        if any(len(score.values) != distinct for score in self.scores.values()) or distinct != len(self.query_ids):
            raise ValueError(f"not every measure has a value for each of {distinct} distinct query ids")
        return self
