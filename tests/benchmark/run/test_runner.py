"""The runner: every way a cell can end is a row, nothing is done twice, and a kill at any moment costs a slice."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest

from tdabench.benchmark.run.plan import Options, checked_options
from tdabench.benchmark.run.results import Results
from tdabench.benchmark.run.runner import Runner
from tdabench.datasets.truth import Assets, write_assets
from tdabench.leaderboard.rows.row import row_key
from tdabench.methods import Sizes
from tdabench.methods.registry import Entry, listings

from ... import run_helpers
from ...run_helpers import N, Q, assets, plan, plugin, record_of, run_cells, run_here, running, survivors

tiny_home, home, tdabench = run_helpers.tiny_home, run_helpers.home, run_helpers.tdabench

IN_TREE = [name for name, listing in listings().items() if not listing.members]
MEMORY = 3 * 2**30

# How an adapter misbehaves, and what its row says: status and a part of the reason.
BAD = {
    "allocates": ("hoard = []\nwhile True: hoard.append(torch.empty(2**26))", "oom", "RuntimeError: .*allocate memory"),
    "hoards": ("hoard = []\nwhile True: hoard.append(bytearray(2**26))", "oom", "MemoryError"),
    "segfaults": ("os.kill(os.getpid(), signal.SIGSEGV)", "error", "SIGSEGV"),
    "vanishes": ("os._exit(0)", "error", "code 0 and no result"),
    "exits": ("print('farewell')\nsys.exit(3)", "error", "SystemExit: 3"),
    "raises": ("print('farewell')\nraise KeyError('[/red] no such layer')", "error", "KeyError: .*no such layer"),
    "obeyed": ("print('a\\rb\\x1b[2J')\nraise ValueError('\\ud800\\x1b[31m')", "error", "ValueError: \ufffd\ufffd"),
    "nan": ("scores[1, 7] = float('nan')", "partial", "1 "),
    "narrow": ("scores = scores[:, 1:]", "error", re.escape(f"({Q}, {N - 1})")),
    "transposed": ("scores = scores.T", "error", re.escape(f"({N}, {Q})")),
    "double": ("scores = scores.double()", "error", "float64 where float32"),
    "gap": ("return [(slice(0, 40), scores[:, :40])]", "error", "20 items never"),
    "overlap": ("return [(slice(0, 40), scores[:, :40]), (slice(30, 60), scores[:, 30:])]", "error", "10 twice"),
    "nothing": ("return None", "error", "NoneType"),
}
GOOD = {
    "whole": "pass",
    "blocks": "return ((part, scores[:, part]) for part in (slice(40, 60), slice(0, 25), slice(25, 40)))",
}
WITH_PARAMS = "Params = make_dataclass('Params', [('k', int)], frozen=True)\n    presets = {'quick': Params(1)}"
MEAN = "scores = torch.stack([read(queries.ids) for read in view.stored_scores.values()]).mean(0)"


@pytest.fixture(autouse=True)
def _own_home(home):
    """Every test here runs on the tiny truth."""


@pytest.fixture(scope="module")
def outcomes(tiny_home, tmp_path_factory):
    """One run of every adapter above: (folder, rows by method)."""
    folder = tmp_path_factory.mktemp("bad")
    codes = GOOD | {name: code for name, (code, _, _) in BAD.items()}
    files = [plugin(folder, name, code) for name, code in codes.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDABENCH_HOME", str(tiny_home))
        return folder / "results", run_cells(folder / "results", list(codes), files, memory_bytes=MEMORY)


run_open = partial(run_cells, isolated=False)  # methods that leave marks where none may write


def calls(log):
    """Return the first query ids of the ``attribute`` calls that were noted."""
    return log.read_text().split() if log.exists() else []


def noted(log):
    """Return a line of an adapter that notes its call."""
    return f"print(queries.ids[0], file=open({str(log)!r}, 'a'), flush=True)"


def spawning(pid):
    """Return lines that start a child and note its process id."""
    return f"child = subprocess.Popen(['sleep', '600'])\nPath({str(pid)!r}).write_text(str(child.pid))\n"


def ended(pid):
    """Say whether a process ends within a second."""
    return not running(pid) or not survivors([psutil.Process(pid)], within=1)


def computed(row):
    return row.metrics, row.source.scores_sha256


# outcomes


@pytest.mark.parametrize("name", BAD)
def test_a_bad_adapter_ends_as_the_right_row(name, outcomes):
    row, (_, status, reason) = outcomes[1][name], BAD[name]
    assert row.status == status
    assert re.search(reason, row.reason), row.reason


@pytest.mark.parametrize("name", GOOD)
def test_the_others_are_not_harmed(name, outcomes):
    assert outcomes[1][name].status == "ok" and outcomes[1][name].reason is None


def test_blocks_in_any_order_are_the_matrix(outcomes):
    rows = outcomes[1]
    assert rows["blocks"].source.scores_sha256 == rows["whole"].source.scores_sha256


@pytest.mark.parametrize("name", ["raises", "exits"])
def test_a_failures_row_holds_the_end_of_its_log(name, outcomes):
    tail = outcomes[1][name].log_tail
    assert tail.startswith("farewell") and "Traceback" in tail


def test_a_query_with_nan_is_counted_and_the_others_keep_their_lds(outcomes):
    lds = outcomes[1]["nan"].metrics.lds
    assert {kind: result.n_nan for kind, result in lds.items()} == {"generated": 0, "heldout": 1}
    assert [value is None for value in lds["heldout"].values] == [False, True, False]


def test_failures_store_no_scores(outcomes):
    folder, rows = outcomes
    for name in ("narrow", "double", "gap", "overlap", "raises"):
        assert record_of(folder, rows[name]).parts() == []
        assert rows[name].metrics is None and rows[name].cost is None


def test_rows_of_all_outcomes_are_read_back(outcomes):
    folder, rows = outcomes
    assert {row.key.method: row for row in Results(folder).all_rows("digits-tiny")} == rows


def test_a_cell_that_hangs_is_killed_at_its_limit_with_all_it_started(outcomes, tmp_path):
    pid = tmp_path / "pid"
    lines = (
        f"child = subprocess.Popen(['sleep', '600'])\nPath({str(pid)!r}).write_text(str(child.pid))\ntime.sleep(600)"
    )
    limit = max(2.0, 3 * outcomes[1]["whole"].cost.wall_s)
    cells = plan(["hangs"], [plugin(tmp_path, "hangs", lines)])
    runner, start = Runner(Results(tmp_path / "results"), Options(timeout_s=limit, isolated=False)), time.monotonic()
    [row] = runner.run(cells)
    took = time.monotonic() - start
    assert row.status == "timeout" and f"{limit:g} s" in row.reason
    assert limit <= took < limit + 1.5
    assert ended(int(pid.read_text()))


def test_what_a_failed_cell_started_ends_with_it(tmp_path):
    pid = tmp_path / "pid"
    lines = (
        f"child = subprocess.Popen(['sleep', '600'])\nPath({str(pid)!r}).write_text(str(child.pid))\nraise ValueError"
    )
    assert run_open(tmp_path / "results", ["starts"], [plugin(tmp_path, "starts", lines)])["starts"].status == "error"
    assert ended(int(pid.read_text()))


def test_an_interrupted_run_kills_its_cells(tmp_path):
    pid = tmp_path / "pid"
    path = plugin(tmp_path, "waits", f"Path({str(pid)!r}).write_text(str(os.getpid()))\ntime.sleep(600)")
    runner = Runner(Results(tmp_path / "results"), Options(isolated=False))

    def poll():
        if pid.exists() and pid.read_text():
            raise KeyboardInterrupt
        time.sleep(0.05)
        return []

    runner._poll = poll
    with pytest.raises(KeyboardInterrupt):
        runner.run(plan(["waits"], [path]))
    assert ended(int(pid.read_text()))


# diagnostics


def test_what_fit_notes_is_kept_and_nothing_overwrites_the_runners_own_facts(tmp_path):
    note = "self.diagnostics.update(rank=3, identity='mine', losses={'start': 1.0})"
    path = plugin(tmp_path, "noting", "self.diagnostics['losses'] = {'end': 2.0}", fit=note, slice_size=2)
    row = run_cells(tmp_path / "results", ["noting"], [path])["noting"]
    assert row.diagnostics["rank"] == 3 and row.diagnostics["losses"] == {"start": 1.0, "end": 2.0}
    assert row.diagnostics["method-identity"] == "mine"
    assert row.diagnostics["identity"] == plan(["noting"], [path])[0].identity


def test_what_fit_noted_is_kept_where_attribute_fails(tmp_path):
    path = plugin(tmp_path, "half", "raise ValueError('no')", fit="self.diagnostics['rank'] = 3")
    row = run_cells(tmp_path / "results", ["half"], [path])["half"]
    line = path.read_text().splitlines().index("        raise ValueError('no')") + 1
    assert row.reason == f"ValueError: no (half.py:{line})" and row.diagnostics["rank"] == 3


# the open truth


LEARNS = """
truth = view.open_truth
assert truth.masks.shape == (6, 60) and truth.losses.shape == (6, len(truth.queries)) == (6, 4)
assert set(truth.queries.roles) == {"dev"} and set(truth.queries.source) == {-1}
self.diagnostics["losses"] = truth.losses.tolist()
"""


def test_a_method_that_learns_is_handed_the_open_truth_and_no_other(tmp_path):
    path = plugin(tmp_path, "learns", fit=LEARNS, needs=("open-truth",))
    row = run_cells(tmp_path / "results", ["learns"], [path])["learns"]
    assert (row.status, row.reason) == ("ok", None)
    truth, manifest = assets().truth("open"), assets().manifest
    dev = tuple(query["id"] for query in manifest["queries"] if query["role"] == "dev")
    assert row.diagnostics["losses"] == truth.target(dev).astype("float32").tolist()


def test_a_method_that_does_not_ask_gets_no_truth_nor_where_queries_came_from(tmp_path):
    nameless = "assert set(queries.source) == {-1}"
    path = plugin(tmp_path, "modest", nameless, fit="assert view.open_truth is None")
    assert run_cells(tmp_path / "results", ["modest"], [path])["modest"].status == "ok"


def test_a_method_is_not_scored_on_what_it_learns_from(tmp_path):
    path = plugin(tmp_path, "eager", fit=LEARNS, needs=("open-truth",))
    here = run_helpers.session(tmp_path / "results", [path])
    (row,) = here.runner.run(here.planner.cells([Entry("eager", "quick")], "dev"))
    assert row.status == "skipped" and "scores there would say nothing" in row.reason


# exit codes


@pytest.fixture
def quick_start(monkeypatch):
    """Leave out the calibration."""
    run_helpers.uncalibrated(monkeypatch)


def test_exit_code_is_0_when_all_is_well_or_skipped(tmp_path, tdabench, quick_start):
    path = plugin(tmp_path, "labelled", needs=("cond",))
    answer = tdabench(
        "run", "digits-tiny", "--methods", "random,labelled", "--plugin", path, "--results", tmp_path / "results"
    )
    assert answer.code == 0, answer
    rows = {row.key.method: row for row in Results(tmp_path / "results").all_rows()}
    assert rows["random"].status == "ok"
    assert rows["labelled"].status == "skipped" and "a conditional model" in rows["labelled"].reason
    assert str(tmp_path / "results") in answer.out.replace("\n", "")


def test_exit_code_is_1_after_a_failure_which_is_shown_and_stops_nobody(tmp_path, tdabench, quick_start):
    path = plugin(tmp_path, "broken", BAD["raises"][0])
    answer = tdabench(
        "run", "digits-tiny", "--methods", "broken,random", "--plugin", path, "--results", tmp_path / "results"
    )
    assert answer.code == 1, answer
    assert {row.key.method: row.status for row in Results(tmp_path / "results").all_rows()} == {
        "broken": "error",
        "random": "ok",
    }
    assert "[/red] no such layer" in answer.out


# costs


def test_every_method_in_the_tree_runs_and_the_ensemble_costs_what_its_members_cost(tmp_path):
    rows = run_cells(tmp_path, sorted(listings()))
    assert {name: (row.status, row.reason) for name, row in rows.items()} == dict.fromkeys(rows, ("ok", None))
    gradients = rows["d-trak"].cost
    assert gradients.forward_passes == gradients.backward_passes == {"fit": 4 * N, "attribute": 4 * Q}
    members = [rows[name].cost for name in ("grad-sim", "d-trak", "trak", "mucs")]
    record, cost = record_of(tmp_path, rows["ensemble"]), rows["ensemble"].cost
    own = record.read("fit")["fit"]["seconds"]
    assert cost.fit_s == pytest.approx(own + sum(member.fit_s for member in members))
    own = sum(record.costs(part)["attribute"]["seconds"] for part in record.parts()) / Q
    assert cost.seconds_per_query == pytest.approx(own + sum(member.seconds_per_query for member in members))
    for phase in ("fit", "attribute"):
        assert cost.forward_passes[phase] == sum(member.forward_passes[phase] for member in members)
        assert cost.backward_passes[phase] == sum(member.backward_passes[phase] for member in members)


@pytest.mark.parametrize("name", IN_TREE)
def test_estimate_is_what_is_measured(name, tmp_path):
    [planned] = plan([name])
    if name == "mucs":  # a tolerance that is never met: all steps are made, here a few
        params = replace(planned.params, tolerance=-9.0, max_steps=4)
        [planned] = plan([name], params={name: params})
    expected = planned.cls(planned.params).estimate(Sizes(N, Q, 10_000, {"weight": 10_000}))
    forward, backward = run_here(tmp_path, planned)
    trained = expected.trained + expected.per_sample
    assert (sum(forward.values()), sum(backward.values())) == (expected.forward + trained, trained)


def test_passes_of_mucs_are_those_of_its_phases(tmp_path):
    [planned] = plan(["mucs"])
    params = replace(planned.params, draws=2, batch=4, max_steps=3, tolerance=-9.0)
    forward, backward = run_here(tmp_path, plan(["mucs"], params={"mucs": params})[0])
    assert forward == {"fit": 2 * N + N, "attribute": Q * (2 * N + 3 * 2 * 4)}
    assert backward == {"fit": 0, "attribute": Q * 3 * 2 * 4}


# ensembles


def ensemble(folder, members, **changes):
    return plugin(folder, "mean", MEAN, needs=("stored-scores",), members=members, **changes)


def test_an_ensemble_is_skipped_when_a_member_failed_and_runs_once_it_is_mended(tmp_path):
    broken = plugin(tmp_path, "part", "raise ValueError('no luck')")
    files = [broken, ensemble(tmp_path, ("random", "part"))]
    names, folder = ["mean", "random", "part"], tmp_path / "results"
    row = run_cells(folder, names, files)["mean"]
    assert row.status == "skipped"
    assert "part:quick" in row.reason and "no luck" in row.reason
    plugin(tmp_path, "part")
    assert run_cells(folder, names, files)["mean"].status == "ok"


def test_an_ensemble_without_its_members_rows_is_skipped_until_they_are_there(tmp_path):
    files, folder = [ensemble(tmp_path, ("random", "pixel"))], tmp_path / "results"
    row = run_cells(folder, ["mean"], files)["mean"]
    assert row.status == "skipped" and "run it too" in row.reason
    assert run_cells(folder, ["mean"], files)["mean"] == row
    assert run_cells(folder, ["mean", "random", "pixel"], files)["mean"].status == "ok"


def test_an_ensemble_is_stale_when_a_member_is(tmp_path):
    files, folder = [plugin(tmp_path, "part"), ensemble(tmp_path, ("part",))], tmp_path / "results"
    first = run_cells(folder, ["part", "mean"], files)
    plugin(tmp_path, "part", "scores = -scores")
    alone = run_cells(folder, ["mean"], files)["mean"]
    assert alone.status == "skipped" and "part:quick" in alone.reason
    second = run_cells(folder, ["part", "mean"], files)
    assert second["mean"].status == "ok"
    assert second["mean"].source.scores_sha256 != first["mean"].source.scores_sha256


# what is done again, and what is not


def test_a_second_run_does_nothing(tmp_path):
    log, folder = tmp_path / "log", tmp_path / "results"
    path = plugin(tmp_path, "notes", noted(log))
    first = run_open(folder, ["notes"], [path])["notes"]
    file = folder / "rows" / row_key(first.key)
    written = file.stat().st_mtime_ns
    assert run_open(folder, ["notes"], [path])["notes"] == first
    assert run_open(folder, ["notes"], [path], retry=True, timeout_s=99.0)["notes"] == first
    assert len(calls(log)) == 1 and file.stat().st_mtime_ns == written


@pytest.mark.parametrize("change", ["source", "version", "force", "params"])
def test_what_decides_the_scores_makes_a_cell_run_again(change, tmp_path):
    log, folder = tmp_path / "log", tmp_path / "results"
    path = plugin(tmp_path, "notes", noted(log), body=WITH_PARAMS)
    run_open(folder, ["notes"], [path])
    if change == "source":
        path.write_text(path.read_text() + "# a comment\n")
    if change == "version":
        path.write_text(path.read_text().replace("version = 1", "version = 2"))
    if change == "params":
        path.write_text(path.read_text().replace("Params(1)", "Params(2)"))
    row = run_open(folder, ["notes"], [path], force=change == "force")["notes"]
    assert row.status == "ok" and len(calls(log)) == 2
    assert len(list((folder / "rows").rglob("*.json"))) == (2 if change in ("version", "params") else 1)


def test_a_failed_cell_runs_again_when_asked_or_under_other_limits_only(tmp_path):
    log, folder = tmp_path / "log", tmp_path / "results"
    path = plugin(tmp_path, "fails", noted(log) + "\nraise ValueError('no luck')")
    counts = []
    for options in ({}, {}, {"retry": True}, {"timeout_s": 99.0}, {"timeout_s": 99.0}, {"memory_bytes": MEMORY}):
        assert run_open(folder, ["fails"], [path], **options)["fails"].status == "error"
        counts.append(len(calls(log)))
    assert counts == [1, 1, 2, 3, 3, 4]


def test_free_memory_that_comes_and_goes_is_no_other_limit(tmp_path, tdabench, quick_start):
    log, folder = tmp_path / "log", tmp_path / "results"
    path = plugin(tmp_path, "fails", noted(log) + "\nraise ValueError('no luck')")
    for _ in range(2):
        words = ["run", "digits-tiny", "--methods", "fails", "--plugin", path, "--no-isolation", "--results", folder]
        answer = tdabench(*words)
        assert answer.code == 1, answer
    assert len(calls(log)) == 1
    assert "nothing to run" in answer.out


@pytest.mark.parametrize("status", ["ok", "partial"])
def test_another_truth_of_the_same_problem_scores_again_without_running(status, tmp_path, monkeypatch):
    log, folder = tmp_path / "log", tmp_path / "results"
    path = plugin(tmp_path, "notes", noted(log) + ("\nscores[1, 7] = float('nan')" if status == "partial" else ""))
    first = run_open(folder, ["notes"], [path])["notes"]
    old = run_helpers.assets()
    files = {name: old.arrays(name) for name in old.manifest["files"]}
    for replicate in range(2):
        files[f"truth-report-{replicate}.safetensors"]["outputs"] *= -1
    write_assets(tmp_path / "home" / "truth" / "digits-tiny@1", files.items(), old.manifest)
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "home"))
    second = run_open(folder, ["notes"], [path])["notes"]
    assert len(calls(log)) == 1 and second.status == first.status == status
    assert second.source.scores_sha256 == first.source.scores_sha256
    assert second.metrics.lds["heldout"].mean == pytest.approx(-first.metrics.lds["heldout"].mean)
    assert second.source.truth_sha256 == Assets(tmp_path / "home" / "truth" / "digits-tiny@1").sha256


def test_another_truth_without_the_old_scores_runs_again(tmp_path, monkeypatch):
    log, folder = tmp_path / "log", tmp_path / "results"
    path = plugin(tmp_path, "notes", noted(log))
    first = run_open(folder, ["notes"], [path])["notes"]
    shutil.rmtree(folder / "cells")
    old = run_helpers.assets()
    files = {name: old.arrays(name) for name in old.manifest["files"]}
    files["truth-open-0.safetensors"]["outputs"] += 1
    write_assets(tmp_path / "home" / "truth" / "digits-tiny@1", files.items(), old.manifest)
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "home"))
    assert computed(run_open(folder, ["notes"], [path])["notes"]) == computed(first)
    assert len(calls(log)) == 2


def test_a_killed_cell_goes_on_after_its_last_slice_and_ends_with_the_same_bits(tmp_path):
    log, mark = tmp_path / "log", tmp_path / "mark"
    once = f"if queries.ids[0] == 'heldout-test-001' and not Path({str(mark)!r}).exists():\n"
    once += f"    Path({str(mark)!r}).touch(); os.kill(os.getpid(), signal.SIGKILL)"
    path = plugin(tmp_path, "dies", f"{noted(log)}\n{once}", slice_size=1)
    first = run_open(tmp_path / "killed", ["dies"], [path])["dies"]
    assert first.status == "error" and "SIGKILL" in first.reason
    assert calls(log) == ["heldout-test-000", "heldout-test-001"]
    second = run_open(tmp_path / "killed", ["dies"], [path], retry=True)["dies"]
    assert calls(log).count("heldout-test-000") == 1 and len(calls(log)) == Q + 1
    whole = run_open(tmp_path / "whole", ["dies"], [path])["dies"]
    assert (second.status, whole.status) == ("ok", "ok")
    assert (second.cost.resumed, whole.cost.resumed) == (True, False)
    assert computed(second) == computed(whole)
    assert len(second.cost.attribute_s) == Q


def test_a_row_that_was_lost_costs_no_attribution(tmp_path):
    log, folder = tmp_path / "log", tmp_path / "results"
    path = plugin(tmp_path, "notes", noted(log))
    first = run_open(folder, ["notes"], [path])["notes"]
    shutil.rmtree(folder / "rows")
    assert computed(run_open(folder, ["notes"], [path])["notes"]) == computed(first)
    assert len(calls(log)) == 1


# kill -9 of whole commands


def start(home, folder, *words):
    """Start a command on its own."""
    folder.mkdir(exist_ok=True)
    with (folder / "output").open("a") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "tdabench.benchmark.commands.cli", *map(str, words)],
            env=run_helpers.environment(home),
            stdout=output,
            stderr=output,
        )


def wait_until(condition, process, seconds=300.0):
    """Wait for something to happen while a command is running."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the command ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.02)


def kill(process):
    """Kill a command and return the processes that it leaves; a fork server needs a second to unload torch."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    return family


def slices(folder, method):
    return list((folder / "cells").glob(f"digits-tiny@1/{method}@1/*/*/*/slice-*.json"))


def test_a_run_killed_in_the_middle_goes_on_to_the_same_rows(home, tmp_path, monkeypatch):
    log, folder, temporary = tmp_path / "log", tmp_path / "killed", Path(tempfile.mkdtemp(prefix="killed-"))
    monkeypatch.setenv("TMPDIR", str(temporary))
    path = plugin(tmp_path, "slow", noted(log) + "\ntime.sleep(0.5)", slice_size=1)
    names = ["slow", "mucs"]
    words = ["run", "digits-tiny", "--methods", ",".join(names), "--plugin", path, "--results", folder]
    words += ["--jobs", 2, "--no-isolation"]
    process = start(home, folder, *words)
    wait_until(lambda: len(slices(folder, "slow")) >= 2, process)
    family = kill(process)
    assert not survivors(family, within=10) and not list(temporary.iterdir())
    temporary.rmdir()
    monkeypatch.delenv("TMPDIR")
    half = set(folder.rglob("*.part"))  # of what was being written just then, if anything was
    before = calls(log)
    assert 2 <= len(before) < Q
    assert start(home, folder, *words).wait() == 0, (folder / "output").read_text()
    assert len(calls(log)) <= Q + 1 and calls(log).count("heldout-test-000") == 1
    threads = checked_options("cpu", 2).threads
    undisturbed = run_open(tmp_path / "whole", names, [path], threads=threads)
    rows = {row.key.method: row for row in Results(folder).all_rows()}
    assert {name: computed(rows[name]) for name in names} == {name: computed(undisturbed[name]) for name in names}
    assert set(folder.rglob("*.part")) <= half and len(half) <= 2


def test_a_build_killed_in_the_middle_goes_on_to_the_same_truth(home, tmp_path):
    own = tmp_path / "home"
    for part in ("base", "measured", "models"):
        shutil.copytree(home / part, own / part, ignore=shutil.ignore_patterns("digits-tiny-*"))  # other tasks' truths
    for path in list((own / "measured").rglob("report-*-seed2.safetensors"))[:6]:
        path.unlink()
    for path in list((own / "models").rglob("seed2-*.safetensors")):
        path.unlink()
    there = set((own / "measured").rglob("*.safetensors"))
    process = start(own, tmp_path / "log", "truth", "build", "digits-tiny", "--workers", 1)
    wait_until(lambda: len(set((own / "measured").rglob("[!.]*.safetensors")) - there) >= 2, process)
    family = kill(process)
    assert not survivors(family, within=10)
    done = {path: path.stat().st_mtime_ns for path in own.rglob("[!.]*.safetensors")}
    assert len(there) + 2 <= len(set((own / "measured").rglob("[!.]*.safetensors"))) < 28
    again = start(own, tmp_path / "log", "truth", "build", "digits-tiny", "--workers", 1)
    assert again.wait() == 0, (tmp_path / "log" / "output").read_text()
    built, expected = (json.loads((folder / "truth/digits-tiny@1/manifest.json").read_text()) for folder in (own, home))
    assert built["files"] == expected["files"]
    assert {path: path.stat().st_mtime_ns for path in done} == done
