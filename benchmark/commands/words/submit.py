"""Words and options of the commands about submissions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import DEFAULT_RESULTS, Device, ResultsDir

app = typer.Typer(
    help="Pack rows of a method for the leaderboard, and verify what others packed.", no_args_is_help=True
)


@app.command()
def pack(
    method: Annotated[Path, typer.Option(help="The Python file that registers the method.")],
    results: ResultsDir = DEFAULT_RESULTS,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .tar.gz file to write.")] = Path(
        "submission.tar.gz"
    ),
    licence: Annotated[str, typer.Option(help="Licence of the adapter, as SPDX names it.")] = "Apache-2.0",
) -> None:
    """Make one archive of a method's file, its rows, their scores and the contract suite's report."""
    from ..adapters import submit as command

    command.pack(method, results, output, licence)


@app.command(name="verify")
def verify_submission(
    archive: Annotated[Path, typer.Argument(help="An archive that `submit pack` wrote.")],
    rerun: Annotated[bool, typer.Option("--rerun", help="Import and run the submitted code, on some queries.")] = False,
    queries: Annotated[int, typer.Option(help="How many queries of each row are run again.")] = 4,
    seed: Annotated[int | None, typer.Option(help="Which ones; default: drawn now, for nobody to foresee.")] = None,
    tolerance: Annotated[
        float, typer.Option(help="Largest change of a score, in spreads of its query's scores.")
    ] = 0.01,
    device: Device = "cpu",
    timeout: Annotated[float, typer.Option(help="Seconds after which a cell is killed.")] = 3600.0,
    into: Annotated[Path | None, typer.Option(help="Folder for the rows, as verified, if all is well.")] = None,
) -> None:
    """Derive again all that a submission claims, without trusting it. Exit code 0: it holds; 1: it does not."""
    from ..adapters import submit as command

    again = command.Rerun(queries, seed, device, timeout, tolerance) if rerun else None
    raise typer.Exit(command.verify(archive, again, into))
