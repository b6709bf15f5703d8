"""Which entries name the same items: a heat map of shared top items, and of those that different queries share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...views.selection import preset_labels
from ...views.sheet import Sheet
from .drawing import Drawing, Look, width_of

CELL = 28.0
Pair = tuple[str, str]
Key = tuple[str, str, str]
Names = Sequence[str]


def overlap_figure(between: Sheet, shown: int) -> Drawing:
    """Return the heat map of the view's pairs of entries, darker = more top items in common; all presets."""
    shares: dict[Pair, float] = {}
    labels = _labels(between.data["lines"])
    for one in between.data["lines"]:
        pair = labels[_key(one, "")], labels[_key(one, "other_")]
        shares[pair] = shares[pair[1], pair[0]] = one["overlap"]["mean"] or 0.0
    names = sorted({name for pair in shares for name in pair})[:shown]
    left = top = 20 + width_of(names)
    side = CELL * len(names)
    title = f"{between.title}, share ×100"
    drawing = Drawing(title, _said(shares, names), left + side + 12, top + side + 24)
    for row, one in enumerate(names):
        y = top + CELL * row
        drawing.text((left - 8, y + CELL / 2 + 4), one, Look(fill="text"), "end")
        drawing.text((left + CELL * (row + 0.5) + 4, top - 8), one, Look(fill="text"), turned=True)
        for column, other in enumerate(names[:row]):
            _draw_cell(drawing, (left + CELL * column, y), shares.get((one, other)), f"{one} and {other}")
        _draw_cell(drawing, (left + CELL * row, y), None, one)
    chance = 100 * between.data["k"] / between.data["n_train"]
    drawing.text((8, top + side + 18), f"Chance: {chance:.1f}", Look(fill="soft", size=11))
    return drawing


def _key(line: Mapping[str, Any], prefix: str) -> Key:
    return line[f"{prefix}method"], line[f"{prefix}preset"], line[f"{prefix}params_hash"]


def _labels(lines: Sequence[Mapping[str, Any]]) -> dict[Key, str]:
    keys = sorted({_key(line, prefix) for line in lines for prefix in ("", "other_")})
    return {key: f"{key[0].split('@')[0]}:{preset}" for key, preset in zip(keys, preset_labels(keys), strict=True)}


def _said(shares: Mapping[Pair, float], names: Names) -> str:
    ordered = sorted(((v, a, b) for (a, b), v in shares.items() if a < b and a in names and b in names), reverse=True)
    return "; ".join(f"{a} and {b}: {100 * share:.0f}" for share, a, b in ordered)


def _draw_cell(drawing: Drawing, corner: tuple[float, float], share: float | None, who: str) -> None:
    x, y = corner
    if share is None:
        drawing.box(x + 1, y + 1, CELL - 2, CELL - 2, Look(fill="line", opacity=0.5))
        return
    drawing.box(x + 1, y + 1, CELL - 2, CELL - 2, Look(fill="page"), f"{who}: {100 * share:.1f}")
    drawing.box(
        x + 1, y + 1, CELL - 2, CELL - 2, Look(fill="c0", opacity=0.06 + 0.94 * share), f"{who}: {100 * share:.1f}"
    )
    text = "page" if share > 0.55 else "text"
    drawing.text((x + CELL / 2, y + CELL / 2 + 4), f"{100 * share:.0f}", Look(fill=text, size=11), "middle")
