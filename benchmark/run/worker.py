"""One cell: a spec in JSON, and the function that runs it in a process that sees the problem and no truth."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from ...datasets.queries import Queries
from ...datasets.truth import Assets
from ...errors import CorruptFile
from ...methods.base import Method
from ...methods.kept import Keeper, Share, ShareMade, used
from ...methods.registry import method_class, params_from_json
from ...methods.rows import parts_of
from ...methods.view import OpenTruth, Progress, View, silent, without_queries
from ...models.draws import Law
from ...models.encoders.weights import open_encode
from ...models.precision import Precision, set_precision
from ...models.problem import Problem, read_problem
from ...store import HOME, FolderStore, remove_tree
from ..processes import die_with_parent
from ..sandbox.enclosure import enclose, read_later, use_temporary
from ..sandbox.sharing import run_helpers
from .meter import Device, Measurement, open_device, phase
from .record import HELPERS, SCRATCH, Record

LISTS = ("query_ids", "plugins", "closed", "devices")


@dataclass(frozen=True)
class Spec:
    """Everything a cell needs, as JSON values; the same for a local process and a remote one.

    folder: the cell's record; assets: the task's folder, of which only the problem is opened; members: the records of
    an ensemble's member cells by name; member_ids: the queries that each has scores of, in order; memory_bytes: limit
    on the host's memory, or None; open_truth: whether the open truth is handed to the method, for which that file is
    opened too; encoders: where their weights lie, by name; kept: where rows of the training set are kept for later
    cells (``folder``) and what they depend on (as ``Keeper`` has it), or None where nothing is kept or reused; closed:
    what the method must not read, or nothing where it is not shut in; temporary: a folder for temporary files; devices:
    several that share making these rows; share: of a helper, which of them it makes.
    """

    method: str
    params: dict[str, Any]
    assets: str
    folder: str
    query_ids: tuple[str, ...]
    seed: int
    device: str
    micro_batch: int
    slice_size: int
    threads: int = 1
    plugins: tuple[str, ...] = ()
    members: dict[str, str] | None = None
    member_ids: dict[str, tuple[str, ...]] | None = None
    memory_bytes: int | None = None
    open_truth: bool = False
    kept: dict[str, Any] | None = None
    encoders: dict[str, str | None] | None = None
    precision: Precision = "float32"
    closed: tuple[str, ...] = ()
    temporary: str | None = None
    devices: tuple[str, ...] = ()
    share: Share | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Spec:
        """Rebuild a spec from JSON."""
        share = {"share": value.get("share") and Share(*value["share"])}
        return cls(**{**value, **share, **{name: tuple(value.get(name, ())) for name in LISTS}})

    def plugin_paths(self) -> tuple[Path, ...]:
        """Return the plugin files, which may hold the method and the dataset."""
        return tuple(map(Path, self.plugins))

    def slices(self) -> list[slice]:
        """Return the slices of queries that are attributed and stored one by one."""
        return parts_of(len(self.query_ids), self.slice_size)


class BadScores(Exception):
    """A method returned something that is no score matrix."""


def run(spec: Spec, report: Progress = silent) -> dict[str, Any]:
    """Run a cell and return its outcome: setup costs; fit's costs and slices are stored as they are done."""
    start = time.perf_counter()
    torch.set_num_threads(1)
    set_precision(spec.precision)
    record, scratch = Record(spec.folder), _empty(Path(spec.folder) / SCRATCH)
    view, queries = _view(spec, scratch, report)
    _enclose(spec)  # what is read later than this is read as the method reads: the weights, members' scores, kept rows
    torch.set_num_threads(spec.threads)  # and the device is opened: both start threads, which are shut in like this one
    device = open_device(spec.device)
    if spec.device != "cpu":
        torch.cuda.set_device(spec.device)  # packages that know the device's type only then use the right one
    view.keeper = _keeper(spec, device, view)
    method = _method(spec)
    warm_up(view)
    setup = time.perf_counter() - start
    with phase(device, view.passes) as fitted:
        state = method.fit(view)
    fit, reused = _cold(fitted, view.keeper)
    told = {"fit": fit.to_json(), "diagnostics": method.diagnostics, "kept": reused}
    record.store.put_json("fit.json", told, sealed=True)
    saved = fit.seconds - fitted.seconds
    saved += _attribute_all(spec, record, method, view, state, device, queries)
    stored = used(scratch) + (view.keeper.bytes if view.keeper else 0)
    shutil.rmtree(scratch)
    return {"setup_s": setup, "scratch_bytes": stored, "wall_s": time.perf_counter() - start + saved}


def _enclose(spec: Spec) -> None:
    """Keep this process from all but its problem, where the spec says so."""
    own = [Path(spec.folder)]
    if spec.kept is not None:
        own.append(_existing(Path(spec.kept["folder"])))
    if spec.temporary is not None:
        use_temporary(spec.temporary)
        own.append(Path(spec.temporary))
    if spec.closed:
        enclose(spec.closed, own, read_later(Path(spec.assets), (spec.members or {}).values(), spec.plugins))


def _existing(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _attribute_all(
    spec: Spec, record: Record, method: Method, view: View, state: Any, device: Device, queries: Queries
) -> float:
    """Attribute and store the slices that are missing, and return the seconds that kept rows saved meanwhile."""
    saved, n = 0.0, width(method, view)
    for part in spec.slices():
        if record.has(part):
            continue
        chosen = queries.pick(list(range(part.start, part.stop)))
        method.diagnostics = {}
        with phase(device, view.passes) as measured:
            scores = assemble(method.attribute(view, state, chosen), len(chosen), n, method.unit)
        cold, reused = _cold(measured, view.keeper)
        saved += cold.seconds - measured.seconds
        record.put(part, scores, {"attribute": cold.to_json(), "diagnostics": method.diagnostics, "kept": reused})
        view.report("queries", part.stop, len(queries))
    return saved


def _keeper(spec: Spec, device: Device, view: View) -> Keeper | None:
    if spec.kept is None:
        return None
    folder, inputs = Path(spec.kept["folder"]), spec.kept["inputs"]
    measure = partial(phase, device, view.passes, False)
    code, helpers = (spec.kept["code"], spec.kept["method_code"]), partial(helped, spec) if spec.devices else None
    return Keeper(folder, inputs, *code, measure, helpers=helpers, share=spec.share)


def helped(spec: Spec, share: Share, watch: Callable[[], None]) -> list[str]:
    """Have a share of rows made by helpers, block by block in turn, and return their devices."""
    devices = spec.devices[: len(share.starts)]
    folders = {Path(spec.folder) / HELPERS / str(i): device for i, device in enumerate(devices)}
    for i, (folder, device) in enumerate(folders.items()):
        own = Share(share.key, share.starts[i :: len(devices)])
        one = replace(spec, folder=str(folder), query_ids=(), device=device, devices=(), share=own)
        FolderStore(folder).put_json("spec.json", one.to_json(), sealed=True)
    try:
        run_helpers(folders, watch)
    finally:
        remove_tree(Path(spec.folder) / HELPERS)
    return list(devices)


def _cold(measured: Measurement, keeper: Keeper | None) -> tuple[Measurement, dict[str, Any]]:
    """Return a phase's cost as if nothing had been kept by earlier cells or made by helpers, and notes on what was."""
    if keeper is None:
        return measured, {}
    reused, notes, waited = keeper.taken()
    return replace(measured, seconds=measured.seconds - waited).with_reused(reused), notes


def width(method: Method, view: View) -> int:
    """Return how many scores a query gets from a method: one an item, or one a group."""
    return len(view.groups) if method.unit == "group" else len(view.train)


def assemble(
    result: Tensor | Iterable[tuple[slice, Tensor]], n_queries: int, n_items: int, unit: str = "item"
) -> np.ndarray:
    """Return scores [q, N] float32 from a method's answer; raises BadScores for a wrong shape, type or coverage.

    Of a method of groups [q, G], for which ``n_items`` is their number.
    """
    try:
        blocks = (
            [(slice(0, n_items), result)] if isinstance(result, Tensor) else [(part, block) for part, block in result]
        )
    except TypeError as error:
        raise BadScores(
            f"attribute returned {type(result).__name__}, neither a tensor nor (slice, block) pairs"
        ) from error
    scores, seen = np.empty((n_queries, n_items), np.float32), np.zeros(n_items, int)
    for part, block in blocks:
        expected = (n_queries, len(range(n_items)[part]))
        if tuple(block.shape) != expected:
            raise BadScores(f"attribute returned shape {tuple(block.shape)} where [queries, {unit}s] is {expected}")
        if block.dtype != torch.float32:
            raise BadScores(f"attribute returned {block.dtype} where float32 is due")
        scores[:, part] = block.detach().cpu().numpy()
        seen[part] += 1
    if (seen != 1).any():
        counts = f"{int((seen == 0).sum())} {unit}s never, {int((seen > 1).sum())} twice"
        raise BadScores(f"attribute's blocks cover {counts}")
    return scores


def warm_up(view: View) -> None:
    """Make the first timed pass like the others: load the model once and send one batch forward and back."""
    model = view.model()
    batch = view.train.batch(torch.arange(min(8, len(view.train))))
    view.losses(model, batch, view.draws(1, Law("even"), name="warm-up")).mean().backward()
    view.passes.forward = view.passes.backward = 0


def _method(spec: Spec) -> Method:
    cls = method_class(spec.method, spec.plugin_paths())
    return cls(params_from_json(cls, spec.params))


def _view(spec: Spec, scratch: Path, report: Progress) -> tuple[View, Queries]:
    """Return what a method sees, and the queries that it is asked for.

    Nothing else of the problem stays in memory, where a method could look for the queries' roles and sources.
    """
    problem, known = read_problem(Path(spec.assets), spec.plugin_paths()), spec.member_ids or {}
    stored = {name: _reader(Path(folder), known[name]) for name, folder in (spec.members or {}).items()}
    device = torch.device(spec.device)
    given = _open_truth(spec, problem) if spec.open_truth else None
    encoders = {name: open_encode(name, source, spec.device) for name, source in (spec.encoders or {}).items()}
    more: dict[str, Any] = {"encoders": encoders, "precision": spec.precision}
    view = View(without_queries(problem), scratch, spec.seed, device, spec.micro_batch, report, stored, given, **more)
    return view, _queries(problem, spec.query_ids)


def _open_truth(spec: Spec, problem: Problem) -> OpenTruth:
    truth, queries = Assets(Path(spec.assets)).truth("open"), problem.queries.where("dev").anonymous()
    losses = torch.from_numpy(truth.target(queries.ids)).float()
    return OpenTruth(torch.from_numpy(truth.masks), losses, queries)


def _queries(problem: Problem, ids: tuple[str, ...]) -> Queries:
    position = {query: i for i, query in enumerate(problem.queries.ids)}
    return problem.queries.pick([position[query] for query in ids]).anonymous()


def _reader(folder: Path, ids: Sequence[str]) -> Callable[[tuple[str, ...]], Tensor]:
    record = Record(folder)
    rows = {query: i for i, query in enumerate(ids)}

    def read(query_ids: tuple[str, ...]) -> Tensor:
        scores = record.matrix()
        if len(scores) != len(ids):
            raise CorruptFile(f"{folder} holds {len(scores)} of {len(ids)} queries: run that member again with --force")
        return torch.from_numpy(scores[[rows[query] for query in query_ids]])

    return read


def _empty(folder: Path) -> Path:
    remove_tree(folder)
    folder.mkdir(parents=True)
    return folder


def main(folder: str, log: str, connection: Any, stored: str) -> None:
    """Be the process of one cell: own process group, output to the log, outcome to the cell's folder.

    stored: the runner's home, as the server that this process is forked from may have started under another one.
    """
    os.setsid()
    os.environ[HOME] = stored
    _redirect(log)
    store = FolderStore(folder)
    _end(store, lambda *event: connection.send_bytes(json.dumps(event).encode()))


def make_share(folder: str, cell: int) -> None:
    """Be a helper of a cell, in its process group: make a share of its rows, and leave the outcome in the folder."""
    die_with_parent(cell)
    _end(FolderStore(folder), silent)


def _end(store: FolderStore, report: Progress) -> NoReturn:
    """Run what the folder's spec says within its limit, store the outcome, and end this process."""
    spec = Spec.from_json(store.get_json("spec.json", sealed=True))
    if spec.memory_bytes is not None and spec.device == "cpu":
        resource.setrlimit(resource.RLIMIT_DATA, (spec.memory_bytes, spec.memory_bytes))
    try:
        outcome = {"status": "ok", **run(spec, report)}
    except ShareMade:
        outcome = {"status": "ok"}
    except BaseException as error:
        traceback.print_exc()
        outcome = {"status": "oom" if is_oom(error) else "error", "reason": _reason(error, spec.plugins)}
    store.put_json("outcome.json", outcome, sealed=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def is_oom(error: BaseException) -> bool:
    """Say whether an error means that memory ran out, of the host or of the device."""
    text = str(error)
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in text or "out of memory" in text
    )


def _reason(error: BaseException, plugins: Collection[str]) -> str:
    lines = str(error).strip().splitlines()
    place = place_of(error, [Path(plugin) for plugin in plugins])
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}{place and f' ({place})'}"


def place_of(error: BaseException, files: Collection[Path]) -> str:
    """Return ``name:line`` of the innermost line of ``files`` that led to an error, or an empty string.

    An adapter's author can mend a line of the adapter, and rarely the line of torch that it failed at.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) in files]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def _redirect(log: str) -> None:
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
