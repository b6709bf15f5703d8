"""Axes: from values to pixels, with ticks and their labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .drawing import Anchor, Drawing, Look

GRID = Look(stroke="line")
TICK = Look(fill="soft", size=11)
NAME = Look(fill="text", size=12)


@dataclass(frozen=True)
class Scale:
    """A straight map of ``low`` .. ``high`` to pixels ``start`` .. ``end``; with ``log``, of their logarithms.

    On a logarithmic scale, what is 0 lies at ``zero``, apart from all else.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    zero: float | None = None

    def at(self, value: float) -> float:
        """Return the pixel of a value."""
        if self.log and value <= 0:
            return self.start if self.zero is None else self.zero
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round values within: powers of ten, or steps of 1, 2 or 5 of them."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            every = max(1, (last - first + 1) // 7)
            powers = [10.0**power for power in range(first, last + 1, every)]
            return [0.0] * (self.zero is not None) + powers
        step = _step((self.high - self.low) / 6)
        first = math.ceil(self.low / step - 1e-9)
        return [round(index * step, 10) for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _step(rough: float) -> float:
    power = 10 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def linear(values: Iterable[float], start: float, end: float, share: float = 0.06) -> Scale:
    """Return a scale on which the values lie, with a share of their spread free at both ends."""
    values = list(values)
    low, high = min(values), max(values)
    free = (high - low) * share or max(abs(high), 1.0) * 0.1
    return Scale(low - free, high + free, start, end)


def logarithmic(values: Iterable[float], start: float, end: float) -> Scale:
    """Return a scale from below the least positive value to above the largest; zeros lie apart, at the start."""
    values = list(values)
    positive = [value for value in values if value > 0] or [1.0]
    low, high = 10 ** math.floor(math.log10(min(positive))), 10 ** math.ceil(math.log10(max(positive)) + 1e-9)
    high = high if high > low else low * 10
    if len(positive) == len(values):
        return Scale(low, high, start, end, log=True)
    return Scale(low, high, start + (end - start) * 0.1, end, log=True, zero=start + (end - start) * 0.02)


def horizontal(
    drawing: Drawing, scale: Scale, top: float, bottom: float, name: str, labels: Sequence[str] = ()
) -> None:
    """Draw the grid of a scale from left to right between two heights, its ticks and its name below."""
    for index, value in enumerate(scale.ticks()):
        x = scale.at(value)
        drawing.line(((x, top), (x, bottom)), GRID)
        drawing.text((x, bottom + 15), labels[index] if labels else abbreviated(value), TICK, "middle")
    drawing.text(((scale.start + scale.end) / 2, bottom + 34), name, NAME, "middle")


def vertical(drawing: Drawing, scale: Scale, left: float, right: float, name: str, anchor: Anchor = "start") -> None:
    """Draw the grid of a scale from bottom to top between two sides, its ticks at the left and its name above."""
    for value in scale.ticks():
        y = scale.at(value)
        drawing.line(((left, y), (right, y)), GRID)
        drawing.text((left - 6, y + 4), abbreviated(value), TICK, "end")
    drawing.text((left - 40, min(scale.start, scale.end) - 12), name, NAME, anchor)


def abbreviated(value: float) -> str:
    """Return a value of a tick: 1k, 1M; small ones as they are."""
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:.5g}"


def apart(wanted: Sequence[float], distance: float, low: float, high: float) -> list[float]:
    """Return places near the wanted ones, in their order, ``distance`` apart, within limits if there is room."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    placed = [0.0] * len(wanted)
    last = low - distance
    for index in order:
        last = placed[index] = max(wanted[index], last + distance)
    last = high + distance
    for index in reversed(order):
        last = placed[index] = min(placed[index], last - distance)
    return placed
