"""`tdabench run --metrics removal` on `digits-tiny`: what it trains, shares, stores and says."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from tdabench.benchmark.metrics.removal.protocol import protocol_of
from tdabench.benchmark.run.results import Results
from tdabench.benchmark.tasks.find import find_task
from tdabench.benchmark.truth.counterfactuals import Counterfactual, Laboratory
from tdabench.errors import CorruptFile
from tdabench.leaderboard.rows.removal import Removal
from tdabench.leaderboard.rows.row import Row
from tdabench.models.problem import read_problem
from tdabench.models.sampling import sample
from tdabench.models.training import train
from tdabench.store import FolderStore

from ... import run_helpers
from ...run_helpers import TASK, Answer, assets, environment, plugin, survivors

tiny_home = run_helpers.tiny_home
tdabench = run_helpers.tdabench
ENTRIES = "pixel:quick,pixel:distance,random:quick"
SEEDS, CURVE, ALONE = 2, 8, 4  # retrainings of a set, of the random curve, and of single queries of one entry


@pytest.fixture(scope="module")
def own_home(tiny_home: Path, tmp_path_factory) -> Path:
    """A TDABENCH_HOME of this file, with a copy of the task's truth."""
    folder = tmp_path_factory.mktemp("removal-home")
    shutil.copytree(tiny_home / "truth", folder / "truth")
    return folder


@pytest.fixture
def home(own_home: Path, monkeypatch) -> Path:
    torch.set_num_threads(1)
    monkeypatch.setenv("TDABENCH_HOME", str(own_home))
    return own_home


@pytest.fixture
def measured(home: Path, tmp_path_factory, tdabench) -> tuple[Path, Answer]:
    """A folder with the removal of three entries; only the first test that asks for it trains."""
    folder = tmp_path_factory.getbasetemp() / "removal-results"
    return folder, tdabench("run", TASK, "--methods", ENTRIES, "--metrics", "removal", "--results", folder)


def rows_of(folder: Path) -> dict[str, Row]:
    return {f"{row.key.method}:{row.key.preset}": row for row in Results(folder).all_rows()}


def outcomes(home: Path) -> set[Path]:
    return set((home / "counterfactual").rglob("*.safetensors"))


def scripted(path: Path, seed: int) -> Path:
    """Write something like an SSCD: a TorchScript that makes vectors of images."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 80, stride=80), torch.nn.Flatten()).eval()
    path.parent.mkdir()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*deprecated", category=DeprecationWarning)
        torch.jit.trace(model, torch.zeros(1, 3, 320, 320)).save(str(path))
    return path


def laboratory(home: Path) -> Laboratory:
    return Laboratory(assets(), FolderStore(home))


def test_dry_runs_say_what_they_would_train_and_train_nothing(home: Path, tmp_path, tdabench) -> None:
    before = outcomes(home)
    words = "run", TASK, "--methods", ENTRIES, "--results", tmp_path
    answer = tdabench(*words, "--metrics", "removal", "--dry-run")
    assert answer.code == 0 and "3 of 3 cells to run" in answer.out
    assert "about" in answer.out and outcomes(home) == before
    assert not list((tmp_path / "rows").rglob("*.json"))


def test_a_budget_caps_the_retrainings_and_the_next_run_goes_on(home: Path, tmp_path, tdabench) -> None:
    before = len(outcomes(home))
    words = "run", TASK, "--methods", "random:quick", "--metrics", "union", "--results", tmp_path
    first = tdabench(*words, "--budget", 3)
    assert first.code == 0 and len(outcomes(home)) == before + 3
    assert "removal waits for" in first.out
    assert rows_of(tmp_path)["random:quick"].metrics.removal is None
    second = tdabench(*words)
    assert f"{SEEDS + CURVE + SEEDS - 3} to train" in " ".join(second.out.split())
    assert rows_of(tmp_path)["random:quick"].metrics.removal is not None


def test_every_entry_gets_its_removal_and_equal_sets_are_trained_once(measured, home: Path) -> None:
    folder, answer = measured
    rows = rows_of(folder)
    assert answer.code == 0 and set(rows) == set(ENTRIES.split(","))
    quick, distance = (rows[f"pixel:{name}"].metrics.removal for name in ("quick", "distance"))
    assert quick.union == distance.union  # the kernel falls with the distance
    assert re.search(rf"pixel:distance union +\S +{SEEDS} +\S +{SEEDS} ", answer.out)
    for row in rows.values():
        top, removal = row.metrics.top, row.metrics.removal
        targets = [ids for query, ids in zip(top.query_ids, top.ids, strict=True) if query in removal.union.target_ids]
        assert removal.union.size == len({item for ids in targets for item in ids})
        assert removal.union.seeds == [1, 2] and removal.top_k == top.k == 6
        assert set(removal.union.similarities) == {"ssim", "cosine", "l2", "loss"}
        assert set(removal.skipped) == {"clip", "dino", "sscd", "lpips"}
        assert removal.per_query.sizes == [6, 18] and len(removal.per_query.query_ids) == 2
    assert rows["pixel:quick"].metrics.removal.union.similarities["l2"].circular
    assert not rows["random:quick"].metrics.removal.union.similarities["l2"].circular


def test_a_second_run_trains_nothing_and_changes_no_row(measured, home: Path, tdabench) -> None:
    folder, _ = measured
    before, stored = rows_of(folder), outcomes(home)
    answer = tdabench("run", TASK, "--methods", ENTRIES, "--metrics", "removal", "--results", folder)
    assert " 0 to train" in " ".join(answer.out.split())
    assert rows_of(folder) == before and outcomes(home) == stored


def by_sscd(removal: Removal) -> dict[str, object]:
    parts = {"union": removal.union, "per-query": removal.per_query}
    return {name: part.similarities.get("sscd") for name, part in parts.items()}


def test_other_weights_of_an_encoder_replace_what_the_former_measured(measured, home: Path, tmp_path, tdabench) -> None:
    folder = shutil.copytree(measured[0], tmp_path / "results")
    words = "run", TASK, "--methods", "random:quick", "--results", folder, "--metrics"

    def measure(metrics: str, encoders: str) -> Removal:
        assert tdabench(*words, metrics, "--encoders", encoders).code == 0
        return rows_of(folder)["random:quick"].metrics.removal

    one, other = (f"sscd={scripted(tmp_path / name / 'sscd.pt', seed)}" for seed, name in enumerate("ab"))
    first = measure("removal", one)
    assert list(first.encoders) == ["sscd"] and None not in by_sscd(first).values()
    assert measure("union", "none") == first and measure("union", one) == first
    second = measure("union", other)
    assert second.encoders != first.encoders and by_sscd(second)["union"] != by_sscd(first)["union"]
    assert by_sscd(second)["per-query"] is None, "what the former weights measured is under the latter's hash"
    assert second.per_query.similarities["ssim"] == first.per_query.similarities["ssim"]


def test_what_is_stored_is_a_model_trained_without_the_items(measured, home: Path) -> None:
    """Against the training and sampling code called by hand on what is left."""
    folder, _ = measured
    removal = rows_of(folder)["pixel:quick"].metrics.removal
    task, problem = find_task(TASK), read_problem(assets().folder)
    top = rows_of(folder)["pixel:quick"].metrics.top
    ids = dict(zip(top.query_ids, top.ids, strict=True))
    removed = {item for query in removal.union.target_ids for item in ids[query]}
    kept = torch.tensor([i for i in range(len(problem.train)) if i not in removed])
    targets = problem.queries.where("test", "generated")
    assert targets.ids == tuple(removal.union.target_ids)
    for position, seed in enumerate(removal.union.seeds):
        model, _ = train(task.recipe, problem.train, kept, seed)
        images = sample(model, targets.noise, task.recipe.model)
        expected = -(images - targets.x).flatten(1).norm(dim=1)
        found = removal.union.similarities["l2"].targets.after[position]
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_the_floor_is_the_truths_full_replicates(measured, home: Path) -> None:
    """Both are trained on everything under seeds 1, 2, …: the truth build and the removal metric must agree."""
    (_, full), seeds = assets().regenerated("report"), (1, 2)
    rows = [assets().generated_ids.index(query) for query in protocol_of(find_task(TASK), assets()).targets]
    for position, seed in enumerate(seeds):
        images = laboratory(home).read(Counterfactual((), seed)).images[rows]
        np.testing.assert_allclose(full[position][rows], images, atol=2e-3)


def test_a_damaged_outcome_is_named(measured, home: Path, capsys) -> None:
    lab = laboratory(home)
    one = Counterfactual((), 1)
    path = lab.store.path(lab.key(one))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    try:
        with pytest.raises(CorruptFile, match="was damaged or removed"):
            lab.read(one)
        assert "is damaged: set aside as" in capsys.readouterr().err
    finally:
        lab.store.keep(lab.key(one), whole)


def test_scores_that_are_not_finite_are_no_removal(home: Path, tmp_path, tdabench) -> None:
    path = plugin(tmp_path, "hole", attribute="scores[-1, 3] = float('nan')")
    words = "--methods", "hole", "--plugin", path, "--metrics", "union", "--results", tmp_path / "results"
    answer = tdabench("run", TASK, *words)
    assert "hole:quick: no removal, because 1 targets have no finite scores" in answer.out
    assert rows_of(tmp_path / "results")["hole:quick"].metrics.removal is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--metrics", "remove"), "unknown metric 'remove'"),
        (("--metrics", "removal", "--encoders", "clipp"), "unknown encoder 'clipp'"),
        (("--metrics", "removal", "--budget", "-3"), "--budget"),
    ],
)
def test_mistakes_are_one_line(home: Path, tmp_path, tdabench, words, says) -> None:
    answer = tdabench("run", TASK, "--methods", "random", "--results", tmp_path, *words)
    assert answer.code == 2 and says in answer.err and answer.err.count("\n") == 1


def test_a_killed_run_leaves_no_process_and_goes_on_where_it_was(tiny_home: Path, tmp_path) -> None:
    home = tmp_path / "home"
    shutil.copytree(tiny_home / "truth", home / "truth")
    words = [sys.executable, "-m", "tdabench.benchmark.commands.cli", "run", TASK, "--methods", "random:quick"]
    words += ["--metrics", "union", "--results", str(tmp_path / "results")]
    process = subprocess.Popen(words, env=environment(home), stdout=subprocess.DEVNULL, start_new_session=True)
    end = time.monotonic() + 300
    while len(outcomes(home)) < 2 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not survivors(family, within=60)
    done = {path: path.stat().st_mtime_ns for path in outcomes(home)}
    assert 2 <= len(done) < 2 * SEEDS + CURVE
    answer = subprocess.run(words, env=environment(home), capture_output=True, text=True, check=True)
    assert f"{2 * SEEDS + CURVE - len(done)} to train" in " ".join(answer.stdout.split())
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in done.items())
    assert rows_of(tmp_path / "results")["random:quick"].metrics.removal is not None
