"""Words and options of the commands about datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Plugins, plugins_of

app = typer.Typer(help="Bring datasets here, and look at them.", no_args_is_help=True)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Dataset, as `tdabench list` has it.")],
    data: Annotated[
        Path | None, typer.Option(help="A copy of its files, as `data info` says; default: the hub.")
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="Folder with tokenizer/ and text_encoder/, for a dataset with captions.")
    ] = None,
) -> None:
    """Store a dataset here, in an order that its items decide, so that tasks find it."""
    from ..assets import data as command

    command.fetch(name, data, text)


@app.command(name="verify")
def data_verify(
    name: Annotated[str, typer.Argument(help="Dataset, as `tdabench list` has it.")],
    data: Annotated[Path | None, typer.Option(help="A source to be compared; default: what is stored here.")] = None,
    plugin: Plugins = None,
) -> None:
    """Check what is stored, or say whether a source is the same track. Exit code 0: it is; 1: another."""
    from ..assets import tracks

    raise typer.Exit(tracks.verify(name, data, plugins_of(plugin)))


@app.command(name="info")
def data_info(
    name: Annotated[str, typer.Argument(help="Dataset, as `tdabench list` has it.")], plugin: Plugins = None
) -> None:
    """Print a dataset's card, size and fingerprint."""
    from ..assets import data as command

    command.info(name, plugins_of(plugin))
