"""One thing that was compared of a cell: what it was, what it is, and whether that is worse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..views.sheet import MISSING

Kind = Literal["status", "quality", "passes", "time", "memory"]


@dataclass(frozen=True)
class Finding:
    """A comparison: means before and after, the change's 95 % interval and p-values where there is a test.

    scale: what numbers are multiplied by when they are shown; how: by what rule it is judged, where the kind does not
    say it; p: one-sided, that it is no worse; adjusted: the same among all tests of the check.
    """

    kind: Kind
    what: str
    before: float | str
    after: float | str
    worse: bool
    how: str
    scale: float = 1.0
    low: float | None = None
    high: float | None = None
    p: float | None = None
    adjusted: float | None = None

    def number(self, value: float | str | None) -> str:
        """Return a value as it is shown."""
        if value is None or isinstance(value, str):
            return value or MISSING
        scaled = value * self.scale
        return f"{scaled:,.0f}" if self.kind == "passes" else f"{scaled:.3g}"

    @property
    def factor(self) -> float:
        """How many times what it was it is now; 0 where it was nothing, or is no number."""
        if isinstance(self.before, str) or isinstance(self.after, str):
            return 0.0
        return self.after / self.before if self.before else 0.0

    @property
    def change(self) -> str:
        """The change with its interval, or as a factor where it is a cost."""
        if isinstance(self.before, str) or isinstance(self.after, str):
            return MISSING
        if self.kind != "quality":
            return f"x{self.factor:.3g}" if self.before else "from none" if self.after else MISSING
        ends = f" [{self.number(self.low)}, {self.number(self.high)}]" if self.low is not None else ""
        return f"{(self.after - self.before) * self.scale:+.3g}{ends}"

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        p = "" if self.adjusted is None else f", p {self.adjusted:.2g}"
        change = "" if self.change == MISSING else f" ({self.change}{p})"
        how = f", {self.how}" if self.how else ""
        return f"{self.what} {self.number(self.before)} to {self.number(self.after)}{change}{how}"
