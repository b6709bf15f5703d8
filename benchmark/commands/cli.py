"""The command line: words and options. Heavy imports stay inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ...errors import UserError
from .ending.signals import Stopped, farewell, stopping
from .ending.streams import lasting_streams
from .words import data, submit, truth
from .words.options import (
    DEFAULT_RESULTS,
    Device,
    Excluded,
    MethodEncoders,
    Names,
    Plugins,
    Preset,
    ResultsDir,
    Seeds,
    Task,
    memory_of,
    plugins_of,
    seeds_of,
    selection_of,
    split,
)

app = typer.Typer(
    help="Which training-data-attribution method for diffusion models can be trusted, and what it costs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(truth.app, name="truth")
app.add_typer(data.app, name="data")
app.add_typer(submit.app, name="submit")


def _print_version(wanted: bool) -> None:
    if wanted:
        from ... import __version__

        print(f"tdabench {__version__}")
        raise typer.Exit


@app.callback()
def _whole(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Which training-data-attribution method for diffusion models can be trusted, and what it costs."""


@app.command()
def run(
    task: Task = "digits",
    methods: Names = "",
    exclude: Excluded = "",
    preset: Preset = "quick",
    seeds: Seeds = "0",
    results: ResultsDir = DEFAULT_RESULTS,
    plugin: Plugins = None,
    device: Device = "cpu",
    jobs: Annotated[int, typer.Option(help="Cells at a time; 0: one per core on a CPU, one on a GPU.")] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds after which a cell is killed.")] = 3600.0,
    memory: Annotated[float, typer.Option(help="Host memory limit of a cell in GiB; 0: 80 % of what is free.")] = 0.0,
    micro_batch: Annotated[int, typer.Option(help="Images per forward pass; changes speed, not scores.")] = 512,
    precision: Annotated[str, typer.Option(help="float32, tf32 or bf16: in what networks compute.")] = "float32",
    force: Annotated[bool, typer.Option("--force", help="Run cells again even if they have a row.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Run failed cells again.")] = False,
    metrics: Annotated[
        str, typer.Option(help="Comma-separated: lds, groups, removal (union, per-query), sanity, exemplars.")
    ] = "lds",
    encoders: Annotated[
        str,
        typer.Option(
            help="Encoders for removal and methods: auto, none, or clip,dino,sscd,lpips, each `name=weights`."
        ),
    ] = "auto",
    budget: Annotated[int, typer.Option(help="Models to retrain at most; -1: as many as are missing.")] = -1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be run and retrained, and stop.")
    ] = False,
    isolation: Annotated[
        bool, typer.Option(help="Keep methods from truths, other results and the network, where the kernel can.")
    ] = True,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for another run of the same cells into the same folder.")
    ] = False,
) -> None:
    """Score methods on a task, measure what their scores foretell, and print the leaderboard."""
    from ..run.plan import checked_options
    from . import run as command
    from .session import open_session

    limits = timeout, memory_of(memory), micro_batch
    options = checked_options(device, jobs, *limits, force, retry, precision, isolation)
    wanted, removal = command.parse_metrics(split(metrics), encoders, budget, dry_run)
    session = open_session(task, results, plugins_of(plugin), options, encoders, wanted == {"exemplars"}, wait)
    cells = session.planner.selected(selection_of(methods, exclude, preset, seeds))
    raise typer.Exit(command.run(session, cells, wanted, removal))


@app.command()
def attribute(
    model: Annotated[str, typer.Option(help="Folder that diffusers saved, or an id on the hub.")],
    images: Annotated[Path, typer.Option(help="The training images: a folder, or a saved dataset.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the page, the scores and the table.")],
    queries: Annotated[Path | None, typer.Option(help="Pictures to explain: a folder, or a saved dataset.")] = None,
    generate: Annotated[int, typer.Option(help="Or how many the model makes itself.")] = 0,
    seed: Annotated[int, typer.Option(help="From which noise it makes them.")] = 0,
    prompt: Annotated[list[str] | None, typer.Option(help="Captions of the pictures, in turn; repeatable.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Classes of the pictures, in turn; repeatable.")] = None,
    guidance: Annotated[float, typer.Option(help="Scale of classifier-free guidance; -1: the pipeline's own.")] = -1.0,
    lora: Annotated[Path | None, typer.Option(help="Folder of LoRA weights: only these are attributed.")] = None,
    methods: Names = "pixel,d-trak,mucs",
    preset: Annotated[str, typer.Option(help="Preset of methods named without one; default: quick.")] = "",
    top: Annotated[int, typer.Option(help="Training images shown for each picture and method.")] = 20,
    seeds: Annotated[str, typer.Option(help="Seeds of the methods; scores are averaged, their spread shown.")] = "0",
    learning_rate: Annotated[float, typer.Option(help="Of AdamW, for methods that train the model further.")] = 1e-4,
    minutes: Annotated[float, typer.Option(help="Minutes for all methods: shrinks them until they fit; 0: any.")] = 0.0,
    memory: Annotated[str, typer.Option(help="Memory for all methods, such as 8GB, likewise; default: any.")] = "",
    self_check: Annotated[bool, typer.Option("--self-check", help="Try the methods on tuned copies first.")] = False,
    held_out: Annotated[
        Path | None, typer.Option(help="Images for --self-check that the model never saw; default: upside-down ones.")
    ] = None,
    shortlist: Annotated[
        int, typer.Option(help="Images a picture that slow methods score, as fast ones rank them; 0: all.")
    ] = 0,
    results: Annotated[
        Path | None, typer.Option(help="Folder that keeps scores and features; default: in $TDABENCH_HOME.")
    ] = None,
    plugin: Plugins = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N; several, with commas, share features.")] = "cpu",
    jobs: Annotated[int, typer.Option(help="Methods at a time; 0: two on a CPU, one on a GPU.")] = 0,
    micro_batch: Annotated[int, typer.Option(help="Images per forward pass; 0: what fits.")] = 0,
    precision: Annotated[str, typer.Option(help="float32, tf32 or bf16: in what networks compute.")] = "float32",
    encoders: MethodEncoders = "none",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run, and stop.")] = False,
) -> None:
    """Say which training images made a picture, for a model of your own: no recipe, no truth, no configuration."""
    from ..attribution.request import Request, parse_memory
    from . import attribute as command

    request = Request(
        model,
        images,
        queries,
        generate,
        seed,
        tuple(prompt or ()),
        tuple(label or ()),
        None if guidance < 0 else guidance,
        lora,
        tuple(split(methods)),
        preset,
        top,
        tuple(seeds_of(seeds)),
        learning_rate,
        minutes,
        parse_memory(memory),
        self_check,
        held_out,
        shortlist or None,
    )
    ran = device, jobs, micro_batch, precision, encoders, dry_run
    raise typer.Exit(command.attribute(request, out, results, plugins_of(plugin), *ran))


@app.command()
def plan(
    task: Task = "digits",
    methods: Names = "",
    exclude: Excluded = "",
    preset: Preset = "quick",
    seeds: Seeds = "0",
    plugin: Plugins = None,
    device: Device = "cpu",
    encoders: MethodEncoders = "none",
    metrics: Annotated[str, typer.Option(help="Comma-separated: sanity and exemplars take cells of their own.")] = "",
    tflops: Annotated[
        float, typer.Option(help="What a device sustains, for a truth that is not here: 10^12 operations a second.")
    ] = 10.0,
) -> None:
    """Print passes, time and memory per method before anything runs, and those of a truth that is not here yet."""
    from ..metrics.removal.similarities import parse_encoders
    from ..tasks.find import find_task
    from .plan import command, unbuilt
    from .session import open_planner

    plugins, wanted = plugins_of(plugin), command.parse_metrics(split(metrics))
    parse_encoders(encoders)  # so that unknown ones are refused where they change no cost, too
    chosen, spec = selection_of(methods, exclude, preset, seeds), find_task(task, plugins)
    unbuilt.check_tflops(tflops)
    if unbuilt.lacks(spec, plugins) and not wanted:
        unbuilt.plan(spec, chosen, device, tflops, plugins)
        return
    planner = open_planner(task, plugins, wanted == ["exemplars"], encoders)
    cells = planner.selected(chosen)
    command.plan(cells, device, command.cells_beside(planner.spec, cells, wanted))


@app.command()
def tune(
    method: Annotated[str, typer.Argument(help="Method to tune.")],
    task: Task = "digits",
    preset: Annotated[str, typer.Option(help="Preset to start from.")] = "quick",
    trials: Annotated[int, typer.Option(help="Settings to try at most; 0: the whole grid.")] = 12,
    only: Annotated[
        str, typer.Option(help="Comma-separated parameters to vary; default: all of the search space.")
    ] = "",
    results: ResultsDir = DEFAULT_RESULTS,
    plugin: Plugins = None,
    device: Device = "cpu",
    encoders: MethodEncoders = "none",
    jobs: Annotated[int, typer.Option(help="Trials at a time.")] = 0,
) -> None:
    """Choose a method's parameters on dev queries and open subsets, which no reported number uses."""
    from ..run.plan import checked_options
    from . import tune as command
    from .session import open_session

    session = open_session(task, results, plugins_of(plugin), checked_options(device, jobs), encoders)
    command.tune(session, method, preset, trials, split(only))


@app.command()
def ablate(
    method: Annotated[str, typer.Argument(help="Method with declared ablations.")],
    task: Task = "digits",
    preset: Annotated[str, typer.Option(help="Preset that the ablations change.")] = "quick",
    only: Annotated[str, typer.Option(help="Comma-separated ablations; default: all that change the preset.")] = "",
    results: ResultsDir = DEFAULT_RESULTS,
    plugin: Plugins = None,
    device: Device = "cpu",
    encoders: MethodEncoders = "none",
    jobs: Annotated[int, typer.Option(help="Cells at a time; 0: one per core on a CPU, one on a GPU.")] = 0,
) -> None:
    """Compare a preset with its ablations on dev queries and open subsets."""
    from ..run.plan import checked_options
    from . import ablate as command
    from .session import open_session

    session = open_session(task, results, plugins_of(plugin), checked_options(device, jobs), encoders)
    raise typer.Exit(command.ablate(session, method, preset, split(only)))


@app.command()
def ensembles(
    task: Task = "digits",
    methods: Annotated[
        str, typer.Option(help="Comma-separated members to try, each `name` or `name:preset`; default: all methods.")
    ] = "",
    preset: Preset = "quick",
    keep: Annotated[int, typer.Option(help="How many to take from the search to the test queries; 1 to 3.")] = 3,
    results: ResultsDir = DEFAULT_RESULTS,
    plugin: Plugins = None,
    device: Device = "cpu",
    encoders: MethodEncoders = "none",
    jobs: Annotated[int, typer.Option(help="Cells at a time; 0: one per core on a CPU, one on a GPU.")] = 0,
    budget: Annotated[int, typer.Option(help="Models to retrain at most for their removal; -1: all missing.")] = -1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run, and stop.")] = False,
) -> None:
    """Search pairs and triples of methods on dev queries; report the best on test queries, and their removal."""
    from ..run.plan import checked_options
    from .ensembles import command
    from .removal import parse_settings
    from .session import open_session

    session = open_session(task, results, plugins_of(plugin), checked_options(device, jobs), encoders)
    command.ensembles(session, split(methods), preset, keep, parse_settings(("union",), "auto", budget, dry_run))


@app.command()
def show(
    picture: Annotated[Path, typer.Argument(help="The PNG file to write.")],
    task: Task = "digits",
    methods: Annotated[str, typer.Option(help="Comma-separated methods, each `name` or `name:preset`.")] = "d-trak",
    results: Annotated[Path | None, typer.Option(help="Folder of a run; default: the committed rows.")] = None,
    queries: Annotated[int, typer.Option(min=1, help="How many generated test queries.")] = 8,
    count: Annotated[int, typer.Option(min=1, help="How many training images of each method.")] = 5,
    plugin: Plugins = None,
) -> None:
    """Draw queries beside the training images that methods put on top."""
    from . import pictures

    pictures.top_items(task, picture, results, split(methods), queries, count, plugins_of(plugin))


@app.command(name="list")
def list_all(
    what: Annotated[str, typer.Argument(help="tasks, datasets or methods, with more of each; default: all.")] = "",
    plugin: Plugins = None,
) -> None:
    """List tasks, datasets and methods."""
    from . import list as command

    command.show(what, plugins_of(plugin))


@app.command()
def doctor() -> None:
    """Say what is installed and at hand, and what is not, with what to do about it. Exit code 1: something is wrong."""
    from . import doctor as command

    raise typer.Exit(command.doctor())


@app.command()
def leaderboard(
    task: Annotated[str, typer.Argument(help="Task, or task@version; default: all.")] = "",
    results: Annotated[Path | None, typer.Option(help="Folder of a run; default: the committed rows.")] = None,
    format: Annotated[str, typer.Option(help="table, markdown, json or csv.")] = "table",
    queries: Annotated[str, typer.Option(help="Query set: test, or dev for tuning's rows.")] = "test",
    view: Annotated[
        str, typer.Option(help="lds, groups, removal, published, per-query, overlap, sanity, exemplars or ablations.")
    ] = "lds",
    similarity: Annotated[str, typer.Option(help="What the views on removal compare images by.")] = "ssim",
    readme: Annotated[
        Path | None, typer.Option(help="Write markdown tables into this file, each view between its markers.")
    ] = None,
    reported: Annotated[bool, typer.Option("--reported", help="Only what others published about the tasks.")] = False,
) -> None:
    """Print the leaderboard, or another view, from rows alone."""
    from . import leaderboard as command

    show = command.show_reported if reported else command.leaderboard
    show(task or None, results, command.Shown(format, queries, view, similarity), readme)


@app.command()
def report(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the page and badges; default: site, if nothing else."),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder for all figures, as SVG, and PDF with matplotlib.")
    ] = None,
    results: Annotated[Path | None, typer.Option(help="Folder of a run; default: the committed rows.")] = None,
    pictures: Annotated[str, typer.Option(help="free: of data that anybody may show; all; none.")] = "free",
    serve: Annotated[
        bool, typer.Option("--serve", help="Show the page on this machine, and anew as rows appear.")
    ] = False,
    port: Annotated[int, typer.Option(help="Port of --serve; 0: any that is free.")] = 8000,
    plugin: Plugins = None,
) -> None:
    """Make the leaderboard's page from rows: one HTML file that needs no network."""
    from .report import command

    asked = command.Asked(results, pictures, plugins_of(plugin))
    if serve:
        from .report.server import serve as run_server

        if output is not None or figures is not None:
            raise UserError("--serve writes nothing: leave out --output and --figures")
        run_server(asked, port)
        return
    command.write(asked, output or (None if figures else Path("site")), figures)


@app.command(name="check-method")
def check_method(
    method: Annotated[str, typer.Argument(help="A registered method, or a file with one.")],
    preset: Preset = "quick",
    plugin: Plugins = None,
    isolation: Annotated[bool, typer.Option(help="Shut the method in; without, it can print and be debugged.")] = True,
) -> None:
    """Check a method against the adapter contract on a tiny twin of a task."""
    from .adapters import check_method as command

    raise typer.Exit(command.check_method(method, preset, plugins_of(plugin), isolation))


@app.command()
def check(
    baseline: Annotated[
        Path | None, typer.Option(help="Rows to compare with: a run's folder, or one of rows; default: the committed.")
    ] = None,
    current: Annotated[Path, typer.Option(help="Folder of the run to be judged.")] = DEFAULT_RESULTS,
    task: Annotated[str, typer.Option(help="Task, or task@version; default: all.")] = "",
    fall: Annotated[float, typer.Option(help="Fall of a fraction, such as an LDS, that counts if it is sure.")] = 0.005,
    time_factor: Annotated[float, typer.Option(help="By how much time may grow where a test can confirm it.")] = 1.5,
    memory_factor: Annotated[float, typer.Option(help="By how much peak memory may grow.")] = 1.25,
    format: Annotated[str, typer.Option(help="text, markdown, json, junit or github (annotations).")] = "text",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; default: the terminal.")] = None,
) -> None:
    """Say whether rows are worse than a baseline's. Exit code 0: no; 1: yes, or nothing could be compared."""
    from ...leaderboard.check.costs import Limits
    from . import check as command

    limits = Limits(time_factor, memory_factor, fall)
    raise typer.Exit(command.check(baseline, current, task or None, limits, format, output))


@app.command(name="verify-rows")
def verify_rows(
    results: Annotated[Path, typer.Argument(help="Folder of a run.")] = DEFAULT_RESULTS,
    task: Annotated[str, typer.Option(help="Task, or task@version; default: all.")] = "",
    plugin: Plugins = None,
) -> None:
    """Derive rows' metrics again from scores and truth. Exit code 0: all agree; 1: one differs, or all are unknown."""
    from .adapters import verify_rows as command

    raise typer.Exit(command.verify_rows(results, task or None, plugins_of(plugin)))


@app.command(name="seal-rows")
def seal_rows(
    folder: Annotated[Path | None, typer.Argument(help="Folder of rows; default: the committed ones.")] = None,
) -> None:
    """Write the hashes with which committed rows, and what others reported, are compared whenever they are read."""
    from .adapters import seal_rows as command

    command.seal(folder)


@app.command(name="new-method")
def new_method(
    name: Annotated[str, typer.Argument(help="Its name, as in my-method.")],
    folder: Annotated[Path, typer.Option(help="Where to write the files.")] = Path(),
) -> None:
    """Write an adapter to start from, which runs as it stands, and its test."""
    from .adapters import new_method as command

    command.new_method(name, folder)


def main() -> None:
    """Run the command; what a user or a machine does wrong is one line on standard error and exit code 2.

    Ctrl-C is 130 and SIGTERM 143. Output that cannot be written is no reason to stop, but 2 in the end.
    """
    with lasting_streams() as output:
        code = _ended()
        output.flush()
        if output.problem is not None:
            print(
                f"error: cannot write to standard output: {output.problem}; what went into files is there",
                file=sys.stderr,
            )
            code = code or 2
    sys.exit(code)


def _ended() -> int:
    try:
        with stopping():
            app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except UserError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
    except OSError as error:
        if error.filename is None:  # of no file, so that no user could mend it
            raise
        print(f"error: cannot use {error.filename}: {error.strerror}; check the path and its folder", file=sys.stderr)
    except Stopped as stopped:
        print(farewell(stopped), file=sys.stderr)
        return stopped.code
    return 2


if __name__ == "__main__":
    main()
