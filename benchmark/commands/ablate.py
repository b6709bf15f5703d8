"""Ablations: a preset and the declared changes of it, run on dev queries and open subsets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...errors import UserError, unknown
from ...leaderboard.views.ablations import ablation_sheets
from ...leaderboard.views.sheet import Sheet, render
from ...methods.base import Method
from ...methods.registry import Entry, method_class, params_hash, preset_params
from ..run.plan import plan_cells
from ..run.results import Results
from ..tasks.spec import find_task, open_assets
from .run import options, run_cells
from .terminal import console


def ablate(
    name: str,
    task: str,
    preset: str,
    only: list[str],
    folder: Path,
    plugins: tuple[Path, ...],
    device: str,
    jobs: int,
) -> int:
    """Run a preset and its ablations, print them side by side, and return the exit code."""
    spec = find_task(task)
    names = variants(method_class(name, plugins), preset, only)
    chosen = options(device, jobs, 3600.0, 0.0, 512, False, False)
    entries = [Entry(name, one) for one in names]
    planned = plan_cells(spec, open_assets(spec), entries, [0], "dev", plugins)
    rows = run_cells(planned, Results(folder), chosen)
    print_sheets(ablation_sheets(rows))
    return 1 if any(row.status in ("timeout", "oom", "error") for row in rows) else 0


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


def print_sheets(sheets: Sequence[Sheet]) -> None:
    """Print tables as wide as the terminal."""
    print(render(sheets, "table", max(console.width, 100)))
