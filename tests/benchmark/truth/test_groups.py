"""Groups left out: what is planned, built, stored, read back and checked."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from tdabench.benchmark.commands.assets import truth as command
from tdabench.benchmark.tasks.find import assets_folder, find_task
from tdabench.benchmark.tasks.spec import ExemplarPlan, GroupPlan
from tdabench.benchmark.truth import build as truth
from tdabench.benchmark.truth.outcomes import measure, regenerate
from tdabench.benchmark.truth.queries import attributed
from tdabench.datasets.truth import Assets, GroupTruth
from tdabench.errors import UserError
from tdabench.models.problem import load_dataset, read_problem
from tdabench.models.training import train
from tdabench.seeds import digest
from tdabench.store import FolderStore

from ... import run_helpers

built_groups, groups_home = run_helpers.built_groups, run_helpers.groups_home
TASK = find_task("digits-tiny-groups")


@pytest.fixture
def assets(groups_home):
    return Assets(assets_folder(TASK))


@pytest.fixture
def problem(assets):
    return read_problem(assets.folder)


def test_without_groups_a_spec_is_what_it_was():
    specs = {name: replace(find_task(name), exemplars=ExemplarPlan()) for name in ("digits", "digits-tiny")}
    hashes = {name: digest(spec.to_json()) for name, spec in specs.items()}
    assert hashes == {"digits": "9088917863802d14", "digits-tiny": "fb5fc7c616fcba82"}
    assert "groups" not in find_task("digits").to_json() and TASK.to_json()["groups"]["by"] == "class_labels"


def test_every_group_is_left_out_once_a_replicate_and_shares_seeds_with_everything(problem):
    runs = truth.plan_runs(TASK, problem.train.classes, problem.groups)
    left_out = [run for run in runs if run.role == "groups"]
    assert [(run.retraining.seed, run.index) for run in left_out] == [(seed, g) for seed in (1, 2) for g in range(10)]
    labels = problem.train.cond["class_labels"]
    for run in left_out:
        assert run.retraining.members.ids.tolist() == [i for i in range(200) if labels[i] != run.index]
    rest = [run for run in runs if run.role != "groups"]
    assert rest == truth.plan_runs(replace(TASK, groups=None), problem.train.classes)
    assert {run.retraining.seed for run in rest if run.role == "full"} == {1, 2}


def test_a_method_sees_the_groups_and_they_are_those_of_the_dataset(assets, problem):
    everything = load_dataset("digits_classes").cond["class_labels"]
    train_ids = torch.from_numpy(assets.arrays("problem.safetensors")["train_ids"])
    assert torch.equal(problem.groups.assignment, everything[train_ids])
    assert problem.groups.names == tuple("0123456789")
    assert assets.manifest["groups"] == {"by": "class_labels", "names": list("0123456789")}


def test_stored_losses_and_images_are_those_of_a_model_trained_without_the_group(assets, problem):
    replicate, group = 1, 7
    members = torch.tensor([i for i in range(200) if problem.train.classes[i] != group])
    model, _ = train(TASK.recipe, problem.train, members, seed=1 + replicate)
    model.null = problem.train.null
    stored = assets.group_truth().outputs[replicate, group]
    np.testing.assert_array_equal(stored, measure(model, attributed(problem.queries), TASK.truth))
    images = assets.arrays(f"regenerated-groups-{replicate}.safetensors")["images"][group]
    np.testing.assert_array_equal(images, regenerate(model, problem).astype(np.float16))


def test_effects_are_losses_without_less_those_with_everything(assets):
    found = assets.group_truth()
    ids = found.query_ids[3], found.query_ids[0]
    without = found.outputs.astype(np.float64).mean(-1)[:, :, [3, 0]]
    full = found.full.astype(np.float64).mean(-1)[:, None, [3, 0]]
    np.testing.assert_allclose(found.effects(ids), without - full, rtol=1e-12)


def test_a_replicate_without_a_pair_is_compared_with_all_models():
    outputs, full = np.array([5.0, 7.0, 9.0]), np.array([1.0, 2.0])  # of 3 and 2 seeds
    outputs, full = np.tile(outputs[:, None, None, None], (1, 4, 1, 2)), np.tile(full[:, None, None], (1, 1, 2))
    made = GroupTruth(("a", "b", "c", "d"), ("q",), np.zeros(8, int), outputs, full)
    np.testing.assert_allclose(made.effects(("q",))[:, :, 0], np.array([[4.0] * 4, [5.0] * 4, [7.5] * 4]))


def test_a_query_loses_most_without_its_own_class(assets, problem):
    heldout = problem.queries.where("test", "heldout")
    effects = assets.group_truth().effects(heldout.ids).mean(0)
    assert (effects.argmax(0) == heldout.cond["class_labels"].numpy()).mean() >= 0.75


def test_groups_are_part_of_the_problem_and_their_truth_is_not(assets, tmp_path):
    copied = shutil.copytree(assets.folder, tmp_path / "assets")
    names, file = assets.manifest["groups"]["names"], {"truth-groups-1.safetensors": {"sha256": "0" * 64, "bytes": 1}}
    renamed = ["zero", *names[1:]]
    run_helpers.edit_manifest(copied, lambda manifest: manifest["groups"].update(names=renamed))
    assert Assets(copied).problem_sha256 != assets.problem_sha256
    run_helpers.edit_manifest(copied, lambda manifest: manifest["groups"].update(names=names))
    run_helpers.edit_manifest(copied, lambda manifest: manifest["files"].update(file))
    assert Assets(copied).problem_sha256 == assets.problem_sha256 and Assets(copied).sha256 != assets.sha256


def test_another_grouping_is_another_base_and_other_measurements(groups_home):
    store = FolderStore(groups_home)
    with pytest.raises(UserError, match="must be 1 or more"):
        truth.prepare_base(replace(TASK, groups=GroupPlan(replicates=0)), store)
    with pytest.raises(UserError, match="must be 1 or more"):
        truth.prepare_base(replace(TASK, truth=replace(TASK.truth, full=0)), store)
    with pytest.raises(UserError, match="makes 10 groups"):
        truth.prepare_base(replace(TASK, groups=GroupPlan(names=("a", "b"))), store)


def test_more_replicates_reuse_what_is_measured(groups_home):
    more = replace(TASK, groups=replace(TASK.groups, replicates=3))
    store = FolderStore(groups_home)
    jobs = truth.prepare_base(more, store).jobs(store)
    missing = [job.run for job in jobs if not store.exists(job.key)]
    assert [(run.role, run.index, run.retraining.seed) for run in missing] == [("groups", g, 3) for g in range(10)]


def test_info_and_verify_hold_groups_too(groups_home, capsys):
    command.info(TASK.name)
    out = " ".join(capsys.readouterr().out.split())
    assert "10 groups by class_labels (0, 1, 2, 3, 4, 5, 6, 7, 8, 9); 2 models without each" in out
    assert "one replicate" in out  # of report subsets, whose noise is unknown
    assert command.verify(TASK.name, 2, 0) == 0
    out = capsys.readouterr().out
    assert out.count("equal bits") == 2 and "without group" in out
    with pytest.raises(UserError, match="there are 23 retrainings"):
        command.verify(TASK.name, 24, 0)


def test_verify_tells_a_model_of_another_group(assets, monkeypatch, capsys):
    (part,) = [part for part in command._retrained(assets) if part.name == "without group"]
    swapped = part._replace(outputs=part.outputs[:, ::-1])
    assert command._verify_cell(TASK, assets, read_problem(assets.folder), swapped, (0, 2)) == 1
    assert "NOT its own cell" in capsys.readouterr().out
