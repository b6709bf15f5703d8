"""Rows of the training set: in memory or in files, block by block, kept or not: the same numbers."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tdabench.benchmark.contract.subject import BackwardsView
from tdabench.methods import d_trak, grad_sim, kept, rows, trak
from tdabench.methods.engines.kernel import GradientKernel
from tdabench.methods.kept import Keeper, make_room
from tdabench.methods.rows import MEMORY, Making, Rows, block_rows, held_bytes, in_memory
from tdabench.methods.view import View

from .. import tiny

FEW = 40 * 14  # bytes: rows of more than ten numbers are in files


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=tiny.generator(seed))


def small_blocks(monkeypatch, items):
    monkeypatch.setattr(rows, "BLOCK_ITEMS", items)


# blocks


@pytest.mark.parametrize("size", [1, 5, 14, 99])
def test_blocks_are_the_rows_in_order(size):
    values = gaussian(14, 3, 2)
    found = list(Rows((14, 3, 2), size, values.__getitem__).blocks())
    assert torch.equal(torch.cat([block for _, block in found]), values)
    assert all(torch.equal(values[part], block) and len(block) <= size for part, block in found)


def test_the_memory_is_kept_to_where_rows_are_many():
    assert in_memory(1500, 32768) and block_rows(32768) >= 1500  # digits' largest preset is one block
    assert not in_memory(50_000, 4096)
    assert held_bytes(50_000, 4096) + 3 * 8 * 4096**2 < MEMORY
    assert held_bytes(10, 7) == 16 * 10 * 7


@pytest.mark.parametrize(("width", "items"), [(4096, 1024), (32768, 512), (300_000, 128), (36_000_000, 1)])
def test_blocks_are_of_whole_batches_until_a_batch_is_too_large(width, items):
    making = Making("x", (50_000, width), abs, iter, 128)
    assert making.parts[0] == slice(0, items) and making.parts[-1].stop == 50_000
    assert making.step == min(items, 128) and 4 * width * making.step <= MEMORY // 8


def explicit_scores(items, queries, damping):
    phi, query = items.double().numpy(), queries.double().numpy()
    shift = damping * np.trace(phi @ phi.T) / len(phi)
    return query @ np.linalg.inv(phi.T @ phi + shift * np.eye(phi.shape[1])) @ phi.T


@pytest.mark.parametrize(("n", "k"), [(14, 30), (30, 7), (9, 9)])
@pytest.mark.parametrize("size", [1, 4, 9])
def test_a_kernel_of_blocks_equals_an_explicit_inverse(n, k, size):
    items, queries = gaussian(n, k), gaussian(4, k, seed=1)
    kernel = GradientKernel(Rows((n, k), size, items.__getitem__), 0.1)
    blocks = list(kernel.score_blocks(queries))
    assert [part for part, _ in blocks] == rows.parts_of(n, size)
    want = explicit_scores(items, queries, 0.1)
    for found in (torch.cat([block for _, block in blocks], 1), kernel.scores(queries)):
        np.testing.assert_allclose(found.numpy(), want, rtol=0, atol=1e-9 * np.abs(want).max())


@pytest.mark.parametrize(("n", "k"), [(14, 30), (30, 7)])
def test_one_block_is_solved_as_the_whole(n, k):
    """Bit for bit: stored scores were computed so."""
    items, queries = gaussian(n, k), gaussian(4, k, seed=1)
    phi, query = items.double(), queries.double()
    gram = phi @ phi.T if n <= k else phi.T @ phi
    gram.diagonal().add_(0.1 * float(gram.trace()) / n)
    factor = torch.linalg.cholesky(gram)
    solved = torch.cholesky_solve(phi @ query.T if n <= k else query.T, factor).T
    assert torch.equal(GradientKernel(items, 0.1).scores(queries), solved if n <= k else solved @ phi.T)


# in files


@pytest.mark.parametrize("kind", [View, BackwardsView])
@pytest.mark.parametrize("method", [grad_sim.GradSim, d_trak.DTrak, trak.Trak])
def test_little_memory_moves_rows_to_files_and_changes_no_score(tiny_problem, tmp_path, method, kind, monkeypatch):
    small_blocks(monkeypatch, 4)
    params = method.Params(draws=2, proj_dim=104)
    found = []
    for memory in (MEMORY, FEW):
        view = kind(tiny_problem, tmp_path / str(memory), memory=memory)
        adapter = method(params)
        state = adapter.fit(view)
        found.append(list(adapter.attribute(view, state, tiny_problem.queries)))
        files = list(view.scratch.rglob("block-*.safetensors"))
        assert len(files) == (4 if memory == FEW else 0) and (len(found[-1]) > 1) == (memory == FEW)
    whole, blocks = (tiny.joined(each) for each in found)
    tiny.assert_near(blocks, whole, 1e-4)


def numbers(view, calls, width=3):
    """Return a function of a batch that notes its ids and returns rows of its images."""

    def compute(batch):
        calls.append(batch.ids)
        view.passes.forward += len(batch)
        return batch.x.flatten(1)[:, :width] + 0.0

    return compute


@pytest.mark.parametrize("memory", [MEMORY, 16])
@pytest.mark.parametrize("kind", [View, BackwardsView])
def test_rows_are_those_of_the_ids(tiny_problem, tmp_path, monkeypatch, memory, kind):
    small_blocks(monkeypatch, 4)
    view, calls, seen = kind(tiny_problem, tmp_path, memory=memory), [], []
    view.report = lambda *event: seen.append(event)
    found = view.kept("numbers", numbers(view, calls), (3,), size=2)
    assert torch.equal(found.whole(), tiny_problem.train.images.flatten(1)[:, :3])
    assert torch.equal(torch.cat([block for _, block in found.blocks()]), found.whole())
    assert sorted(i for ids in calls for i in ids) == list(range(14)) and max(map(len, calls)) <= 2
    assert seen[0] == ("numbers", 0, 14) and seen[-1] == ("numbers", 14, 14)
    assert found.read(slice(3, 11)).shape == (8, 3)


# kept


@contextmanager
def measured(view):
    before, spent = view.passes.forward, SimpleNamespace(seconds=1.5, forward=0)
    spent.to_json = lambda: {"seconds": spent.seconds, "forward": spent.forward}
    yield spent
    spent.forward = view.passes.forward - before


@pytest.fixture
def keeping(tiny_problem, tmp_path, monkeypatch):
    """Return what makes views of cells that keep rows in one folder, in blocks of four items."""
    small_blocks(monkeypatch, 4)

    def make(memory=MEMORY, limit=2**30, inputs=None, method_code="m", **words):
        view = View(tiny_problem, tmp_path / "scratch", memory=memory, **words)
        inputs = inputs or {"problem": "p"}
        view.keeper = Keeper(tmp_path / "kept", inputs, {"engine": "e"}, method_code, partial(measured, view), limit)
        return view

    return make


def ask(view, inputs=None, width=3, name="numbers"):
    """Return rows of a cell, how many items were computed, and what was taken over."""
    calls = []
    found = view.kept(name, numbers(view, calls, width), (width,), {"x": 1} if inputs is None else inputs, size=2)
    return found, sum(map(len, calls)), *view.keeper.taken()[:2]


@pytest.mark.parametrize("memory", [MEMORY, 16])
def test_a_second_cell_computes_nothing_and_knows_what_it_would_have_cost(keeping, memory):
    first, second = ask(keeping(memory)), ask(keeping(memory))
    assert torch.equal(first[0].whole(), second[0].whole())
    assert (first[1], second[1]) == (14, 0)
    assert first[2] == [] and sum(cost["forward"] for cost in second[2]) == 14
    assert sum(cost["seconds"] for cost in second[2]) == 4 * 1.5
    (note,) = second[3].values()
    assert note == {"rows": "numbers", "blocks": 4, "reused": 4, "rebuilt": []}


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": {"x": 2}},
        {"width": 4},
        {"name": "others"},
        {"cell": {"inputs": {"problem": "q"}}},
        {"cell": {"seed": 1}},
        {"cell": {"micro_batch": 7}},
        {"cell": {"method_code": "n"}},
    ],
    ids=str,
)
def test_whatever_rows_depend_on_makes_others(keeping, change):
    ask(keeping())
    cell = change.pop("cell", {})
    assert ask(keeping(**cell), **change)[1] == 14


def test_code_of_an_engine_is_not_the_methods(keeping):
    ask(view := keeping())

    class Engine:
        def of(self, batch):
            return batch.x.flatten(1)[:, :3]

    Engine.__module__ = "engine"
    for compute in (Engine().of, partial(Engine().of)):
        assert view.keeper._code(compute) == "e"
        view.keeper.code = {"engine": "changed"}
        assert view.keeper._code(compute) == "changed"
        view.keeper.code = {"engine": "e"}
    assert view.keeper._code(numbers(view, [])) == "m numbers.<locals>.compute"


def test_a_killed_fit_goes_on_with_its_blocks(keeping):
    view, calls = keeping(), []

    def dies(batch):
        if len(calls) == 4:
            raise KeyboardInterrupt
        return numbers(view, calls)(batch)

    dies.__qualname__ = numbers(view, []).__qualname__  # the same function, on a better day
    with pytest.raises(KeyboardInterrupt):
        view.kept("numbers", dies, (3,), {"x": 1}, size=2)
    found, computed, costs, notes = ask(keeping())
    assert computed == 14 - 8 and sum(cost["forward"] for cost in costs) == 8
    assert torch.equal(found.whole(), view.train.images.flatten(1)[:, :3])
    (note,) = notes.values()
    assert note["reused"] == 2


def spoil_rows(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


SPOILT = {
    "edited": ("safetensors", spoil_rows),
    "truncated": ("safetensors", lambda path: path.write_bytes(path.read_bytes()[:-3])),
    "gone": ("safetensors", lambda path: path.unlink()),
    "cheaper": ("json", lambda path: path.write_text(path.read_text().replace("1.5", "0.5"))),
    "unreadable": ("json", lambda path: path.write_text("{")),
    "other": ("json", lambda path: path.write_text("[]")),
}


@pytest.mark.parametrize("memory", [MEMORY, 16])
@pytest.mark.parametrize("name", SPOILT)
def test_a_damaged_block_is_named_and_computed_again(keeping, tmp_path, capsys, name, memory):
    ask(keeping(memory))
    ending, spoil = SPOILT[name]
    (path,) = (tmp_path / "kept").rglob(f"block-00000004-00000008.{ending}")
    spoil(path)
    found, computed, costs, notes = ask(keeping(memory))
    assert computed == 4 and len(costs) == 3
    assert torch.equal(found.whole(), keeping().train.images.flatten(1)[:, :3])
    (note,) = notes.values()
    assert note["rebuilt"] == ["block-00000004-00000008"] and "block-00000004-00000008" in capsys.readouterr().out
    assert ask(keeping(memory))[1] == 0


@pytest.mark.parametrize("place", ["another folder", "another block"])
def test_a_whole_block_of_other_rows_is_damaged_where_it_lies(keeping, tmp_path, place):
    ask(keeping())
    (folder,) = (tmp_path / "kept").iterdir()
    ask(keeping(), inputs={"x": 2})
    (other,) = set((tmp_path / "kept").iterdir()) - {folder}
    theirs = "block-00000004-00000008" if place == "another folder" else "block-00000000-00000004"
    for ending in ("json", "safetensors"):
        found = (other if place == "another folder" else folder) / f"{theirs}.{ending}"
        shutil.copyfile(found, folder / f"block-00000004-00000008.{ending}")
    found, computed, *_ = ask(keeping())
    assert computed == 4 and torch.equal(found.whole(), keeping().train.images.flatten(1)[:, :3])


def test_what_has_no_room_is_computed_and_not_kept(keeping, tmp_path):
    for _ in range(2):
        found, computed, costs, notes = ask(keeping(limit=14 * 3 * 4 - 1))
        assert computed == 14 and not costs and not notes
        assert torch.equal(found.whole(), keeping().train.images.flatten(1)[:, :3])
    assert not list((tmp_path / "kept").iterdir())
    ask(keeping(limit=14 * 3 * 4))
    assert list((tmp_path / "kept").iterdir())


def test_room_is_made_by_what_was_used_least_recently(keeping, tmp_path):
    for x in (1, 2, 3):
        ask(keeping(), {"x": x})
    entries = sorted((tmp_path / "kept").iterdir(), key=lambda path: path.stat().st_mtime)
    ask(keeping(), {"x": 1})
    size = kept.used(entries[0])
    make_room(tmp_path / "kept", 2 * 2 * size)
    assert set((tmp_path / "kept").iterdir()) == {entries[0], entries[2]}
    make_room(tmp_path / "nowhere")


def test_no_room_is_made_while_another_run_may_read_rows(keeping, tmp_path):
    folder = tmp_path / "kept"
    for x in (1, 2):
        ask(keeping(), {"x": x})
    size = kept.used(next(folder.iterdir()))
    with kept.in_use(folder):
        with kept.in_use(folder, limit=2 * size):
            assert len(list(folder.iterdir())) == 2
        with kept.in_use(folder, limit=2 * size):
            assert len(list(folder.iterdir())) == 2, "the end of another run is not the end of all"
    with kept.in_use(folder, limit=2 * size):
        assert len(list(folder.iterdir())) == 1


def test_without_inputs_nothing_is_kept(keeping, tmp_path):
    view, calls = keeping(), []
    view.kept("numbers", numbers(view, calls), (3,))
    assert not (tmp_path / "kept").exists() and view.keeper.taken() == ([], {}, 0.0)


def test_two_parameters_of_d_trak_share_their_gradients(keeping):
    passes, scores = [], []
    for damping in (0.1, 1.0, 0.1):
        view, method = keeping(), d_trak.DTrak(d_trak.Params(draws=2, proj_dim=8, damping=damping))
        state = method.fit(view)
        passes.append(view.passes.forward)
        scores.append(tiny.joined(method.attribute(view, state, view.problem.queries)))
    assert passes == [2 * 14, 0, 0]
    assert torch.equal(scores[0], scores[2]) and not torch.allclose(scores[0], scores[1])
