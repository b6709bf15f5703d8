"""Cells that take features over from earlier ones: less is computed, and no row looks cheaper for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tdabench.benchmark.run.forecast import Rates, forecast, sizes_of
from tdabench.benchmark.run.plan import Options
from tdabench.benchmark.run.results import Results
from tdabench.benchmark.run.runner import Runner
from tdabench.methods import Sizes, kept
from tdabench.methods.d_trak import DTrak
from tdabench.methods.registry import method_class
from tdabench.models.problem import read_problem

from ... import run_helpers
from ...run_helpers import N, Q, assets, plan, plugin, record_of, run_cells

tiny_home, home = run_helpers.tiny_home, run_helpers.home

BLOCKWISE = """
import tdabench.methods.rows as rows
rows.BLOCK_ITEMS = 16
model, draws = view.model(), view.draws(1, __import__("tdabench").methods.Law("even"))
def compute(batch):
    {death}
    with torch.no_grad():
        return view.losses(model, batch, draws)
found = view.kept("losses", compute, (1,), {{"draws": 1}}, size=16)
self.diagnostics["sum"] = float(found.whole().sum())
"""


@pytest.fixture(autouse=True)
def _own_home(home):
    """Every test here runs on the tiny truth."""


def d_trak(folder, damping, **options):
    """Return the row of d-trak with a damping, and its fit as stored."""
    params = replace(DTrak.presets["quick"], damping=damping)
    row = run_cells(folder, ["d-trak"], params={"d-trak": params}, **options)["d-trak"]
    assert (row.status, row.reason) == ("ok", None)
    return row, record_of(folder, row).read("fit")["fit"]


def costs(folder):
    """Return the costs of the blocks that a results folder keeps."""
    store = Results(folder).store
    return [store.get_json(key)["costs"] for key in store.keys("kept") if key.endswith(".json")]


@pytest.fixture(scope="module")
def pair(tiny_home, tmp_path_factory):
    """A folder, and rows with fits of a cell and of one that differs in a later parameter, in that folder."""
    folder = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDABENCH_HOME", str(tiny_home))
        return folder, d_trak(folder, 0.1), d_trak(folder, 1.0)


def test_a_later_cell_takes_the_gradients_over_and_says_so(pair):
    _, (first, _), (second, _) = pair
    assert "kept" not in first.diagnostics
    assert second.diagnostics["kept"] == [{"rows": "gradients", "blocks": 1, "reused": 1, "rebuilt": []}]


def test_its_row_has_the_passes_that_it_would_have_made(pair):
    _, (first, _), (second, _) = pair
    for row in (first, second):
        assert row.cost.forward_passes == row.cost.backward_passes == {"fit": 4 * N, "attribute": 4 * Q}


def test_it_looks_no_cheaper_in_time_or_memory(pair):
    folder, (first, _), (second, fit) = pair
    (block,) = costs(folder)
    assert block["seconds"] < first.cost.fit_s and block["seconds"] < fit["seconds"] == second.cost.fit_s
    assert second.cost.wall_s > second.cost.fit_s + sum(second.cost.attribute_s)
    assert second.cost.peak_rss_bytes["fit"] >= block["peak_rss_bytes"] > 0
    assert block["forward"] == block["backward"] == 4 * N


def test_its_scores_are_those_of_a_cell_on_its_own(pair, tmp_path):
    _, (first, _), (second, _) = pair
    alone, _ = d_trak(tmp_path, 1.0, force=True)
    assert alone.source.scores_sha256 == second.source.scores_sha256 != first.source.scores_sha256


def test_a_forced_cell_keeps_and_reuses_nothing(tmp_path):
    d_trak(tmp_path, 0.1)
    (path,) = (tmp_path / "kept").rglob("*.safetensors")
    before = path.stat().st_mtime_ns
    row, _ = d_trak(tmp_path, 1.0, force=True)
    assert "kept" not in row.diagnostics and row.cost.forward_passes["fit"] == 4 * N
    assert path.stat().st_mtime_ns == before


def test_a_damaged_block_is_named_rebuilt_and_harms_nothing(pair, tmp_path):
    d_trak(tmp_path, 0.1)
    (path,) = (tmp_path / "kept").rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-8] + b"12345678")
    row, _ = d_trak(tmp_path, 1.0)
    assert row.diagnostics["kept"] == [{"rows": "gradients", "blocks": 1, "reused": 0, "rebuilt": [path.stem]}]
    assert row.source.scores_sha256 == pair[2][0].source.scores_sha256
    log = Results(tmp_path).log(row.key).read_text()
    assert f"{path} was truncated or edited: it is computed again" in log


def test_a_killed_fit_goes_on_where_it_was_and_its_row_has_the_whole_cost(tmp_path):
    mark, results = tmp_path / "mark", tmp_path / "results"
    death = f"if 32 in batch.ids and not Path({str(mark)!r}).exists():\n"
    death += f"        Path({str(mark)!r}).touch(); os.kill(os.getpid(), signal.SIGKILL)"
    path = plugin(tmp_path, "blockwise", fit=BLOCKWISE.format(death=death))
    assert run_cells(results, ["blockwise"], [path], isolated=False)["blockwise"].status == "error"
    assert len(costs(results)) == 2
    row = run_cells(results, ["blockwise"], [path], retry=True, isolated=False)["blockwise"]
    assert (row.status, row.reason) == ("ok", None)
    assert row.diagnostics["kept"] == [{"rows": "losses", "blocks": 4, "reused": 2, "rebuilt": []}]
    assert row.cost.forward_passes["fit"] == N
    whole = run_cells(tmp_path / "whole", ["blockwise"], [path], isolated=False)["blockwise"]
    assert row.diagnostics["sum"] == whole.diagnostics["sum"]


def test_what_a_plugin_keeps_goes_with_its_code(tmp_path):
    code = []
    for line in ("pass", "'changed'", "pass"):
        path = plugin(tmp_path, "edited", fit=BLOCKWISE.format(death=line))
        code.append(Runner(Results(tmp_path / "results"), Options())._kept(plan(["edited"], [path])[0]))
    assert code[0] == code[2] and code[0]["method_code"] != code[1]["method_code"]


@pytest.mark.parametrize("options", [{"threads": 2}, {"jobs": 1}])
def test_costs_of_another_environment_are_not_taken_over(options, tmp_path):
    cell, results = plan(["d-trak"])[0], Results(tmp_path)
    here, there = (Runner(results, replace(Options(), **change))._kept(cell) for change in ({}, options))
    assert here["inputs"] != there["inputs"] and here["code"] == there["code"]


def test_a_run_makes_room_before_it_starts(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(kept, "make_room", lambda folder, limit: asked.append(folder))
    run_cells(tmp_path, ["random"])
    assert asked == [tmp_path / "kept"]


def test_queries_are_out_of_reach_of_fit(tmp_path):
    path = plugin(tmp_path, "peeks", fit="view.problem.queries.x.mean()")
    row = run_cells(tmp_path / "results", ["peeks"], [path])["peeks"]
    assert row.status == "error"
    assert row.reason.startswith("UserError: view.problem.queries is out of reach: only attribute gets queries")
    assert "(peeks.py:" in row.reason


def test_attribute_gets_no_other_queries_either(tmp_path):
    path = plugin(tmp_path, "looks", "assert len(queries) <= 2\nlen(view.problem.queries)", slice_size=2)
    row = run_cells(tmp_path / "results", ["looks"], [path])["looks"]
    assert row.status == "error" and "out of reach" in row.reason


def test_sizes_are_those_of_the_problem():
    problem = read_problem(assets().folder)
    model, found = problem.model(problem.checkpoints[-1]), sizes_of(problem, 6, 2)
    parameters = {name: value.numel() for name, value in model.named_parameters()}
    expected = Sizes(N, 6, sum(parameters.values()), parameters, len(problem.checkpoints) - 1, 2, (1, 8, 8))
    assert found == expected and found.n_trained == found.n_parameters


def test_sizes_count_what_trains(monkeypatch):
    problem = read_problem(assets().folder)
    model = problem.model(problem.checkpoints[-1])
    model.net.conv_in.requires_grad_(False)
    monkeypatch.setattr(type(problem), "model", lambda self, at: model)
    found = sizes_of(problem)
    assert found.n_parameters - found.n_trained == sum(p.numel() for p in model.net.conv_in.parameters())
    assert "net.conv_in.weight" not in found.parameters


def test_forecasts_know_the_slices(monkeypatch):
    cell, seen = plan(["mucs"])[0], []
    monkeypatch.setattr(method_class("mucs"), "estimate", lambda self, sizes: seen.append(sizes))
    forecast([cell], read_problem(assets().folder), Rates(1.0, 1.0, 1.0, 0.0))
    assert (seen[0].n_queries, seen[0].slices) == (Q, 3)


def test_each_precision_has_rows_of_its_own(tmp_path):
    folder, alone = tmp_path / "both", tmp_path / "alone"
    for precision in ("float32", "bf16"):
        cells = replace_precision(plan(["grad-sim"]), precision)
        (row,) = Runner(Results(folder), Options()).run(cells)
        assert "kept" not in row.diagnostics
        (other,) = Runner(Results(alone / precision), Options()).run(cells)
        assert row.source.scores_sha256 == other.source.scores_sha256
    assert len(list((folder / "kept").iterdir())) == 2


def replace_precision(cells, precision):
    return [replace(cell, key=cell.key.model_copy(update={"precision": precision})) for cell in cells]


TWO = """
import torch
from tdabench.methods import Method, register


@register("one")
class One(Method):
    def fit(self, view):
        return view.kept("same", lambda batch: batch.x.flatten(1)[:, :4] + 1, (4,), {})

    def attribute(self, view, state, queries):
        return state.whole().sum(1).expand(len(queries), -1).contiguous()


@register("other")
class Other(One):
    def fit(self, view):
        return view.kept("same", lambda batch: -batch.x.flatten(1)[:, :4], (4,), {})
"""


def test_two_methods_of_a_file_do_not_take_each_others_rows(tmp_path):
    path = tmp_path / "two.py"
    path.write_text(TWO)
    together = run_cells(tmp_path / "both", ["one", "other"], [path], jobs=1)
    alone = run_cells(tmp_path / "alone", ["other"], [path])["other"]
    assert together["other"].source.scores_sha256 == alone.source.scores_sha256
    assert together["one"].source.scores_sha256 != alone.source.scores_sha256


def test_rows_of_another_shape_than_announced_are_an_error(tmp_path):
    body = "view.kept('mean', lambda batch: batch.x.flatten(1).mean(0)[:4], (4,), {})"
    row = run_cells(tmp_path / "r", ["wrong"], [plugin(tmp_path, "wrong", fit=body)])["wrong"]
    assert row.status == "error" and "rows 'mean' were computed as [4] where [60, 4] are due" in row.reason


def test_kept_rows_are_keyed_by_the_encoders_weights(tmp_path):
    from tdabench.models.encoders.weights import Weights

    runner, (cell,) = Runner(Results(tmp_path), Options()), plan(["grad-sim"])
    one, other = (replace(cell, encoders={"clip": Weights("clip", "here", sha)}) for sha in ("a", "b"))
    assert runner._kept(one) != runner._kept(other) != runner._kept(cell)


def test_an_engines_function_with_a_methods_own_part_is_the_methods(tmp_path):
    from functools import partial

    from tdabench.methods.engines.features import Features, per_sample_gradients
    from tdabench.methods.kept import Keeper

    engine = {Features.__module__: "engine"}
    keeper = Keeper(tmp_path, {}, engine, "method", lambda: None)
    assert keeper._code(partial(per_sample_gradients, output=len)).startswith("method")
