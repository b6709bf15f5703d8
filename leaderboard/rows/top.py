"""What a row says of the best items: their ids, query by query."""

from __future__ import annotations

from .strict import Strict


class TopK(Strict):
    """The ids of each query's ``k`` best items [query][k], best first; None for a query without scores."""

    k: int
    n_train: int
    query_ids: list[str]
    kinds: list[str]
    ids: list[list[int] | None]
