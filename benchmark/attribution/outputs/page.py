"""The page of an answer: one file that opens from disk, with all its images inside."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from ..answer import Answer
from .thumbnails import data_uri

LIMIT = 4_500_000  # bytes of images: the page stays under 5 MB
SIDES = (128, 96, 64, 48, 32)


def page(answer: Answer, about: dict[str, Any]) -> str:
    """Return the page as HTML; about: provenance, as of ``report``."""
    template = files(__package__ or "").joinpath("page.html.j2").read_text(encoding="utf-8")
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    shown = _shown(answer)
    return made.from_string(template).render(
        about=about,
        queries=[_query(answer, i) for i in range(len(answer.queries))],
        images=_images(answer, shown),
        entries=list(answer.scores),
        agreements=answer.agreements,
        missing=answer.missing,
        costs=answer.costs,
        top=answer.made.request.top,
        pixelated=max(answer.pictures.shape[2:]) <= 64,
    )


def _shown(answer: Answer) -> list[int]:
    """Return the training images that are on the page, each once."""
    tops = {t.item for entry in answer.scores for q in range(len(answer.queries)) for t in answer.top(entry, q)}
    return sorted(tops)


def _images(answer: Answer, shown: Sequence[int]) -> dict[str, str]:
    """Return data URIs by the names of their classes, as large as all of them together may be."""
    for side in SIDES:
        found = {f"q{i}": data_uri(image, side) for i, image in enumerate(answer.pictures)}
        for item in shown:
            found[f"t{item}"] = data_uri(answer.pixels([item])[0], side)
        if sum(map(len, found.values())) <= LIMIT:
            break
    return found


def _query(answer: Answer, query: int) -> dict[str, Any]:
    copies = {copy.item: copy for copy in answer.copies[query]}
    tops = {entry: answer.top(entry, query) for entry in answer.scores}
    chosen = {entry: {t.item for t in top} for entry, top in tops.items()}
    methods = []
    for entry, top in tops.items():
        items = [
            {
                "item": t.item,
                "file": answer.items[t.item],
                "score": f"{t.score:#.3g}",
                "spread": None if t.spread is None else f"{t.spread:.2g}",
                "near": copies.get(t.item),
                "also": [other.partition(":")[0] for other in chosen if other != entry and t.item in chosen[other]],
            }
            for t in top
        ]
        methods.append({"entry": entry, "items": items})
    nearest = [{"file": answer.items[copy.item], "same": copy.same} for copy in answer.copies[query][:5]]
    return {"name": answer.queries[query], "methods": methods, "copies": nearest}
