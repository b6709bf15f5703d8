"""Ablations: a preset and the declared changes of it, run on dev queries and open subsets."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import UserError, unknown
from ...leaderboard.views.ablations import ablation_sheets
from ...methods.base import Method
from ...methods.registry import Entry, params_hash, preset_params
from .session import Session, check_items, failed
from .terminal import print_sheets


def ablate(session: Session, name: str, preset: str, only: list[str]) -> int:
    """Run a preset and its ablations, print them side by side, and return the exit code."""
    cls = session.planner.method(name)
    check_items(cls, "ablate")
    names = variants(cls, preset, only)
    rows = session.run(session.planner.cells([Entry(name, one) for one in names], "dev"))
    print_sheets(ablation_sheets(rows))
    return failed(rows)


def variants(cls: type[Method], preset: str, only: Sequence[str]) -> list[str]:
    """Return the preset and those of its ablations, by full names, that change anything.

    Raises UserError for unknown names, and where no ablation is left.
    """
    if preset not in cls.presets:
        raise unknown(f"preset of {cls.name!r}:", preset, cls.presets)
    if not cls.ablations:
        raise UserError(f"method {cls.name!r} declares no ablations: name some in its class attribute `ablations`")
    for name in only:
        if name not in cls.ablations:
            raise unknown(f"ablation of {cls.name!r}:", name, cls.ablations)
    own = params_hash(preset_params(cls, preset))
    named = [f"{preset}+{name}" for name in dict.fromkeys(only or cls.ablations)]
    changed = [name for name in named if params_hash(preset_params(cls, name)) != own]
    if not changed:
        raise UserError(f"{', '.join(named)}: nothing that differs from {cls.name}:{preset}; name others with --only")
    return [preset, *changed]
