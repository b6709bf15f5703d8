"""Forecasts: passes at measured rates, with what a cell and a run need before their first pass."""

from __future__ import annotations

from multiprocessing import forkserver

import pytest

from tdabench.benchmark.commands import session as commands
from tdabench.benchmark.commands.terminal import total
from tdabench.benchmark.run import forecast as module
from tdabench.benchmark.run.forecast import Rates, calibrate, forecast, start_up
from tdabench.methods import Estimate
from tdabench.models.problem import read_problem

from ... import run_helpers
from ...run_helpers import assets, plan

home, tiny_home = run_helpers.home, run_helpers.tiny_home


def test_a_cell_takes_its_set_up_and_its_passes():
    rates = Rates(forward=1.0, trained=10.0, per_sample=100.0, setup=0.5)
    assert rates.seconds(Estimate(forward=2, trained=3, per_sample=4)) == 432.5


def test_the_set_up_is_that_of_reading_the_problem(home, monkeypatch):
    ticks = iter([0.0, 7.0])
    monkeypatch.setattr(module, "_time", lambda work, device, repeats: 1.28)
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(ticks))
    assert calibrate(assets().folder, "cpu")[1] == Rates(0.01, 0.01, 0.01, setup=7.0)


def test_even_a_cell_without_passes_takes_time(home):
    (found,) = forecast(plan(["random"]), read_problem(assets().folder), Rates(1.0, 1.0, 1.0, setup=0.5))
    assert found.seconds == 0.5


@pytest.mark.parametrize(("dry_run", "said"), [(False, "about 50 s with starting"), (True, "about 30 s once started")])
def test_what_is_announced_holds_imports_and_set_up(dry_run, said, home, tmp_path, monkeypatch, capsys):
    rates, started = Rates(0.0, 0.0, 0.0, setup=30.0), []
    monkeypatch.setattr(commands, "calibrate", lambda folder, *_: (read_problem(folder), rates))
    monkeypatch.setattr(commands, "start_up", lambda: started.append(1) or 20.0)
    run_helpers.session(tmp_path / "results", jobs=2).run(plan(["random", "pixel"]), dry_run)
    assert f"2 of 2 cells to run, 2 at a time, {said}" in capsys.readouterr().out
    assert len(started) == (not dry_run)


def test_cells_of_unknown_time_are_counted_beside_the_others():
    assert total([30.0, None, 50.0], jobs=2, started=2.0) == "about 42 s without 1 of which no time is known,"
    assert total([30.0, 50.0]) == "about 80 s"


def test_starting_up_leaves_the_server_for_the_cells():
    start_up()
    server = forkserver._forkserver._forkserver_pid
    assert server is not None
    start_up()
    assert forkserver._forkserver._forkserver_pid == server


@pytest.mark.parametrize("names", [["random"], ["random", "pixel"]])
def test_nothing_is_started_where_nothing_is_due(names, home, tmp_path, monkeypatch):
    run_helpers.run_cells(tmp_path / "results", names)
    monkeypatch.setattr(commands, "start_up", None)
    monkeypatch.setattr(commands, "calibrate", None)
    assert len(run_helpers.session(tmp_path / "results").run(plan(names))) == len(names)
