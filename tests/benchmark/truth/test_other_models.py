"""Truth and cells on models that are not digits': a transformer under EDM, and v-prediction by class with guidance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tdabench.benchmark.tasks.find import find_task
from tdabench.benchmark.truth import build
from tdabench.benchmark.truth.retraining import Retraining, retrained
from tdabench.datasets.find import load_dataset
from tdabench.errors import UserError
from tdabench.methods.registry import listings
from tdabench.models.problem import read_problem
from tdabench.models.sampling import sample
from tdabench.store import FolderStore

from ... import run_helpers

TASKS = {"digits-tiny-edm": ("edm", 0.0), "digits-tiny-v": ("v", 2.0)}
every_task = pytest.mark.parametrize("task", TASKS)


@pytest.fixture
def home(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.getbasetemp() / "other-home"
    for task in TASKS:
        run_helpers.build_home(folder, task)
    monkeypatch.setenv("TDABENCH_HOME", str(folder))
    return folder


@every_task
def test_the_truth_says_its_unit_and_its_queries_carry_conditions_and_guidance(home, task):
    unit, guidance = TASKS[task]
    assets = run_helpers.assets(task)
    queries = read_problem(assets.folder).queries
    assert assets.manifest["target_unit"] == unit
    assert queries.cond["class_labels"].shape == (len(queries),) and queries.cond["class_labels"].max() < 10
    generated = queries.where(kind="generated")
    assert (generated.guidance == guidance).all() and (queries.where(kind="heldout").guidance == 0).all()
    assert np.isfinite(assets.truth("report").outputs).all()


@every_task
def test_generated_queries_can_be_made_again(home, task):
    problem = read_problem(run_helpers.assets(task).folder)
    queries, model = problem.queries.where(kind="generated"), problem.model(problem.checkpoints[-1])
    again = sample(model, queries.noise, problem.spec, queries.cond, queries.guidance)
    torch.testing.assert_close(again, queries.x, rtol=1e-4, atol=1e-4)
    other = {"class_labels": (queries.cond["class_labels"] + 1) % 10}
    assert (sample(model, queries.noise, problem.spec, other, queries.guidance) - queries.x).abs().max() > 1e-3


@every_task
def test_regenerated_images_follow_conditions_and_guidance(home, task):
    truth = run_helpers.assets(task).truth("report")
    problem = read_problem(run_helpers.assets(task).folder)
    assert truth.regenerated_full.shape[1] == len(problem.queries.where(kind="generated"))
    assert np.isfinite(truth.regenerated_full.astype(np.float32)).all()


@every_task
def test_every_method_runs(home, task, tmp_path):
    rows = run_helpers.run_cells(tmp_path / "results", sorted(listings()), task=task)
    assert {name: (row.status, row.reason) for name, row in rows.items()} == dict.fromkeys(rows, ("ok", None))
    assert find_task(task).label in {f"{row.key.task}@{row.key.task_version}" for row in rows.values()}


@pytest.mark.parametrize("change", ["labels", "guidance"])
def test_measurements_are_keyed_by_conditions_too(home, change):
    built = build.prepare_base(find_task("digits-tiny-v"), FolderStore(home))
    queries = built.queries
    cond = {"class_labels": queries.cond["class_labels"].roll(1)} if change == "labels" else queries.cond
    guidance = queries.guidance + (change == "guidance")
    assert replace(built, queries=replace(queries, cond=cond, guidance=guidance)).identity != built.identity


def test_what_stands_for_no_condition_is_known_of_retrained_models(tmp_path):
    data = replace(load_dataset("digits_classes").select(torch.arange(20)), null={"class_labels": torch.tensor(10)})
    recipe = replace(find_task("digits-tiny-v").recipe, steps=1, checkpoints=())
    retraining = Retraining(tuple(range(20)), 1)
    assert retrained(retraining, recipe, data, "f" * 64, FolderStore(tmp_path)).null == data.null


def test_a_truth_that_cannot_be_built_yet_is_one_line(tmp_path):
    task = find_task("digits-tiny")
    model = replace(task.recipe.model, trainable="conv_in.*")
    with pytest.raises(UserError, match="no truth can be built yet"):
        build.prepare_base(replace(task, recipe=replace(task.recipe, model=model)), FolderStore(tmp_path))
