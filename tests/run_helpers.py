"""A truth of `digits-tiny` that is built once, adapters written as plugin files, and cells and commands run on both.

A test file takes over fixtures by name, as in ``home = run_helpers.home``; whoever does shares the one build.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import torch

from tdabench.benchmark.commands import cli
from tdabench.benchmark.commands.session import Session
from tdabench.benchmark.run import worker
from tdabench.benchmark.run.forecast import Rates
from tdabench.benchmark.run.plan import Options, PlannedCell, Planner, parse_entries
from tdabench.benchmark.run.record import Record
from tdabench.benchmark.run.results import Results
from tdabench.benchmark.run.runner import Runner
from tdabench.benchmark.tasks.find import assets_folder, find_task
from tdabench.benchmark.truth import build as truth
from tdabench.datasets.truth import Assets, manifest_hash
from tdabench.leaderboard.rows.row import Metrics, Row
from tdabench.methods.base import CLASSES
from tdabench.models.problem import Problem, read_problem
from tdabench.plugins import PREFIX
from tdabench.store import FolderStore

TASK, GROUPS = "digits-tiny", "digits-tiny-groups"
N, Q = 60, 6  # training images and test queries of the task

PLUGIN = '''
import os, signal, subprocess, sys, time
from dataclasses import make_dataclass
from pathlib import Path

import torch
from tdabench.methods.base import Method, register


@register("{name}")
class Adapter(Method):
    """Scores keyed by query id, and whatever else a test wants to happen."""

    version = {version}
    slice_size = {slice_size}
    needs = {needs}
    members = {members}
    {body}

    def fit(self, view):
        {fit}

    def attribute(self, view, state, queries):
        scores = torch.stack([torch.rand(len(view.train), generator=view.rng("x", query)) for query in queries.ids])
        {attribute}
        return scores
'''

MEAN_SIMILARITY = """
import torch
from tdabench.methods import Method, register


@register("{name}")
class OfGroups(Method):
    unit = "group"
    encoders = ("pixels",)

    def attribute(self, view, state, queries):
        query = torch.nn.functional.normalize(queries.pixels.double().flatten(1))
        groups = [view.train.pixels(view.groups.members(g)).double().flatten(1) for g in range(len(view.groups))]
        means = [(query @ torch.nn.functional.normalize(group).T).mean(1) for group in groups]
        scores = torch.stack(means, dim=1).float()
        {end}
"""


class Answer(NamedTuple):
    """What a command left: exit code, standard output and standard error."""

    code: int
    out: str
    err: str


@cache
def build_home(folder: Path, task: str = TASK) -> Path:
    """Build a task's truth in this process; done once, whichever test file asks first."""
    torch.set_num_threads(1)
    assemble_truth(folder, task)
    return folder


def assemble_truth(folder: Path, task: str = TASK) -> None:
    """Put a task's truth together in a home, in this process, from what was trained there and what is still missing."""
    spec, store = find_task(task), FolderStore(folder)
    built = truth.prepare_base(spec, store)
    jobs = built.jobs(store)
    for job in jobs:
        truth.run_job(job)
    truth.assemble(built, jobs, store, folder / "truth" / spec.label)


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory) -> Path:
    """A TDABENCH_HOME with the truth of the task, not to be written to."""
    return build_home(tmp_path_factory.getbasetemp() / "tdabench-home")


@pytest.fixture
def home(tiny_home, monkeypatch) -> Path:
    """The same, set in the environment."""
    torch.set_num_threads(1)
    monkeypatch.setenv("TDABENCH_HOME", str(tiny_home))
    return tiny_home


@pytest.fixture(scope="session")
def built_groups(tmp_path_factory) -> Path:
    """The same folder with the truth of ``digits-tiny-groups``, not to be written to."""
    return build_home(tmp_path_factory.getbasetemp() / "tdabench-home", GROUPS)


@pytest.fixture
def groups_home(built_groups, monkeypatch) -> Path:
    """The same, set in the environment."""
    torch.set_num_threads(1)
    monkeypatch.setenv("TDABENCH_HOME", str(built_groups))
    return built_groups


@pytest.fixture
def tdabench(monkeypatch, capsys) -> Callable[..., Answer]:
    """Call the command line in this process."""

    def call(*words: object) -> Answer:
        forget_plugins()
        monkeypatch.setattr(sys, "argv", ["tdabench", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return Answer(end.value.code or 0, *capsys.readouterr())

    return call


def plugin(folder: Path, name: str, attribute: str = "pass", fit: str = "pass", **changes: Any) -> Path:
    """Write an adapter; the code of its calls is given as lines."""
    fields = {"version": 1, "slice_size": 20, "needs": (), "members": (), "body": ""} | changes
    code = {part: text.strip().replace("\n", "\n        ") for part, text in (("fit", fit), ("attribute", attribute))}
    path = folder / f"{name}.py"
    path.write_text(PLUGIN.format(name=name, **code, **fields))
    return path


def forget_plugins() -> None:
    """Make the registry import plugin files again, as a new process would."""
    for name in [name for name, cls in CLASSES.items() if cls.__module__.startswith(PREFIX)]:
        del CLASSES[name]
    for name in [name for name in sys.modules if name.startswith(PREFIX)]:
        del sys.modules[name]


def assets(task: str = TASK) -> Assets:
    return Assets(assets_folder(find_task(task)))


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], None], seal: bool = True) -> None:
    """Change the manifest of an assets folder in place, and its hash with it unless ``seal`` is false."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    own = {"manifest_sha256": manifest_hash(manifest)} if seal else {}
    path.write_text(json.dumps(manifest | own))


def plan(
    names: Sequence[str],
    plugins: Iterable[Path] = (),
    params: dict[str, Any] | None = None,
    seeds: Sequence[int] = (0,),
    task: str = TASK,
) -> list[PlannedCell]:
    """Return the planned cells of entries, of their quick presets where none is named."""
    forget_plugins()
    planner = Planner(find_task(task), assets(task), tuple(plugins))
    return planner.cells(parse_entries(names, [], "quick", planner.known), seeds=seeds, params=params)


def run_cells(
    folder: Path,
    names: Sequence[str],
    plugins: Iterable[Path] = (),
    params: dict[str, Any] | None = None,
    task: str = TASK,
    **options: Any,
) -> dict[str, Row]:
    """Run cells as ``tdabench run`` does, and return their rows by method."""
    runner = Runner(Results(folder), Options(**{"timeout_s": 300.0, **options}))
    return {row.key.method: row for row in runner.run(plan(names, plugins, params, task=task))}


def session(folder: Path, plugins: Iterable[Path] = (), **options: Any) -> Session:
    """Return what commands get that run cells into a folder."""
    planner = Planner(find_task(TASK), assets(), tuple(plugins))
    return Session(planner, folder, Options(**{"timeout_s": 300.0, **options}))


def uncalibrated(patch: pytest.MonkeyPatch) -> None:
    """Let estimates be made up, which saves a second a command."""
    made_up = Rates(1e-4, 1e-4, 1e-4, setup=1e-4)

    def calibrate(folder: Path, device: str, plugins: tuple[Path, ...] = (), images: int = 1) -> tuple[Problem, Rates]:
        return read_problem(folder, plugins), made_up

    for place in ("commands.session", "attribution.cells"):
        patch.setattr(f"tdabench.benchmark.{place}.calibrate", calibrate)
    for place in ("commands.session", "commands.attribute"):
        patch.setattr(f"tdabench.benchmark.{place}.start_up", lambda: 0.0)


def record_of(folder: Path, row: Row) -> Record:
    """Return what the row's cell stored."""
    return Results(folder).record(row.key, row.diagnostics["identity"])


def run_here(folder: Path, planned: PlannedCell) -> tuple[dict[str, int], dict[str, int]]:
    """Run a cell in this process and return its forward and backward passes by phase."""
    spec = worker.Spec(
        method=planned.key.method,
        params=planned.key.params,
        assets=str(planned.assets.folder),
        folder=str(folder),
        query_ids=planned.query_ids,
        seed=planned.key.seed,
        device="cpu",
        micro_batch=512,
        slice_size=planned.cls.slice_size,
    )
    worker.run(spec)
    record = Record(folder)
    fit, parts = record.read("fit")["fit"], [record.costs(part)["attribute"] for part in record.parts()]
    counts = ({"fit": fit[way], "attribute": sum(part[way] for part in parts)} for way in ("forward", "backward"))
    return tuple(counts)


def numbers(row: Row) -> tuple[Any, ...]:
    """Return all that a row says but times and bytes, which a cell that runs again measures again."""
    passes = (row.cost.forward_passes, row.cost.backward_passes) if row.cost else None
    return row.status, row.key, _untimed(row.metrics), passes, row.source.scores_sha256, row.source.truth_sha256


def _untimed(metrics: Metrics | None) -> Metrics | None:
    """Return metrics without when the models were tuned of which they tell."""
    if metrics is None or metrics.exemplars is None:
        return metrics
    when = metrics.exemplars.provenance | {"built_utc": None}
    return metrics.model_copy(update={"exemplars": metrics.exemplars.model_copy(update={"provenance": when})})


def marked(mark: str) -> list[psutil.Process]:
    """Return the processes with a mark in their environment, which they have from the command that started them."""
    return [process for process in psutil.process_iter() if _environment_of(process).get("TDABENCH_MARK") == mark]


def _environment_of(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def survivors(processes: Iterable[psutil.Process], within: float) -> list[psutil.Process]:
    """Return the processes that do not end in time; a zombie has ended, whoever forgets to bury it."""
    end = time.monotonic() + within
    while (alive := [process for process in processes if running(process.pid)]) and time.monotonic() < end:
        time.sleep(0.05)
    return alive


def running(pid: int) -> bool:
    """Say whether a process is alive."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def environment(home: Path) -> dict[str, str]:
    """Return the environment of a command run on its own."""
    return {**os.environ, "TDABENCH_HOME": str(home), "OMP_NUM_THREADS": "1"}
