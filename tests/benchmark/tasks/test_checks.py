"""A dataset that does not fit its task is one line, before anything is trained or written."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tdabench.benchmark.tasks.checks import check_task
from tdabench.benchmark.tasks.find import find_task, task_names
from tdabench.benchmark.tasks.spec import QueryPlan
from tdabench.benchmark.truth.build import prepare_base
from tdabench.datasets.find import card_of, dataset_listings, load_dataset
from tdabench.errors import UserError
from tdabench.store import FolderStore

from ... import tiny

torch.set_num_threads(1)
N = 12


def task(kind, **changes):
    spec = find_task("digits-tiny")
    recipe = replace(spec.recipe, model=tiny.SPECS[kind])
    return replace(spec, dataset="mine", n_train=6, queries=QueryPlan(1, 1, 1), recipe=recipe, **changes)


def data(kind="plain", **cond):
    return tiny.dataset(N, cond={**tiny.conditions(kind, N), **cond})


def is_here(name):
    """Say whether a task's dataset needs no download."""
    return not card_of(dataset_listings()[find_task(name).dataset]).get("download")


@pytest.mark.parametrize("name", list(filter(is_here, task_names())))
def test_the_packages_tasks_fit_their_datasets(name):
    check_task(find_task(name), load_dataset(find_task(name).dataset))


@pytest.mark.parametrize("kind", ["plain", "label", "text"])
def test_a_dataset_with_the_conditions_fits(kind):
    check_task(task(kind), data(kind))


LABELS = {"class_labels": torch.arange(N) % 3}
BAD = {
    "few": (
        task(
            "plain",
        ),
        tiny.dataset(7),
        r"wants 6 training images and 1 \+ 1 .* has 7 images",
    ),
    "no-labels": (task("label"), data(), "UNet2DModel takes class_labels, which dataset 'mine' has not"),
    "no-text": (task("text"), data(), "UNet2DConditionModel takes encoder_hidden_states, which"),
    "label-range": (
        task("label"),
        data(class_labels=torch.arange(N)),
        "go from 0 to 11, and the network's from 0 to 2",
    ),
    "label-negative": (task("label"), data(class_labels=-torch.ones(N).long()), "go from -1 to -1"),
    "label-float": (task("label"), data(class_labels=torch.zeros(N)), "must be whole numbers"),
    "label-shape": (task("label"), data(class_labels=torch.zeros(N, 1).long()), "must be whole numbers"),
    "text-width": (task("text"), data(encoder_hidden_states=torch.zeros(N, 4, 5)), r"the network takes \[N, L, 8\]"),
    "text-flat": (task("text"), data(encoder_hidden_states=torch.zeros(N, 8)), r"the network takes \[N, L, 8\]"),
    "other-name": (task("plain"), data(labels=torch.zeros(N)), "has labels, which UNet2DModel does not take"),
    "unasked": (task("plain"), data(**LABELS), "UNet2DModel does not take what dataset 'mine' gives"),
    "size": (task("plain"), replace(data(), images=torch.zeros(N, 3, 8, 8)), r"images \[3, 8, 8\] an item"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_dataset_that_does_not_fit_is_one_line(name):
    spec, found, said = BAD[name]
    with pytest.raises(UserError, match=said):
        check_task(spec, found)


def test_guidance_needs_what_stands_for_no_condition():
    guided = replace(task("label"), queries=QueryPlan(1, 1, 1, guidance=2.0))
    with pytest.raises(UserError, match="says nothing of what stands for no class_labels"):
        check_task(guided, data("label"))
    check_task(guided, replace(data("label"), null={"class_labels": torch.tensor(2)}))


def test_a_truth_is_not_begun_on_a_dataset_that_does_not_fit(tmp_path):
    spec = replace(find_task("digits-tiny-edm"), dataset="digits")
    with pytest.raises(UserError, match="takes class_labels, which dataset 'digits' has not"):
        prepare_base(spec, FolderStore(tmp_path / "store"))
    assert not (tmp_path / "store").exists()
