"""One query after the other: its picture, each entry's score on it, and the items that each entry puts on top."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from .comparisons import scores_by_query
from .entries import Entry
from .facts import Sprite

TOP = 8  # items shown of each entry and query
EACH_KIND = 100  # queries of a kind that the page can hold


def drill_down(entries: Sequence[Entry], sprite: Sprite | None, why_none: str) -> dict[str, Any]:
    """Return queries, scores [entry][query] and top items [entry][query][TOP] (None where rows do not hold them)."""
    kinds = _queries(entries)
    ids = [query for queries in kinds.values() for query in queries]
    tops = [_tops(entry, ids) for entry in entries]
    return {
        "queries": [[query, kind] for kind, queries in kinds.items() for query in queries],
        "scores": [scores_by_query(entry, ids) for entry in entries],
        "tops": tops,
        "sprite": _sprite(sprite, ids, tops) if sprite else None,
        "why": why_none,
    }


def _queries(entries: Sequence[Entry]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entry in entries:
        for row in entry.standing.rows:
            for kind, result in sorted(row.metrics.lds.items()) if row.metrics else ():
                found.setdefault(kind, result.query_ids[:EACH_KIND])
    return found


def _tops(entry: Entry, ids: Sequence[str]) -> list[list[int] | None] | None:
    """Return the top items by the entry's row of the lowest seed, which other views show too."""
    row = min(entry.standing.rows, key=lambda row: row.key.seed)
    top = row.metrics.top if row.metrics else None
    if top is None:
        return None
    found = dict(zip(top.query_ids, top.ids, strict=True))
    return [items[:TOP] if (items := found.get(query)) else None for query in ids]


def shown_items(tops: Sequence[Sequence[Sequence[int] | None] | None]) -> list[int]:
    """Return the distinct items in top items [entry][query][TOP], ascending."""
    return sorted({item for entry in tops for items in entry or () for item in items or ()})


def _sprite(sprite: Sprite, ids: Sequence[str], tops: Sequence[Any]) -> dict[str, Any]:
    items = {str(item): sprite.items[item] for item in shown_items(tops) if item in sprite.items}
    queries = {query: sprite.queries[query] for query in ids if query in sprite.queries}
    uri = "data:image/png;base64," + base64.b64encode(sprite.png).decode()
    sizes = {"tile": sprite.tile, "columns": sprite.columns}
    return {"uri": uri, **sizes, "items": items, "queries": queries}
