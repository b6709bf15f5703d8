"""Builds in parts and begun elsewhere (truth.md): together they are the truth that one build makes."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tdabench.benchmark.tasks.find import find_task
from tdabench.benchmark.truth import build as truth
from tdabench.benchmark.truth import retraining
from tdabench.benchmark.truth.begun import FinishedTruth, Part, open_begun, parse_part, take_base, take_runs
from tdabench.datasets.truth import SHIPPED, Assets, manifest_hash, write_assets
from tdabench.errors import UserError
from tdabench.store import FolderStore

from ... import run_helpers

tiny_home, home, tdabench = run_helpers.tiny_home, run_helpers.home, run_helpers.tdabench
TASK = find_task("digits-tiny")


@pytest.fixture
def begun(home, tmp_path) -> Path:
    """A home with the caches of a whole build."""
    return shutil.copytree(home, tmp_path / "begun", ignore=shutil.ignore_patterns("truth", "derived"))


@pytest.fixture
def own(begun, tmp_path, monkeypatch) -> Path:
    """Another home, empty."""
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "own"))
    return tmp_path / "own"


@pytest.fixture
def untrained(monkeypatch) -> None:
    """Nothing may be trained."""
    for module in (truth, retraining):
        monkeypatch.setattr(module, "train", None)


def jobs_of(home: Path) -> list[truth.Job]:
    return truth.prepare_base(TASK, FolderStore(home)).jobs(FolderStore(home))


@pytest.mark.parametrize("count", [1, 3, 28, 40])
def test_parts_share_no_run_and_have_all(home, count):
    jobs = jobs_of(home)
    parts = [Part(number, count).of(jobs) for number in range(1, count + 1)]
    assert sorted(job.key for part in parts for job in part) == sorted(job.key for job in jobs)


def test_a_part_is_read_as_written():
    assert parse_part("2/8") == (2, 8)


@pytest.mark.parametrize("text", ["", "0/3", "4/3", "1", "1/0", "-1/3", "1/3/5", "a/b", " 1/3", "9999999/9999999"])
def test_what_is_no_part_is_said(text):
    with pytest.raises(UserError, match="which of how many"):
        parse_part(text)


def test_a_build_goes_on_from_another_home(begun, own, untrained, home, tdabench):
    answer = tdabench("truth", "build", TASK.name, "--begun", begun)
    assert answer.code == 0 and "28 measured models taken" in answer.out, answer
    assert Assets(own / "truth" / TASK.label).sha256 == Assets(home / "truth" / TASK.label).sha256


def test_a_base_model_that_was_half_taken_is_taken_again(begun, own, untrained, tdabench):
    whole = next((begun / "base").glob(f"{TASK.label}-*"))
    half = own / "base" / whole.name
    half.mkdir(parents=True)
    shutil.copyfile(whole / "problem.safetensors", half / "problem.safetensors")
    answer = tdabench("truth", "build", TASK.name, "--begun", begun)
    assert answer.code == 0 and (half / "manifest.json").is_file(), answer


def test_a_damaged_run_is_not_taken(begun, own):
    ours, theirs = FolderStore(own), FolderStore(begun)
    jobs = jobs_of(begun)
    theirs.path(jobs[3].key).write_bytes(b"other")
    assert take_runs(jobs, open_begun(begun), ours) == len(jobs) - 1
    assert ours.kept(jobs[3].key) is None and ours.kept(jobs[4].key) == theirs.kept(jobs[4].key)


def test_parts_are_put_together_by_a_whole_build(begun, own, tdabench, home):
    jobs = jobs_of(begun)
    for job in jobs[1::2][:2]:  # what the second part has to train
        FolderStore(begun).delete(job.key)
    first = tdabench("truth", "build", TASK.name, "--begun", begun, "--part", "1/2")
    assert first.code == 0 and "part done, 2 models of other parts are missing" in first.out, first
    assert not (own / "truth").exists()
    second = tdabench("truth", "build", TASK.name, "--part", "2/2")
    assert second.code == 0 and "all models are there" in second.out, second
    assert "0 of 28 models to train" in tdabench("truth", "build", TASK.name).out
    assert Assets(own / "truth" / TASK.label).sha256 == Assets(home / "truth" / TASK.label).sha256


def test_a_part_waits_for_the_base_model_that_another_trains(begun, own, untrained, tdabench, monkeypatch):
    other, slept = ExitStack(), []
    other.enter_context(FolderStore(own).claim(f"build-{TASK.label}"))

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            other.close()

    monkeypatch.setattr("tdabench.benchmark.commands.assets.building.time.sleep", sleep)
    answer = tdabench("truth", "build", TASK.name, "--part", "1/2", "--begun", begun)
    assert answer.code == 0 and len(slept) == 3 and answer.out.count("waiting for process") == 1, answer


def test_runs_about_other_queries_are_refused(begun, own, tdabench):
    jobs_of(own)
    manifest = next((own / "base").glob("*/manifest.json"))
    store = FolderStore(own)
    key = manifest.parent.relative_to(own).as_posix()
    value = store.get_json(f"{key}/manifest.json")
    value["queries"][0]["sha256"] = "0" * 64
    value["manifest_sha256"] = manifest_hash(value)
    store.put_json(f"{key}/manifest.json", value)
    answer = tdabench("truth", "build", TASK.name, "--begun", begun)
    assert answer.code == 2 and "another base model" in answer.err, answer


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--part", "3/2"], "which of how many"),
        (["--begun", "nowhere"], "no begun build"),
        (["--part", "1/2", "--out", "out"], "whole truth"),
        (["--part", "1/2", "--kind", "exemplars"], "for subsets"),
    ],
)
def test_bad_input_is_one_line(words, said, own, tdabench):
    answer = tdabench("truth", "build", TASK.name, *words)
    assert answer.code == 2 and said in answer.err and answer.err.strip().count("\n") == 0, answer


def test_a_home_with_another_tasks_build_is_none(begun, own, tdabench):
    answer = tdabench("truth", "build", "digits-tiny-v", "--begun", begun)
    assert answer.code == 2 and "no base model of digits-tiny-v" in answer.err, answer


def test_a_build_goes_on_from_a_finished_truth(own, untrained, home, tdabench):
    whole = home / "truth" / TASK.label
    answer = tdabench("truth", "build", TASK.name, "--begun", whole)
    assert answer.code == 0 and "28 measured models taken" in answer.out, answer
    assert Assets(own / "truth" / TASK.label).sha256 == Assets(whole).sha256


def grown(**counts: int):
    """Return the task with other numbers of models."""
    return replace(TASK, truth=replace(TASK.truth, **counts))


def test_a_truth_grows_by_what_it_lacks_alone(own, untrained, home):
    spec, store = grown(report_replicates=3, open=9, full=4), FolderStore(own)
    theirs = open_begun(home / "truth" / TASK.label)
    take_base(spec, theirs, store)
    built = truth.prepare_base(spec, store)
    jobs = built.jobs(store)
    assert take_runs(jobs, theirs, store) == TASK.truth.retrainings
    missing = {f"{job.run.role}-{job.run.index}-{job.run.retraining.seed}" for job in truth.undone(jobs, store)}
    more = {f"report-{i}-3" for i in range(spec.truth.report)} | {"full-2-3", "full-3-4"}
    assert missing == more | {f"open-{i}-1" for i in range(TASK.truth.open, 9)}
    assert built.base.problem_sha256 == Assets(home / "truth" / TASK.label).problem_sha256


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (replace(grown(), truth=replace(TASK.truth, bins=2)), "another truth"),
        (replace(TASK, recipe=replace(TASK.recipe, steps=7)), "another recipe"),
        (find_task("digits-tiny-v"), "no base model of digits-tiny-v"),
    ],
)
def test_a_truth_of_another_task_does_not_grow(own, home, spec, said):
    with pytest.raises(UserError, match=said):
        take_base(spec, open_begun(home / "truth" / TASK.label), FolderStore(own))


def test_a_truth_of_the_first_schema_does_not_grow(own):
    with pytest.raises(UserError, match="of schema version 1"):
        take_base(find_task("digits"), open_begun(SHIPPED / "digits@1"), FolderStore(own))


def test_a_truth_of_other_subsets_or_devices_does_not_grow(own, home, tmp_path):
    assets = Assets(home / "truth" / TASK.label)
    files = {name: assets.arrays(name) for name in assets.manifest["files"]}
    files["truth-report.safetensors"] = {"masks": ~files["truth-report.safetensors"]["masks"]}
    theirs = FinishedTruth(write_assets(tmp_path / "other", files.items(), assets.manifest))
    jobs = jobs_of(home)
    with pytest.raises(UserError, match="another report subset 0"):
        take_runs(jobs, theirs, FolderStore(own))
    with pytest.raises(UserError, match="say --device cpu"):
        theirs.measured(replace(jobs[0], device="cuda:0"))
