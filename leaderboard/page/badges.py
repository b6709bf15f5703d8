"""Badges: a method's place on a task as a small SVG file, which needs no service."""

from __future__ import annotations

from ..views.sheet import rank_text
from .entries import Entry, Ranked
from .figures.drawing import Drawing, Look

HEIGHT, WIDE = 20.0, 6.4  # pixels; of a letter at size 11


def badges(ranked: Ranked) -> dict[str, str]:
    """Return by file name the badge of each method's best entry on a task."""
    best: dict[str, Entry] = {}
    for one in ranked.entries:
        if one.line.rank_best is not None:
            best.setdefault(one.method, one)
    count = sum(one.standing.rankable for one in ranked.entries)
    return {f"{ranked.table.task}-{method}.svg": badge(ranked.table.task, one, count) for method, one in best.items()}


def badge(task: str, entry: Entry, count: int) -> str:
    """Return an entry's badge: the task, its method, and the range of its ranks among ``count`` entries."""
    ranks = rank_text(entry.line.rank_best, entry.line.rank_worst)
    left, right = f"tdabench {task}", f"{entry.label}: rank {ranks} of {count}"
    split, width = 12 + WIDE * len(left), 24 + WIDE * (len(left) + len(right))
    drawing = Drawing(f"{left}, {right}", f"LDS {entry.line.overall.text()}", width, HEIGHT)
    drawing.box(0, 0, split, HEIGHT, Look(fill="text"))
    drawing.box(split, 0, width - split, HEIGHT, Look(fill="c0"))
    drawing.text((split / 2, 14), left, Look(fill="page", size=11), "middle")
    drawing.text(((split + width) / 2, 14), right, Look(fill="page", size=11), "middle")
    return drawing.svg()
