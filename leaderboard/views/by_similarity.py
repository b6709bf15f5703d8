"""What the views on removal have in common: which rows they show, and how similarities are printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from ...errors import UserError, unknown
from ..rows.removal import LOSS, PerQuery, Removal, Union
from ..rows.row import Row
from .selection import Place, holding, identity, place_of
from .sheet import Failure, Interval

COMMAND = "tdabench run TASK --metrics removal"

Part = Literal["union", "per_query"]


class Unit(NamedTuple):
    """How a similarity is printed: its name with the factor, the factor, and the decimals."""

    name: str
    scale: float
    decimals: int

    def text(self, value: Interval) -> str:
        """Return an interval, or its mean where there is none."""
        return value.text(self.scale, self.decimals)


def unit_of(similarity: str) -> Unit:
    """Return how a similarity is printed."""
    scale, decimals = {LOSS: (1000, 2), "l2": (1, 2)}.get(similarity, (100, 1))
    return Unit(similarity if scale == 1 else f"{similarity}×{scale}", scale, decimals)


class Held(NamedTuple):
    """The entries that were compared by a similarity, in order of name, and those that were not, with the reason."""

    rows: list[tuple[Row, Removal]]
    failures: dict[Place, list[Failure]]


def held_by(rows: Sequence[Row], part: Part, similarity: str) -> Held:
    """Return the entries with a ``part`` of the removal results; raises UserError where none has ``similarity``."""
    what = f"{part.replace('_', '-')} removal results"
    held = holding(rows, lambda row: _removal(row, part), what, COMMAND)
    if not any(similarity in _measured(removal, part) for _, removal in held):
        raise _missing(similarity, [removal for _, removal in held], part)
    found = [(row, removal) for row, removal in held if similarity in _measured(removal, part)]
    failures: dict[Place, list[Failure]] = {}
    for row, removal in held:
        if similarity not in _measured(removal, part):
            failures.setdefault(place_of(row), []).append(_failure(row, removal, similarity))
    return Held(found, failures)


def _removal(row: Row, part: Part) -> Removal | None:
    removal = row.metrics.removal if row.metrics else None
    return removal if removal and _part(removal, part) else None


def _part(removal: Removal, part: Part) -> Union | PerQuery | None:
    return removal.union if part == "union" else removal.per_query


def _measured(removal: Removal, part: Part) -> Mapping[str, object]:
    found = _part(removal, part)
    return found.similarities if found else {}


def _missing(similarity: str, removals: Sequence[Removal], part: Part) -> UserError:
    reasons = [removal.skipped[similarity] for removal in removals if similarity in removal.skipped]
    if reasons:
        return UserError(f"similarity {similarity!r} was skipped in all rows: {reasons[0]}")
    return unknown("similarity", similarity, {name for removal in removals for name in _measured(removal, part)})


def _failure(row: Row, removal: Removal, similarity: str) -> Failure:
    reason = removal.skipped.get(similarity, f"not compared by {similarity}")
    return Failure(**identity(row), status="skipped", reason=" ".join(reason.split()))


def weights_notes(weights: str) -> list[str]:
    """Return what is said of an encoder's weights, by whose hash tables of one similarity are told apart."""
    return [f"Weights and code of the encoder: {weights}."] if weights else []
