"""Which models are retrained: subsets by role, their replicates, and retrainings on everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...datasets.base import stratified_halves
from ...datasets.truth import Role
from ...seeds import torch_generator
from ..tasks.spec import TaskSpec
from .retraining import Members, Retraining

BASE_SEED = 0


@dataclass(frozen=True)
class Run:
    """One retraining of the plan: subset ``index`` of a role, or a replicate on everything (role ``full``)."""

    role: Role | Literal["full"]
    index: int
    retraining: Retraining


def masks(spec: TaskSpec, classes: Tensor, role: Role) -> Tensor:
    """Return the subsets of a role as masks [M, N], stratified by class and different for every role."""
    count = spec.truth.report if role == "report" else spec.truth.open
    generators = (torch_generator("subset", spec.label, role, index) for index in range(count))
    return torch.stack([stratified_halves(classes, spec.truth.share, generator) for generator in generators])


def plan_runs(spec: TaskSpec, classes: Tensor) -> list[Run]:
    """Return all retrainings; replicate r of every subset has seed 1 + r; open subsets and first replicates lead."""
    everything = Members.of(torch.ones(len(classes), dtype=torch.bool))
    runs = [Run("full", r, Retraining(everything, BASE_SEED + 1 + r)) for r in range(spec.truth.full)]
    subsets = {role: [Members.of(mask) for mask in masks(spec, classes, role)] for role in ROLES}
    replicates = {"report": spec.truth.report_replicates, "open": spec.truth.open_replicates}
    for r in range(max(replicates.values())):
        for role in ROLES:
            if r < replicates[role]:
                runs += [Run(role, i, Retraining(one, BASE_SEED + 1 + r)) for i, one in enumerate(subsets[role])]
    return runs


ROLES: tuple[Role, ...] = ("open", "report")
