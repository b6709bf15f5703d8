"""Options that commands share, and what their texts mean."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ....errors import UserError, shown, unknown

if TYPE_CHECKING:
    from ...run.plan import Selection

T = TypeVar("T")

Task = Annotated[str, typer.Argument(help="Task, as `tdabench list` has it.")]
Names = Annotated[str, typer.Option(help="Comma-separated methods, each `name` or `name:preset`; default: all.")]
Excluded = Annotated[str, typer.Option(help="Comma-separated methods to leave out.")]
Preset = Annotated[str, typer.Option(help="Preset of methods named without one.")]
Seeds = Annotated[str, typer.Option(help="Comma-separated seeds of the methods' own randomness.")]
ResultsDir = Annotated[Path, typer.Option(help="Folder for rows, scores and logs.")]
Plugins = Annotated[
    list[Path] | None, typer.Option("--plugin", help="A file with methods, datasets or tasks of your own; repeatable.")
]
Kind = Annotated[str, typer.Option(help="subsets, or exemplars: models tuned on a few items, without any subsets.")]
MethodEncoders = Annotated[str, typer.Option(help="Encoders for methods: none, or clip,dino,... `name=weights`.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]

DEFAULT_RESULTS = Path("tdabench-results")
MOST_SEED = 10**60  # files are named after seeds
MEMORY = 0.001, 1e9  # GiB: less starts no process, more is no machine's


def split(text: str) -> list[str]:
    """Return the parts of a list with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def of_kind(kind: str, ways: dict[str, T]) -> T:
    """Return what is done about a kind of truth; raises UserError for an unknown one."""
    if kind not in ways:
        raise unknown("kind of truth", kind, ways)
    return ways[kind]


def plugins_of(given: list[Path] | None) -> tuple[Path, ...]:
    """Return the plugin files, each once; raises UserError for one that is none, or whose names are taken."""
    from ...tasks.find import check_plugins

    plugins = tuple({os.path.realpath(path): path for path in given or ()}.values())
    check_plugins(plugins)
    return plugins


def selection_of(methods: str, exclude: str, preset: str, seeds: str) -> Selection:
    """Return which cells of a task are meant; raises UserError for seeds that are none."""
    from ...run.plan import Selection

    return Selection(split(methods), split(exclude), preset, seeds_of(seeds))


def seeds_of(text: str) -> list[int]:
    """Return seeds, each once; raises UserError for what is no whole number."""
    try:
        seeds = list(dict.fromkeys(int(part) for part in split(text)))
    except ValueError:
        seeds = []
    if not seeds or max(map(abs, seeds)) >= MOST_SEED:
        raise UserError(f"--seeds {shown(text)}: write whole numbers separated by commas, as in --seeds 0,1,2")
    return seeds


def memory_of(gib: float) -> float:
    """Return a limit in GiB; raises UserError for one that no cell could have."""
    if not (gib == 0 or MEMORY[0] <= gib <= MEMORY[1]):
        raise UserError(
            f"--memory {gib:g}: give GiB from {MEMORY[0]:g} to {MEMORY[1]:g}, or 0 for 80 % of what is free"
        )
    return gib
