"""docs/tasks.md says of the literature's tasks what their specifications say."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tdabench.benchmark.commands.terminal import amount
from tdabench.benchmark.tasks.find import find_task, task_listings
from tdabench.benchmark.truth.sizing import facts_of, size_truth
from tdabench.leaderboard.rows.reported import load_reported
from tdabench.leaderboard.views.reported import reported_sheets
from tdabench.leaderboard.views.sheet import render

TEXT = (Path(__file__).parents[3] / "docs" / "tasks.md").read_text()
PUBLISHED = [name for name, listing in task_listings().items() if ".published." in listing.origin]
TFLOPS = 10  # as `tdabench plan` takes it


@cache
def sized(name):
    spec = find_task(name)
    return size_truth(spec, facts_of(spec.dataset))


def figures(name):
    """Return a task's line in the first table."""
    spec, plan, sizes = find_task(name), find_task(name).truth, sized(name).sizes
    model, removal, kind = spec.recipe.model, spec.removal, spec.recipe.model.process.get("kind", "ddpm")
    adapters = f", {sizes.n_trained / 1e6:.1f} M train" if sizes.n_trained < sizes.n_parameters else ""
    alone = [f"{round(share * spec.n_train):,}" for share in removal.per_query_shares]
    cells = (
        f"`{spec.label}`",
        f"`{spec.dataset}`",
        f"{spec.n_train:,}",
        f"{model.architecture}, {sizes.n_parameters / 1e6:.1f} M{adapters}",
        f"{kind}, {model.sampler.steps} steps{', latents' if model.autoencoder else ''}",
        ", ".join(f"`{key}`" for key in facts_of(spec.dataset).get("cond", {})) or "none",
        f"{spec.queries.guidance:g}" if spec.queries.guidance not in (0, 1) else "none",
        f"{spec.queries.test} + {spec.queries.dev} dev",
        f"{plan.report} x {plan.report_replicates}",
        f"{plan.open} x {plan.open_replicates}",
        f"{removal.top_k(spec.n_train):,} x {removal.seeds}",
        f"{', '.join(alone)} x {removal.per_query}",
    )
    return f"| {' | '.join(cells)} |"


def costs(name):
    """Return a task's line in the second table."""
    sizing = sized(name)
    hours = sizing.work / (TFLOPS * 1e12) / 3600
    disk = amount(sizing.pixels + sizing.weights + sizing.pictures)
    forward = sizing.asked + sizing.passes
    cells = (
        f"{sizing.models - 1}",
        f"{sizing.images / 1e6:,.0f} M",
        f"{forward / 1e6:,.0f} M",
        f"{hours:,.0f} h",
        disk,
    )
    return f"| `{find_task(name).label}` | {' | '.join(cells)} |"


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_tasks_figures_and_costs_are_those_of_its_specification(name):
    lines = TEXT.splitlines()
    assert figures(name) in lines
    assert costs(name) in lines


def test_the_reported_table_is_the_one_that_is_committed():
    assert render(reported_sheets(load_reported()), "markdown") in TEXT
