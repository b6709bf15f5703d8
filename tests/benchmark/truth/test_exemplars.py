"""Cases of exemplars: which items they are, and the problems that tuned models and their samples make."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import pytest
import torch

from tdabench.benchmark.tasks.find import find_task
from tdabench.benchmark.tasks.spec import ExemplarPlan
from tdabench.benchmark.truth.derived import Source, derived_store
from tdabench.benchmark.truth.exemplars import ExemplarTruth, choose_exemplars, exemplar_ids
from tdabench.datasets.base import ImageDataset
from tdabench.datasets.find import load_dataset
from tdabench.errors import UserError
from tdabench.models.problem import read_problem
from tdabench.models.sampling import sample
from tdabench.models.tuning import tune

from ... import run_helpers, tiny
from ...run_helpers import TASK, N

tiny_home = run_helpers.tiny_home
PLAN = find_task(TASK).exemplars


@pytest.fixture(scope="module")
def made(tiny_home, tmp_path_factory):
    """The exemplar truth of the tiny task, made in a home of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDABENCH_HOME", str(tiny_home))
        assets = run_helpers.assets()
        patch.setenv("TDABENCH_HOME", str(tmp_path_factory.mktemp("exemplars")))
        torch.set_num_threads(1)
        truth = ExemplarTruth(Source(assets), PLAN)
        for run in truth.runs:
            truth.derive(run)
        yield truth


@pytest.fixture
def problems(made):
    return {case: read_problem(made.assets(case).folder) for case in made.cases}


def test_exemplars_are_neither_training_items_nor_queries_and_smaller_cases_are_part_of_larger_ones(made):
    base = read_problem(made.source.assets.folder)
    taken = {*made.source.train_ids.tolist(), *base.queries.source}
    largest = {case.index: case.items for case in made.cases if case.k == 2}
    assert len(set(chain(*largest.values()))) == 4 and not taken & set(chain(*largest.values()))
    for case in made.cases:
        assert case.items == largest[case.index][: case.k]
    digits = load_dataset("digits").classes
    assert all(len(set(digits[list(items)].tolist())) == 1 for items in largest.values())
    assert len({int(digits[items[0]]) for items in largest.values()}) == 2
    settings = [(case.k, case.steps, case.index) for case in made.cases]
    assert sorted(settings) == [(k, steps, index) for k in (1, 2) for steps in (2, 25) for index in (0, 1)]


def test_a_case_is_the_tasks_items_then_the_exemplars(made, problems):
    base, digits = read_problem(made.source.assets.folder), load_dataset("digits")
    for case, problem in problems.items():
        assert torch.equal(problem.train.images[:N], base.train.images)
        ids = exemplar_ids(made.assets(case))
        assert ids.tolist() == list(range(N, N + case.k))
        assert torch.equal(problem.train.images[ids], digits.images[list(case.items)])


def test_the_model_is_the_base_models_end_tuned_and_all_its_snapshots_so_far(made, problems):
    base = read_problem(made.source.assets.folder)
    for case, problem in problems.items():
        recipe = problem.recipe
        assert problem.checkpoints == ((0, 25, 27) if case.steps == 2 else (0, 25, 27, 50))
        assert recipe.updates == problem.checkpoints[-1] and replace(recipe, tuning=None) == base.recipe
        assert all(torch.equal(problem.weights[25][name], value) for name, value in base.weights[25].items())
    case = next(case for case in problems if (case.k, case.steps, case.index) == (2, 25, 1))
    problem = problems[case]
    kept = tune(base.model(25), problem.train, problem.recipe, [2, 25])
    for steps, state in kept.items():
        assert all(torch.equal(problem.weights[25 + steps][name], value) for name, value in state.items())


def test_queries_are_samples_of_the_tuned_model_from_noise_that_is_common_to_a_cases_models(problems):
    noises = {}
    for case, problem in problems.items():
        queries, model = problem.queries, problem.model(problem.checkpoints[-1])
        assert set(queries.kinds) == {"generated"} and set(queries.roles) == {case.name}
        assert queries.ids == case.query_ids(PLAN.queries) + case.control_ids(PLAN.queries)
        (noise, again), (own, control) = queries.noise.chunk(2), queries.x.chunk(2)
        base = problem.model(problem.recipe.steps)
        torch.testing.assert_close(sample(model, noise, problem.spec), own)
        torch.testing.assert_close(sample(base, noise, problem.spec), control)
        assert torch.equal(noise, again) and not torch.equal(own, control)
        noises.setdefault(case.index, []).append(noise)
    assert all(torch.equal(noise, same[0]) for same in noises.values() for noise in same)
    assert not torch.equal(noises[0][0], noises[1][0])


def test_draws_are_common_to_the_ks_of_a_case_and_to_no_other_case(problems):
    seeds = {(case.index, case.k): problem.recipe.tuning.seed for case, problem in problems.items()}
    assert seeds[0, 1] == seeds[0, 2] != seeds[1, 1] == seeds[1, 2]


def test_nothing_is_made_twice_and_what_is_lost_is_made_again_alike(made):
    store, (run, *_) = derived_store(), made.runs
    times = {path: path.stat().st_mtime_ns for path in store.root.rglob("*.safetensors")}
    hashes, lost = [made.assets(case).problem_sha256 for case in run], made.key(run[-1])
    assert made.missing() == []
    store.delete(f"{lost}/manifest.json")
    assert made.missing() == [run]
    made.derive(run)
    assert [made.assets(case).problem_sha256 for case in run] == hashes and made.missing() == []
    changed = {path for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert changed and all(path.parent == store.path(lost) for path in changed)


def test_another_plan_is_another_truth(made):
    for changes in ({"share": 0.5}, {"rate": 0.1}, {"queries": 3}, {"strengths": (0.1, 0.9)}):
        assert replace(made, plan=replace(PLAN, **changes)).missing()
    assert replace(made, guidance=2.0).missing() and made.missing() == []
    fewer = replace(made, plan=replace(PLAN, cases=1))
    assert fewer.missing() == [] and fewer.cases == made.cases[:4]


def test_a_class_conditional_model_is_asked_for_the_exemplars_class(tmp_path, monkeypatch):
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path))
    from tdabench.benchmark.truth.build import prepare_base
    from tdabench.store import FolderStore

    spec = find_task("digits-tiny-v")
    base = prepare_base(
        replace(spec, recipe=replace(spec.recipe, steps=10, checkpoints=())), FolderStore(tmp_path)
    ).base
    truth = ExemplarTruth(Source(base), ExemplarPlan(ks=(2,), cases=1, queries=3, strengths=(0.5,)), 2.0)
    truth.derive(truth.runs[0])
    problem = read_problem(truth.assets(truth.cases[0]).folder)
    labels = problem.train.cond["class_labels"]
    assert problem.queries.cond["class_labels"].tolist() == [int(labels[-1])] * 6 and labels[-1] == labels[-2]
    assert problem.queries.guidance.tolist() == [2.0] * 6


# which items may be exemplars


def items(classes: list[int], **groups: list[int]) -> ImageDataset:
    columns = {name: torch.tensor(values) for name, values in groups.items()}
    return ImageDataset(tiny.CARD, tiny.images(len(classes)), torch.tensor(classes), groups=columns)


def test_cases_take_other_values_first_and_share_no_item():
    data = items([0, 1] * 10)
    chosen = choose_exemplars(data, "t@1", ExemplarPlan(ks=(2,), cases=6), torch.arange(4))
    values = [{item % 2 for item in case} for case in chosen]
    assert all(len(value) == 1 for value in values) and values[0] != values[1]
    assert len({item for case in chosen for item in case}) == 12 and min(map(min, chosen)) >= 4


def test_a_pool_outside_of_given_groups():
    data = items([0] * 12, maker=[0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    plan = ExemplarPlan(ks=(1, 3), cases=2, by="maker", outside=(0, 2))
    chosen = choose_exemplars(data, "t@1", plan, torch.tensor([0]))
    assert {frozenset(case) for case in chosen} == {frozenset({3, 4, 5}), frozenset({9, 10, 11})}
    with pytest.raises(UserError, match=r"2 cases of 3 items each, alike in 'maker', and the 5 items .* make 1"):
        choose_exemplars(data, "t@1", plan, torch.tensor([9]))


@pytest.mark.parametrize(
    ("changes", "taken", "reason"),
    [
        ({}, 12, "and the 0 items that are outside training and queries make 0"),
        ({"outside": (0,)}, 0, "and the 0 items"),
        ({"ks": (13,)}, 0, "cases of 13 items each"),
        ({"by": "maker"}, 0, "unknown grouping"),
    ],
)
def test_too_few_items_are_a_mistake_in_one_line(changes, taken, reason):
    plan = replace(ExemplarPlan(ks=(1,), cases=2), **changes)
    with pytest.raises(UserError, match=reason) as found:
        choose_exemplars(items([0] * 12), "t@1", plan, torch.arange(taken))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"strengths": (0.5, 0.1)},
        {"strengths": ()},
        {"strengths": (0.001, 0.002)},  # one update both
        {"strengths": (0.0, 0.5)},
        {"ks": (4, 1)},
        {"ks": (0, 1)},
        {"ks": ()},
        {"cases": 0},
        {"queries": 0},
        {"share": 0.0},
        {"rate": 0.0},
    ],
)
def test_numbers_that_make_no_plan_are_a_mistake(made, changes):
    with pytest.raises(UserError, match="exemplars"):
        replace(made, plan=replace(PLAN, **changes))
