"""What a row says of groups that were left out: whether their scores foretell which of them a query needed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from .strict import Correlation, Name, Number, Strict, Text, check_interval, check_mean, without_empty


class GroupScore(Strict):
    """One measure's value per query, as fractions, and their mean; None where it has none.

    shuffled: the mean value that other queries' scores get; ceiling: what replicates of the truth reach, if known;
    sizes: the values that the groups' numbers of items get as scores, none where they are not known.
    """

    values: list[Correlation | None]
    mean: Correlation | None
    shuffled: Correlation | None
    ceiling: Correlation | None = None
    ceiling_low: Correlation | None = None
    ceiling_high: Correlation | None = None
    sizes: list[Correlation | None] = []

    @model_serializer(mode="wrap")
    def _without_sizes_that_are_not_there(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_empty(handler(self), "sizes")

    @model_validator(mode="after")
    def _mean_is_that_of_the_values(self) -> GroupScore:
        check_mean(self.mean, self.values)
        check_interval(self.ceiling_low, self.ceiling_high, "ceiling_")
        return self


class GroupsResult(Strict):
    """Measures by name of one query kind; unit: ``group`` for scores of groups, ``item`` for summed ones of items."""

    query_ids: list[Text]
    unit: Literal["item", "group"]
    names: list[Text]
    n_replicates: Number
    scores: dict[Name, GroupScore]

    @model_validator(mode="after")
    def _counts_agree(self) -> GroupsResult:
        distinct = len(set(self.query_ids))
        counts = {len(found) for score in self.scores.values() for found in (score.values, score.sizes or score.values)}
        if counts - {distinct} or distinct != len(self.query_ids):
            raise ValueError(f"not every measure has a value for each of {distinct} distinct query ids")
        return self
