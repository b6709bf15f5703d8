"""What building a task's truth and running methods on it would cost, where it or its dataset is not here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ....datasets.base import fetch_command
from ....datasets.find import store_folder
from ....errors import UserError
from ....methods.registry import Entry, listings, preset_params
from ...metrics.removal.protocol import Protocol
from ...processes import one_thread
from ...run.described import planning_class
from ...run.forecast import Rates, estimated, measured
from ...run.plan import Selection, check_device, parse_entries
from ...tasks.find import has_assets
from ...tasks.spec import TaskSpec
from ...truth.retraining import OVERHEAD
from ...truth.sizing import Sizing, count_groups, facts_of, made_up, passes_per_image, size_truth, stand_in
from ..terminal import amount, console, duration
from .table import counted, print_table, timed

MEASURED_S = 0.3  # as long a pass is enough to be measured
PER_SAMPLE_BYTES = 2**30  # of gradients, while measuring
TERA = 10**12
Facts = Mapping[str, Any]  # what a dataset's card says


class Speed(NamedTuple):
    """Seconds of passes; in words where, for a table and for a sentence."""

    rates: Rates
    where: str
    source: str


def lacks(spec: TaskSpec, plugins: tuple[Path, ...]) -> str:
    """Return in words what of a task is not here, its truth or its dataset; nothing where both are."""
    if not has_assets(spec):
        return "no truth of it is here"
    facts = facts_of(spec.dataset, plugins)
    return "" if _is_here(spec.dataset, facts) else "its truth is here, its dataset is not"


def check_tflops(tflops: float) -> None:
    """Raise UserError for what no device sustains."""
    if not 0 < tflops < float("inf"):
        raise UserError("--tflops must be above 0: 10^12 operations a second that your device sustains")


def plan(spec: TaskSpec, selection: Selection, device: str, tflops: float, plugins: tuple[Path, ...]) -> None:
    """Print what a task's truth and methods would cost, from its specification and its dataset's card alone.

    tflops: what a device is taken to sustain, in 10^12 floating-point operations a second. Raises UserError for a
    dataset or method that is not known.
    """
    check_device(device)
    entries = parse_entries(selection.names, selection.excluded, selection.preset, listings(plugins))
    facts = facts_of(spec.dataset, plugins)
    groups = count_groups(spec, plugins)
    sizing = size_truth(spec, facts, groups or 0)
    _say(f"{spec.label}: {spec.title}; {lacks(spec, plugins)}")
    for line in (*_about_problem(spec, facts, sizing), *_about_truth(spec, facts, sizing, groups)):
        _say(line)
    with one_thread():
        speeds = [*_measured(spec, facts, sizing, device), _stated(sizing, tflops)]
    for speed in speeds:
        _say(f"  time: about {duration(_seconds(sizing, speed.rates))} {speed.source}")
    if len(speeds) == 1:
        _say(f"  time here: not measured, for the model does not fit into the free memory ({device})")
    _say(_about_removal(spec))
    queries = 2 * spec.queries.test
    lines = [_line(entry, sizing, queries, speeds, plugins) for entry in entries]
    print_table(f"{spec.label}, {queries:,} test queries, time by machine", [speed.where for speed in speeds], lines)


def _say(text: str) -> None:
    console.print(text, soft_wrap=True, markup=False)


def _about_problem(spec: TaskSpec, facts: Facts, sizing: Sizing) -> Iterator[str]:
    yield _about_data(spec.dataset, facts)
    for name, path in spec.weights.items():
        yield f"frozen weights: {name}, {'here' if path.is_file() else f'not here; put the file at {path}'}"
    sizes, shape = sizing.sizes, " x ".join(map(str, sizing.sizes.shape))
    trains = "" if sizes.n_trained == sizes.n_parameters else f", {sizes.n_trained:,} of which train"
    yield f"model: {spec.recipe.model.architecture}, {sizes.n_parameters:,} parameters{trains}; an item is {shape}"
    forward, both = (f"{work / 1e9:,.3g}" for work in (sizing.forward_work, sizing.trained_work))
    yield f"  {forward} GFLOP an image forward, {both} forward and backward"


def _about_data(name: str, facts: Facts) -> str:
    held = f", {facts['heldout']:,} of them held out" if facts.get("heldout") else ""
    counts = f"data: {name}, {facts['items']:,} images{held}"
    if not facts.get("download"):
        return f"{counts}; nothing to fetch"
    if _is_here(name, facts):
        return f"{counts}; it is here"
    command = fetch_command(name, facts["revision"], facts.get("cond", ()))
    return f"{counts}; get it with {command} (download: {facts['download']})"


def _is_here(name: str, facts: Facts) -> bool:
    return not facts.get("download") or store_folder(name, facts["revision"]).is_dir()


def _about_truth(spec: TaskSpec, facts: Facts, sizing: Sizing, groups: int | None) -> Iterator[str]:
    plan, recipe = spec.truth, spec.recipe
    parts = f"{plan.full} on everything, {plan.open} x {plan.open_replicates} open and "
    report = f"{plan.report} x {plan.report_replicates} report subsets"
    retrained = f"{sizing.models - 1:,} models retrained beside the base model"
    yield f"truth: {retrained} ({parts}{report}{_about_groups(spec, groups)}"
    batches = f"{sizing.updates:,} updates ({recipe.steps:,} a model) of {recipe.batch_size} images"
    yield f"  {batches}: {sizing.images:,} forward and backward"
    made = f"{sizing.made:,} images in {passes_per_image(spec, facts)} passes each"
    yield f"  {sizing.asked + sizing.passes:,} forward: {sizing.asked:,} for losses, the rest to make {made}"
    disk = ((sizing.pixels, "dataset"), (sizing.weights, "weights"), (sizing.pictures, "images made again"))
    yield f"  disk: {', '.join(f'{amount(size)} {what}' for size, what in disk if size)}"
    yield f"  memory: {amount(sizing.memory)} a training, beside what its network computes"


def _about_groups(spec: TaskSpec, groups: int | None) -> str:
    """Return how the line of a truth's models ends."""
    if spec.groups is None:
        return ")"
    without = f"{spec.groups.replicates} without each of"
    return f", {without} {groups} groups)" if groups else f"); and {without} its groups, which only the dataset counts"


def _measured(spec: TaskSpec, facts: Facts, sizing: Sizing, device: str) -> Iterator[Speed]:
    """Yield the speed of an untrained model here, where it is not too large."""
    model, images = stand_in(spec, sizing, device), 1
    if model is None:
        return
    rates = measured(model, made_up(spec, facts, images, device), device, repeats=3)
    largest = min(spec.recipe.batch_size, max(1, PER_SAMPLE_BYTES // (4 * sizing.sizes.n_trained)))
    while images < largest and rates.trained * images < MEASURED_S:
        images = min(largest, 4 * images)
        rates = measured(model, made_up(spec, facts, images, device), device, repeats=3)
    on = "one core" if device == "cpu" else device
    many = f"{1 / rates.trained:,.3g} images a second forward and backward, {images} at once"
    yield Speed(rates, on, f"on {on}, as measured here: {many}")


def _stated(sizing: Sizing, tflops: float) -> Speed:
    forward, both = (work / (tflops * TERA) for work in (sizing.forward_work, sizing.trained_work))
    named = f"{tflops:g} TFLOP/s"
    return Speed(Rates(forward, both, both, setup=0.0), named, f"on a device that sustains {named} (--tflops)")


def _seconds(sizing: Sizing, rates: Rates) -> float:
    return OVERHEAD * rates.trained * sizing.images + rates.forward * (sizing.asked + sizing.passes)


def _about_removal(spec: TaskSpec) -> str:
    removal, queries = spec.removal, spec.queries
    targets, seeds = tuple(map(str, range(queries.test))), tuple(range(1, removal.seeds + 1))
    protocol = Protocol((), spec.n_train, targets, (), seeds, removal)
    shared = len(protocol.floor()) + len(protocol.curve_sizes) * len(seeds)
    alone = len(protocol.sampled) * len(protocol.per_query_sizes)
    unions = f"{len(seeds)} without the union of top {protocol.top_k:,} of {queries.test:,} targets"
    return f"removal: {shared} models for all methods; a method's own: {unions}, {alone} for single targets"


def _line(entry: Entry, sizing: Sizing, queries: int, speeds: Sequence[Speed], plugins: tuple[Path, ...]) -> list[str]:
    cls = planning_class(entry.method, listings(plugins)[entry.method].origin, plugins)
    estimate = estimated(cls, preset_params(cls, entry.preset), sizing.sizes, queries)
    times = [timed([None if estimate is None else speed.rates.seconds(estimate)]) for speed in speeds]
    return [str(entry), *counted([estimate]), *times]
