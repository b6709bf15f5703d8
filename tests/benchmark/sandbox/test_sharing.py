"""Rows of the training set that several devices share: the same bits and costs as of one; failures are told."""

from __future__ import annotations

import pytest

from tdabench.benchmark.run.results import Results
from tdabench.benchmark.sandbox.sharing import ShareFailed, run_helpers

from ... import run_helpers as helpers
from ...run_helpers import N, plugin, record_of, run_cells

tiny_home, home = helpers.tiny_home, helpers.home

SIZE, BLOCKS, DRAWS = 16, 4, 2
FIT = """
import os, signal, sys
import tdabench.methods.rows as rows
from tdabench.methods.engines.features import per_sample_gradients
rows.BLOCK_ITEMS = 16
model, draws = view.model(), view.draws(2, __import__("tdabench").methods.Law("even"))
def compute(batch):
    {first}
    return per_sample_gradients(model, batch, draws, "loss")[:, :32]
self.found = view.kept("gradients", compute, (32,), {{}}, size=16)
self.diagnostics["process"] = os.getpid()
"""
SCORE = "scores = self.found.whole().sum(1).expand(len(queries), -1).contiguous()"
IN_HELPER = "if view.keeper.share and 32 in batch.ids: "


@pytest.fixture(autouse=True)
def _own_home(home):
    """Every test here runs on the tiny truth."""


def run(folder, tmp_path, first="pass", devices=("cpu", "cpu"), **options):
    path = plugin(tmp_path, "shared", fit=FIT.format(first=first), attribute=SCORE)
    return run_cells(folder, ["shared"], [path], devices=devices, **options)["shared"]


def blocks(folder):
    return sorted(path.name for path in Results(folder).kept.rglob("block-*.json"))


def test_two_devices_give_the_bits_and_the_cost_of_one(tmp_path):
    one = run(tmp_path / "one", tmp_path, devices=())
    two = run(tmp_path / "two", tmp_path)
    assert (one.status, two.status, two.reason) == ("ok", "ok", None)
    assert one.source.scores_sha256 == two.source.scores_sha256
    assert "kept" not in one.diagnostics
    (note,) = two.diagnostics["kept"]
    assert (note["devices"], note["blocks"], note["reused"]) == (["cpu", "cpu"], BLOCKS, 0)
    assert two.cost.forward_passes == one.cost.forward_passes and one.cost.forward_passes["fit"] == N * DRAWS
    assert two.cost.backward_passes == one.cost.backward_passes
    spent = [Results(tmp_path / "two").store.get_json(key)["costs"]["seconds"] for key in keys(tmp_path / "two")]
    assert sum(spent) < two.cost.fit_s < sum(spent) + note["wall_s"]  # the sum over devices, waiting left out


def keys(folder):
    return [key for key in Results(folder).store.keys("kept") if key.endswith(".json")]


def test_a_later_cell_takes_over_what_helpers_made(tmp_path):
    first = run(tmp_path / "r", tmp_path)
    for path in (tmp_path / "r" / "rows").rglob("*.json"):
        path.unlink()
    record_of(tmp_path / "r", first).clear()
    again = run(tmp_path / "r", tmp_path)
    (note,) = again.diagnostics["kept"]
    assert note["reused"] == BLOCKS and "devices" not in note
    assert again.source.scores_sha256 == first.source.scores_sha256


@pytest.mark.slow
@pytest.mark.parametrize(
    ("death", "status", "reason"),
    [
        ("raise ValueError('no such level')", "error", "ShareFailed: cpu: ValueError: no such level (shared.py:"),
        ("raise MemoryError('out of memory')", "oom", "MemoryError: cpu ran out of memory: MemoryError: out of memory"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "oom", "MemoryError: cpu ran out of memory: ended by signal 9"),
        ("os._exit(3)", "error", "ShareFailed: cpu: ended with code 3 and no result"),
    ],
)
def test_a_failure_of_a_helper_is_the_cells_and_what_was_made_stays(tmp_path, death, status, reason):
    first = f"{IN_HELPER}{death}"
    row = run(tmp_path / "r", tmp_path, first)
    assert row.status == status and row.reason.startswith(reason)
    assert "block-00000032-00000048.json" not in blocks(tmp_path / "r")
    assert not list((tmp_path / "r").rglob("helpers"))


def test_a_kill_of_all_leaves_whole_blocks_from_which_it_goes_on(tmp_path):
    mark = tmp_path / "died"
    death = f"open({str(mark)!r}, 'x').close() or os.killpg(0, signal.SIGKILL)"
    first = f"if view.keeper.share and 48 in batch.ids and not os.path.exists({str(mark)!r}): {death}"
    row = run(tmp_path / "r", tmp_path, first)
    before = blocks(tmp_path / "r")
    assert row.status == "error" and 0 < len(before) < BLOCKS
    again = run_cells(tmp_path / "r", ["shared"], [tmp_path / "shared.py"], devices=("cpu", "cpu"), retry=True)[
        "shared"
    ]
    alone = run(tmp_path / "alone", tmp_path, first, devices=())
    (note,) = again.diagnostics["kept"]
    assert again.status == "ok" and note["reused"] == len(before)
    assert again.source.scores_sha256 == alone.source.scores_sha256


def test_a_helper_that_cannot_start_is_named(tmp_path):
    with pytest.raises(ShareFailed, match="cuda:7: ended with code 1 and no result"):
        run_helpers({tmp_path: "cuda:7"}, lambda: None)
