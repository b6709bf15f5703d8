"""Words and options of the commands about ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Device, Kind, Plugins, Task, of_kind, plugins_of

app = typer.Typer(help="Build, check and move ground truth.", no_args_is_help=True)


@app.command()
def build(
    task: Task,
    workers: Annotated[
        int, typer.Option(help="Retrainings at a time, on a GPU too; 0: one per core, one on a GPU.")
    ] = 0,
    out: Annotated[Path | None, typer.Option(help="Assets folder; default: the user's truth folder.")] = None,
    kind: Kind = "subsets",
    part: Annotated[
        str, typer.Option(help="K/N: the K-th of N parts of the retrainings; parts may run side by side.")
    ] = "1/1",
    begun: Annotated[
        Path | None,
        typer.Option(help="A home (`base`, `measured`) in which the build was begun, or a truth of fewer models."),
    ] = None,
    plugin: Plugins = None,
    device: Device = "cpu",
) -> None:
    """Train the base model, make queries, retrain subsets; run again after an interruption to go on."""
    from ...truth.begun import parse_part
    from ..assets.building import Asked
    from ..assets.building import build as subsets
    from ..exemplars.cases import build as exemplars

    asked = Asked(workers, out, plugins_of(plugin), device, begun, parse_part(part))
    of_kind(kind, {"subsets": subsets, "exemplars": exemplars})(task, asked)


@app.command()
def verify(
    task: Task,
    sample: Annotated[int, typer.Option(help="How many retrainings to repeat.")] = 2,
    seed: Annotated[int, typer.Option(help="Which ones: another seed picks others.")] = 0,
    plugin: Plugins = None,
) -> None:
    """Check all hashes and repeat randomly picked retrainings."""
    from ..assets import truth as command

    raise typer.Exit(command.verify(task, sample, seed, plugins_of(plugin)))


@app.command()
def info(task: Task, plugin: Plugins = None) -> None:
    """Print size, noise ceilings and provenance."""
    from ..assets import truth as command

    command.info(task, plugins_of(plugin))


@app.command()
def export(
    task: Task, archive: Annotated[Path, typer.Argument(help="The .tar file to write.")], plugin: Plugins = None
) -> None:
    """Write a task's truth as one archive."""
    from ..assets import moving as command

    command.export(task, archive, plugins_of(plugin))


@app.command(name="import")
def import_archive(
    archive: Annotated[Path, typer.Argument(help="An archive that `truth export` wrote.")],
    plugin: Plugins = None,
    replace: Annotated[bool, typer.Option("--replace", help="Set another truth that is here aside.")] = False,
) -> None:
    """Check an archive and put its truth where tasks find it."""
    from ..assets import moving as command

    command.import_archive(archive, plugins_of(plugin), replace)


@app.command()
def samples(
    task: Task,
    picture: Annotated[Path, typer.Argument(help="The PNG file to write.")],
    kind: Kind = "subsets",
    alone: Annotated[bool, typer.Option("--alone", help="Leave the dataset's own images out.")] = False,
    plugin: Plugins = None,
) -> None:
    """Draw what the task's base model generates beside training images, or tuned models beside exemplars."""
    from .. import pictures
    from ..exemplars import drawing

    draw = of_kind(kind, {"subsets": pictures.samples, "exemplars": drawing.samples})
    draw(task, picture, plugins_of(plugin), alone)
