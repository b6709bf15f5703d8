"""The command plan: what each cell would cost, and, where there is no truth yet, what building it would."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from ...datasets.find import card_of, dataset_listings, store_folder
from ...errors import unknown
from ...methods.base import Estimate
from ...methods.registry import Entry, listings, method_class, preset_params
from ..processes import one_thread
from ..run.forecast import Forecast, Rates, estimated, measured
from ..run.plan import PlannedCell, Selection, parse_entries
from ..tasks.spec import TaskSpec
from ..truth.sizing import Sizing, made_up, size_truth, stand_in
from .session import check_device, forecasts
from .terminal import console, duration

MEASURED_S = 0.3  # as long a pass is enough to be measured
PER_SAMPLE_BYTES = 2**30  # of gradients, while measuring
COLUMNS = ("forward", "trained", "per-sample gradients", "memory", "time")


def plan(cells: list[PlannedCell], device: str) -> None:
    """Print what each cell would cost."""
    check_device(device)
    title = f"{cells[0].key.task}@{cells[0].key.task_version}, {len(cells[0].query_ids)} queries, {device}"
    found = forecasts(cells, device)
    _print_table(title, [_of_forecast(item) for item in found])
    total = sum(item.seconds or 0.0 for item in found)
    console.print(f"about {duration(total)} on one core or device, once started; passes are images through the network")


def plan_unbuilt(spec: TaskSpec, selection: Selection, device: str, plugins: tuple[Path, ...]) -> None:
    """Print what a task's truth and methods would cost, from its specification and its dataset's card alone."""
    check_device(device)
    entries = parse_entries(selection.names, selection.excluded, selection.preset, listings(plugins))
    known = dataset_listings(plugins)
    if spec.dataset not in known:
        raise unknown("dataset", spec.dataset, known)
    card = card_of(known[spec.dataset])
    sizing = size_truth(spec, card)
    _say(f"{spec.label}: {spec.title}; no truth of it is here")
    _say(_about_data(spec, card))
    for name, path in spec.weights.items():
        _say(f"frozen weights: {name}, {'here' if path.is_file() else f'not here; put the file at {path}'}")
    with one_thread():
        rates, images = _rates(spec, card, sizing, device)
    _print_sizing(spec, sizing, rates, images, device)
    queries = 2 * spec.queries.test
    lines = [_of_entry(entry, sizing, queries, rates, plugins) for entry in entries]
    _print_table(f"{spec.label}, {queries} test queries, {device}", lines)


def _say(text: str) -> None:
    console.print(text, soft_wrap=True, markup=False)


def _about_data(spec: TaskSpec, card: dict) -> str:
    name, held = spec.dataset, f", {card['heldout']:,} of them held out" if card.get("heldout") else ""
    counts = f"{name}, {card['items']:,} images{held}" if card.get("items") else name
    if not card.get("download"):
        return f"data: {counts}; nothing to fetch"
    if store_folder(name, card["revision"]).is_dir():
        return f"data: {counts}; it is here"
    return f"data: {counts}; get it with `tdabench data fetch {name}` (download: {card['download']})"


def _rates(spec: TaskSpec, card: dict, sizing: Sizing, device: str) -> tuple[Rates | None, int]:
    """Return rates measured on an untrained model, and on how many images; None and 0 where it is too large."""
    model, images = stand_in(spec, sizing, device), 1
    if model is None:
        return None, 0
    rates = measured(model, made_up(spec, card, images, device), device, repeats=2)
    largest = min(spec.recipe.batch_size, max(1, PER_SAMPLE_BYTES // (4 * sizing.sizes.n_trained)))
    while images < largest and rates.trained * images < MEASURED_S:
        images = min(largest, 4 * images)
        rates = measured(model, made_up(spec, card, images, device), device, repeats=2)
    return rates, images


def _print_sizing(spec: TaskSpec, sizing: Sizing, rates: Rates | None, images: int, device: str) -> None:
    sizes, model, plan = sizing.sizes, spec.recipe.model, spec.truth
    shape = " x ".join(map(str, sizes.shape))
    trains = "" if sizes.n_trained == sizes.n_parameters else f", {sizes.n_trained:,} of which train"
    _say(f"model: {model.architecture}, {sizes.n_parameters:,} parameters{trains}; an item is {shape}")
    parts = f"1 + {plan.full} on everything, {plan.open} x {plan.open_replicates} open and "
    groups = "; and those without each group" if spec.groups else ""
    _say(f"truth: {sizing.models:,} models ({parts}{plan.report} x {plan.report_replicates} report subsets){groups}")
    steps, batch = spec.recipe.steps, spec.recipe.batch_size
    _say(f"  {sizing.updates:,} updates ({steps:,} a model) of {batch} images: {sizing.images:,} forward and backward")
    per_image = spec.recipe.model.sampler.steps * (2 if spec.queries.guidance not in (0, 1) else 1)
    forward = sizing.asked + sizing.made * per_image
    _say(f"  {forward:,} forward: {sizing.asked:,} for losses, the rest for {sizing.made:,} images made again")
    if rates is None:
        _say(f"  time: not measured, for the model does not fit into this machine's free memory ({device})")
    else:
        seconds = 1.2 * rates.trained * sizing.images + rates.forward * forward
        _say(f"  time: about {duration(seconds)} on one core or device, as measured here on {images} images a pass")
    disk = ((sizing.pixels, "dataset"), (sizing.weights, "weights"), (sizing.pictures, "images made again"))
    _say(f"  disk: {', '.join(f'{_gib(size)} {what}' for size, what in disk)}")
    _say(f"  memory: {_gib(sizing.memory)} a training, beside what its network computes")
    removal, sampled = spec.removal, min(spec.removal.per_query, spec.queries.test) * len(spec.removal.per_query_shares)
    unions = f"{removal.seeds} models for the union of top {removal.top_k(spec.n_train):,}"
    _say(f"removal: per method {unions}, and {sampled} for queries one by one")


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"


def _of_forecast(item: Forecast) -> list[str]:
    return _line(str(item.planned.entry), item.estimate, item.seconds)


def _of_entry(entry: Entry, sizing: Sizing, queries: int, rates: Rates | None, plugins: tuple[Path, ...]) -> list[str]:
    cls = method_class(entry.method, plugins)
    estimate = estimated(cls, preset_params(cls, entry.preset), sizing.sizes, queries)
    return _line(str(entry), estimate, rates.seconds(estimate) if rates and estimate else None)


def _line(name: str, estimate: Estimate | None, seconds: float | None) -> list[str]:
    if estimate is None:
        return [name, *["unknown"] * len(COLUMNS)]
    counts = [f"{count:,}" for count in (estimate.forward, estimate.trained, estimate.per_sample)]
    time = "not measured" if seconds is None else duration(seconds)
    return [name, *counts, f"{estimate.bytes / 2**20:,.0f} MiB", time]


def _print_table(title: str, lines: list[list[str]]) -> None:
    table = Table(title=title)
    for name in ("cell", *COLUMNS):
        table.add_column(name, justify="left" if name == "cell" else "right")
    for line in lines:
        table.add_row(*line)
    console.print(table)
