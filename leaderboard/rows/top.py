"""What a row says of the best items: their ids, query by query."""

from __future__ import annotations

from pydantic import model_validator

from .strict import Count, Name, Number, Strict, Text, check_distinct


class TopK(Strict):
    """The ids of each query's ``k`` best items [query][k], best first; None for a query without scores."""

    k: Count
    n_train: Number
    query_ids: list[Text]
    kinds: list[Name]
    ids: list[list[Count] | None]

    @model_validator(mode="after")
    def _ids_are_training_items(self) -> TopK:
        check_distinct(self.query_ids, "query ids")
        if not len(self.ids) == len(self.kinds) == len(self.query_ids):
            raise ValueError(f"{len(self.ids)} lists and {len(self.kinds)} kinds for {len(self.query_ids)} queries")
        for query, ids in zip(self.query_ids, self.ids, strict=True):
            alike = ids is not None and (len(set(ids)) != len(ids) or len(ids) > self.k)
            if alike or max(ids or [0]) >= self.n_train:
                raise ValueError(f"the top items of {query} are no {self.k} different ones of {self.n_train}")
        return self
