"""How fast the expensive steps are at the sizes of `digits`; run with `pytest tests/benchmarks --benchmark-enable`.

Seconds differ between machines, the ratios of kernels to plain work in the same run much less. They are compared with
those in `ratios.json`, which `TDABENCH_WRITE_RATIOS=1` writes.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tdabench.benchmark.metrics import lds as metrics
from tdabench.benchmark.metrics.removal.evidence import Evidence, union_result
from tdabench.benchmark.metrics.removal.protocol import Protocol
from tdabench.benchmark.metrics.removal.similarities import BUILT_IN
from tdabench.benchmark.tasks.digits import TASK
from tdabench.benchmark.truth.counterfactuals import Outcome
from tdabench.datasets.find import load_dataset
from tdabench.datasets.queries import Queries
from tdabench.leaderboard.stats.over_seeds_and_queries import above_zero, estimate
from tdabench.methods.engines.features import per_sample_gradients
from tdabench.methods.engines.kernel import GradientKernel
from tdabench.methods.engines.projection import Projector
from tdabench.methods.engines.unlearning import unlearn
from tdabench.methods.mucs import Params
from tdabench.methods.view import View
from tdabench.models.denoiser import Denoiser
from tdabench.models.draws import Law
from tdabench.models.problem import Problem
from tdabench.models.training import build, snapshot, train, training_loss

ITEMS, DRAWS, WIDTH = 64, 2, 4096
RATIOS = Path(__file__).with_name("ratios.json")
SLACK = 2.0  # runs of one commit differ by less than this on a busy machine


@pytest.fixture(autouse=True)
def one_thread():
    """Measure as cells run: two processes of one thread beat one of two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def view(tmp_path):
    """The network of `digits` as initialised, whose passes cost what the trained one's do."""
    data = load_dataset("digits").select(torch.arange(TASK.n_train))
    x = data.images[:1]
    query = Queries(("query",), ("heldout",), ("test",), x, torch.zeros_like(x), (-1,), torch.zeros(1))
    weights = {0: snapshot(build(TASK.recipe.model, 0)), 1: snapshot(build(TASK.recipe.model, 1))}
    return View(Problem("digits", data, query, TASK.recipe.model, weights, TASK.recipe), tmp_path)


def seconds(work) -> float:
    """Return the fastest of three calls."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def compare(benchmark, floor) -> None:
    """Compare a kernel's ratio to the seconds of plain work with the stored one, or store it."""
    ratio = benchmark.stats.stats.min / floor
    benchmark.extra_info |= {"floor_s": floor, "ratio_to_floor": ratio}
    stored = json.loads(RATIOS.read_text()) if RATIOS.exists() else {}
    if os.environ.get("TDABENCH_WRITE_RATIOS"):
        RATIOS.write_text(
            json.dumps(dict(sorted({**stored, benchmark.name: round(ratio, 3)}.items())), indent=1) + "\n"
        )
    else:
        limit = SLACK * stored[benchmark.name]
        assert ratio < limit, f"{benchmark.name} takes {ratio:.2f} times its plain work, {limit:.2f} at most was stored"


def multiplication(n: int, inner: int, m: int) -> float:
    """Return the seconds of one product of matrices [n, inner] and [inner, m]."""
    one, other = torch.ones(n, inner), torch.ones(inner, m)
    return seconds(lambda: one @ other)


def test_every_ratio_is_of_a_benchmark():
    names = {name for name in globals() if name.startswith("test_")}
    assert set(json.loads(RATIOS.read_text())) == {name for name in names if "benchmark" in signature(name)}


def signature(name: str) -> tuple[str, ...]:
    code = globals()[name].__code__
    return code.co_varnames[: code.co_argcount]


def test_gradient_features(benchmark, view):
    """The floor is what autograd needs for as many images when it may add their gradients up."""
    model, batch = view.model(), view.train.batch(torch.arange(ITEMS))
    draws, projector = view.draws(DRAWS, Law("even")), Projector(WIDTH, 0)
    features = benchmark(lambda: projector(per_sample_gradients(model, batch, draws, "loss")))
    assert features.shape == (ITEMS, WIDTH)
    if benchmark.enabled:
        benchmark.extra_info["samples"] = ITEMS * DRAWS
        compare(benchmark, seconds(lambda: view.losses(model, batch, draws).mean().backward()))


def test_kernel_solve(benchmark):
    generator = torch.Generator().manual_seed(0)
    features, queries = (torch.randn(n, WIDTH, generator=generator) for n in (TASK.n_train, 40))
    scores = benchmark(lambda: GradientKernel(features, 0.1).scores(queries))
    assert scores.shape == (40, TASK.n_train)
    if benchmark.enabled:
        compare(benchmark, multiplication(WIDTH, TASK.n_train, WIDTH))


def test_lds_with_bootstrap(benchmark):
    rng = np.random.default_rng(0)
    predicted, outputs = rng.normal(size=(2, 96, 20))
    plan = metrics.resampling("digits", 1, "heldout", 20, 96, 1000)
    replicates = benchmark(lambda: (metrics.lds(predicted, outputs), metrics.bootstrap_lds(predicted, outputs, plan)))
    assert replicates[1].shape == (1000,)
    if benchmark.enabled:
        compare(benchmark, multiplication(1000, 96, 96 * 40))


def test_unlearning_step(benchmark, view):
    settings = Params(batch=16, max_steps=1, bounded=False).unlearning()
    _, trace = benchmark(lambda: unlearn(view, view.problem.queries.batch, settings, 1.0))
    assert trace.steps == 1
    if benchmark.enabled:
        model, batch, draws = view.model(), view.train.batch(torch.arange(16)), view.draws(1, Law("even"))
        compare(benchmark, seconds(lambda: view.losses(model, batch, draws).mean().backward()))


def test_retraining_updates(benchmark, view):
    """Twenty updates of a counterfactual model; the floor is their forward and backward passes alone."""
    recipe, members = replace(TASK.recipe, steps=20), torch.arange(TASK.n_train)[30:]
    model, _ = benchmark(lambda: train(recipe, view.train, members, seed=1))
    assert isinstance(model, Denoiser)
    if benchmark.enabled:
        batch, generator = view.train.batch(members[: recipe.batch_size]), torch.Generator().manual_seed(0)
        benchmark.extra_info["samples"] = recipe.steps * recipe.batch_size
        compare(benchmark, recipe.steps * seconds(lambda: training_loss(model, batch, generator).backward()))


def test_removal_interval(benchmark):
    values = np.random.default_rng(0).normal(size=(5, 20))
    found = benchmark(lambda: (estimate(values, "digits", 1), above_zero(values, "digits", 1)))
    assert found[0].low is not None
    if benchmark.enabled:
        compare(benchmark, multiplication(1000, 1000, 40))


def test_union_removal_of_one_method(benchmark):
    """All that is left to do once the models are retrained: similarities, intervals and the published statistics."""
    n, shape = 40, (40, 1, 8, 8)
    ids = [tuple(f"{role}-{i}" for i in range(20)) for role in ("target", "control")]
    protocol = Protocol(("digits", 1), TASK.n_train, *ids, (1, 2, 3, 4, 5), TASK.removal)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.uniform(-1, 1, size=shape)).float()
    queries = Queries(ids[0] + ids[1], ("generated",) * n, ("test",) * n, images, images, (-1,) * n, torch.zeros(n))
    outcome = Outcome(rng.uniform(-1, 1, size=shape).astype(np.float32), rng.uniform(size=n))
    ranking = {query: tuple(rng.permutation(TASK.n_train)[:300].tolist()) for query in ids[0]}
    union = benchmark(lambda: union_result(Evidence(protocol, queries, lambda one: outcome), ranking, BUILT_IN))
    assert set(union.similarities) == {"ssim", "cosine", "l2", "loss"}
    if benchmark.enabled:
        compare(benchmark, multiplication(1000, 1000, 1000))
