"""Drawings as PDF, by matplotlib, which is an extra (``figures``): the same marks in light colours."""

from __future__ import annotations

import io
from typing import Any

from .drawing import PALETTE, Drawing, Mark

PIXELS = 96.0  # of the drawing, an inch
POINTS = 72.0 / PIXELS  # a pixel


def pdf(drawing: Drawing) -> bytes:
    """Return a drawing as a PDF of one page, without a date, so that equal drawings are equal files."""
    from matplotlib.backends.backend_pdf import FigureCanvasPdf  # pyright: ignore[reportMissingImports]
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]

    figure = Figure(figsize=(drawing.width / PIXELS, drawing.height / PIXELS))
    FigureCanvasPdf(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, drawing.width)
    axes.set_ylim(drawing.height, 0)
    axes.axis("off")
    for mark in drawing.marks:
        _add(axes, mark)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="pdf", metadata={"Title": drawing.title, "CreationDate": None})
    return buffer.getvalue()


def _add(axes: Any, mark: Mark) -> None:
    look, xs, ys = mark.look, *zip(*mark.points, strict=True)
    if mark.kind == "text":
        place = {"ha": {"start": "left", "middle": "center", "end": "right"}[mark.anchor], "va": "baseline"}
        turned = {"rotation": 90, "ha": "right", "va": "bottom", "rotation_mode": "default"} if mark.turned else {}
        shown = {"size": look.size * POINTS, "color": _colour(look.fill), "alpha": look.opacity, "weight": look.weight}
        axes.text(xs[0], ys[0], mark.text, parse_math=False, **(place | turned), **shown)
    elif mark.kind == "area":
        edge = _colour(look.stroke) if look.stroke else "none"
        axes.fill(xs, ys, facecolor=_colour(look.fill), edgecolor=edge, lw=look.width * POINTS, alpha=look.opacity)
    else:
        dash = (0, [float(part) for part in look.dash.split()]) if look.dash else "-"
        axes.plot(xs, ys, color=_colour(look.stroke), lw=look.width * POINTS, alpha=look.opacity, ls=dash)


def _colour(name: str) -> str:
    return PALETTE[name][0] if name else "none"
