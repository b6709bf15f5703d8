"""Which models are retrained: subsets by role, their replicates, retrainings on everything, and without each group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...datasets.base import stratified_halves
from ...datasets.groups import Groups
from ...datasets.truth import Role
from ...seeds import torch_generator
from ..tasks.spec import TaskSpec
from .retraining import Members, Retraining

BASE_SEED = 0
RunRole = Role | Literal["full", "groups"]


@dataclass(frozen=True)
class Run:
    """One retraining of the plan: on subset ``index`` of a role, without a group, or (role ``full``) on everything."""

    role: RunRole
    index: int
    retraining: Retraining


def masks(spec: TaskSpec, classes: Tensor, role: Role) -> Tensor:
    """Return the subsets of a role as masks [M, N], stratified by class and different for every role."""
    count = spec.truth.report if role == "report" else spec.truth.open
    generators = (torch_generator("subset", spec.label, role, index) for index in range(count))
    return torch.stack([stratified_halves(classes, spec.truth.share, generator) for generator in generators])


def without_each(groups: Groups) -> Tensor:
    """Return what is trained on without each group, as masks [G, N]."""
    return torch.arange(len(groups))[:, None] != groups.assignment


def plan_runs(spec: TaskSpec, classes: Tensor, groups: Groups | None = None) -> list[Run]:
    """Return all retrainings; replicate r of every subset has seed 1 + r; open subsets and first replicates lead."""
    everything = Members.of(torch.ones(len(classes), dtype=torch.bool))
    runs = [Run("full", r, Retraining(everything, BASE_SEED + 1 + r)) for r in range(spec.truth.full)]
    planned: dict[RunRole, tuple[Tensor, int]] = {
        "open": (masks(spec, classes, "open"), spec.truth.open_replicates),
        "report": (masks(spec, classes, "report"), spec.truth.report_replicates),
    }
    if spec.groups is not None and groups is not None:
        planned["groups"] = without_each(groups), spec.groups.replicates
    subsets = {role: [Members.of(mask) for mask in chosen] for role, (chosen, _) in planned.items()}
    for r in range(max(replicates for _, replicates in planned.values())):
        for role, (_, replicates) in planned.items():
            if r < replicates:
                runs += [Run(role, i, Retraining(one, BASE_SEED + 1 + r)) for i, one in enumerate(subsets[role])]
    return runs


ROLES: tuple[Role, ...] = ("open", "report")
