"""Pages as the tests of the page need them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

from tdabench.leaderboard.rows.row import Metrics, Row

from ..helpers import SHARED, lds_row, lds_rows, make_key, make_lds, make_source, removal_rows, top

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\x00\x1b[31m\u202e\u2028"


def data_of(page: str) -> dict[str, Any]:
    """What the page's script reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))


def every_kind_of_row() -> list[Row]:
    """Rows of three tasks: with an LDS, with all else, and reported by others."""
    other = [row.model_copy(update={"key": row.key.model_copy(update={"task": "letters"})}) for row in removal_rows()]
    reported = lds_row("claimed", 0.9, 0.9, source=make_source(kind="reported"))
    return [*lds_rows(), *with_tops(), reported, *other]


def with_tops() -> list[Row]:
    """Rows of a task whose queries have top items."""
    lds = {"heldout": make_lds(0.3)}
    queries = lds["heldout"].query_ids
    found = []
    for seed, name in enumerate(("alpha", "beta", "gamma")):
        own = top(seed).model_copy(
            update={"query_ids": queries, "kinds": ["heldout"] * 20, "ids": [[seed, 7, 40 + i] for i in range(20)]}
        )
        metrics = Metrics(lds={"heldout": make_lds(0.3 - seed / 10, offset=seed)}, top=own)
        found.append(lds_row(name, key=make_key(name, task="scans", preset="quick"), metrics=metrics))
    return found


def hostile_rows() -> list[Row]:
    """Rows whose text says what it should not; a row's own schema refuses such names, so it is got around."""
    key = make_key("trak").model_copy(update={"method": HOSTILE, "preset": HOSTILE, "params": {HOSTILE: HOSTILE}})
    source = make_source().model_copy(update={"command": HOSTILE, "notes": [HOSTILE]})
    bad = lds_row("trak", 0.5, 0.2).model_copy(
        update={"key": key, "source": source, "environment": {"cpu": HOSTILE, "gpu": None}}
    )
    failed = lds_rows()[-1].model_copy(update={"reason": HOSTILE})
    return [*lds_rows()[:-1], bad, failed]


def many_rows(tasks: int, entries: int, seeds: int) -> list[Row]:
    """Rows by the thousand: entries of several tasks with seeds each, which share their results."""
    found = []
    short = SHARED[:200]
    for entry in range(entries):
        lds = make_lds(0.5 - entry / 200)
        lds = lds.model_copy(update={"replicates": (0.5 - entry / 200 + short).tolist()})
        row = lds_row(f"m{entry}", metrics=Metrics(lds={"heldout": lds}))
        for task in range(tasks):
            for seed in range(seeds):
                key = row.key.model_copy(update={"task": f"t{task}", "seed": seed})
                found.append(row.model_copy(update={"key": key}))
    return found


class Reader(HTMLParser):
    """The elements of a page, with those whose text is in the page as it is."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
