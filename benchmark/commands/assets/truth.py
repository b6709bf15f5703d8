"""The commands about ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.table import Table

from ....datasets.truth import Assets
from ....errors import UserError
from ....models.problem import Problem, read_problem
from ....models.training import train
from ....seeds import numpy_generator
from ...metrics import lds
from ...metrics.scores import query_ids
from ...tasks.find import find_task, open_assets
from ...tasks.spec import TaskSpec
from ...truth.outcomes import measure
from ...truth.queries import attributed
from ..terminal import console


def verify(task: str, sample: int, seed: int, plugins: tuple[Path, ...] = ()) -> int:
    """Check every hash, retrain ``sample`` cells of the report subsets and groups, and return the exit code."""
    spec = find_task(task, plugins)
    assets = open_assets(spec)
    assets.check_files()
    console.print(f"{spec.label}: all {len(assets.manifest['files'])} files match the manifest's hashes")
    torch.set_num_threads(1)  # as the builders do: another count sums in another order
    cells = [(part, cell) for part in _retrained(assets) for cell in np.ndindex(part.outputs.shape[:2])]
    if not 0 <= sample <= len(cells):
        raise UserError(f"--sample {sample}: there are {len(cells)} retrainings to pick from")
    chosen = numpy_generator("verify", seed).choice(len(cells), sample, replace=False)
    problem = read_problem(assets.folder, plugins)
    return max([_verify_cell(spec, assets, problem, *cells[index]) for index in chosen], default=0)


class _Retrained(NamedTuple):
    """Losses [R, M, Q, bins] under models trained on each of the masks [M, N]; what one of these is called."""

    name: str
    masks: np.ndarray
    outputs: np.ndarray


def _retrained(assets: Assets) -> list[_Retrained]:
    truth = assets.truth("report")
    parts = [_Retrained("subset", truth.masks, truth.outputs)]
    if assets.has_groups:
        groups = assets.group_truth()
        masks = np.arange(len(groups.names))[:, None] != groups.assignment
        parts.append(_Retrained("without group", masks, groups.outputs))
    return parts


def _verify_cell(spec: TaskSpec, assets: Assets, problem: Problem, part: _Retrained, cell: tuple[int, int]) -> int:
    replicate, index = cell
    members = torch.from_numpy(part.masks[index].nonzero()[0])
    seed = assets.manifest["base_seed"] + 1 + replicate
    model, _ = train(spec.recipe, problem.train, members, seed, base=problem.base)
    found = measure(model, attributed(problem.queries), spec.truth).astype(np.float64)
    distances = np.abs(part.outputs.astype(np.float64) - found).mean(axis=(2, 3))
    nearest = np.unravel_index(distances.argmin(), distances.shape)
    own, other = distances[cell], np.sort(distances.ravel())[1]
    same = bool((part.outputs[cell] == found).all())
    verdict = "equal bits" if same else "nearest to its own cell" if nearest == cell else "NOT its own cell"
    console.print(
        f"replicate {replicate}, {part.name} {index}: {verdict} "
        f"(mean difference {own:.2e}, next nearest cell {other:.2e})",
        soft_wrap=True,
    )
    return 0 if same or nearest == cell else 1


def info(task: str, plugins: tuple[Path, ...] = ()) -> None:
    """Print what a truth holds."""
    spec = find_task(task, plugins)
    assets = open_assets(spec)
    truth = assets.truth("report")
    size = sum(file["bytes"] for file in assets.manifest["files"].values())
    console.print(f"{spec.label}: {spec.title}")
    place = f"in {assets.folder}, {size / 2**20:.1f} MiB, sha256 {assets.sha256[:16]}"
    console.print(place, soft_wrap=True, markup=False)
    replicates, subsets = truth.outputs.shape[:2]
    seeds, opened = assets.truth("open").outputs.shape[:2]
    counts = f"{subsets} report subsets x {replicates}, {opened} open x {seeds}, {len(truth.full)} on everything"
    console.print(f"{truth.masks.shape[1]} training images; retrained: {counts}", soft_wrap=True)
    if assets.has_groups:
        groups = assets.group_truth()
        names = f"{len(groups.names)} groups by {assets.manifest['groups']['by']} ({', '.join(groups.names)})"
        console.print(f"{names}; {len(groups.outputs)} models without each", soft_wrap=True, markup=False)
    console.print(_ceilings(assets))
    for name, value in assets.manifest["provenance"].items():
        console.print(f"{name}: {value}")


def _ceilings(assets: Assets) -> Table:
    truth, manifest = assets.truth("report"), assets.manifest
    table = Table("query kind", "queries", "replicate correlation", "noise ceiling of LDS", "95 % interval")
    ids = query_ids(manifest, "test")
    for kind in sorted({query["kind"] for query in manifest["queries"]}):
        chosen = tuple(q["id"] for q in manifest["queries"] if q["kind"] == kind and q["id"] in ids)
        outputs = truth.replicates(chosen)
        plan = lds.resampling(manifest["task"], manifest["version"], kind, len(chosen), outputs.shape[1])
        values = ("unknown", "unknown", "one replicate")
        if len(outputs) > 1:
            low, high = lds.interval(lds.bootstrap_ceiling(outputs, plan))
            pair = lds.lds(outputs[0], outputs[1])
            values = f"{np.nanmean(pair):.3f}", f"{lds.ceiling(outputs):.3f}", f"{low:.3f} to {high:.3f}"
        table.add_row(kind, str(len(chosen)), *values)
    return table
