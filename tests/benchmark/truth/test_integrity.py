"""No byte that a number depends on changes unnoticed: it is named where it is read, or made again as it was."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from tdabench.benchmark.tasks.find import find_task, open_assets
from tdabench.benchmark.truth import build as truth
from tdabench.benchmark.truth.counterfactuals import Counterfactual, Laboratory
from tdabench.benchmark.truth.variants import derived
from tdabench.datasets.truth import SHIPPED, Assets
from tdabench.errors import CorruptFile
from tdabench.leaderboard.rows.files import RESULTS, load_rows
from tdabench.store import FolderStore

from ... import run_helpers

tiny_home, home, tdabench = run_helpers.tiny_home, run_helpers.home, run_helpers.tdabench
TASK = find_task("digits-tiny")
LABELS = ["digits@1", "digits-edm@1", "emoji@1", "cifar2-mini@1"]
REMOVED = Counterfactual((3, 5, 8), seed=1)


@pytest.fixture
def own(home, tmp_path, monkeypatch) -> Path:
    """A home of a test's own, with the caches of a build and without its truth, nor what other tests trained."""
    left_out = shutil.ignore_patterns("truth", "derived", "counterfactual", "models")
    copied = shutil.copytree(home, tmp_path / "home", ignore=left_out)
    monkeypatch.setenv("TDABENCH_HOME", str(copied))
    store = FolderStore(copied)
    used = store.path(truth.prepare_base(TASK, store).jobs(store)[0].key).parent
    for other in set((copied / "measured").iterdir()) - {used}:  # of builds by other plans, in other tests
        shutil.rmtree(other)
    return copied


@pytest.fixture
def expected(home) -> Assets:
    """The truth that was built."""
    return Assets(home / "truth" / TASK.label)


def flipped(data: bytes, at: random.Random) -> bytes:
    where = at.randrange(len(data))
    return data[:where] + bytes([data[where] ^ 1 << at.randrange(8)]) + data[where + 1 :]


SPOILS = {
    "flipped": flipped,
    "truncated": lambda data, at: data[: at.randrange(len(data))],
    "empty": lambda data, at: b"",
    "longer": lambda data, at: data + b"\0",
    "other": lambda data, at: at.randbytes(len(data)),
}


def spoil(folder: Path, how: str, seed: int) -> Path:
    """Damage a file of a folder, whichever the seed says."""
    at = random.Random(seed)
    path = at.choice(sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".claim"))
    path.write_bytes(SPOILS[how](path.read_bytes(), at))
    return path


def rebuilt(store: FolderStore, folder: Path) -> Assets:
    built = truth.prepare_base(TASK, store)
    jobs = built.jobs(store)
    truth.build_runs(jobs, store, 1)
    return truth.assemble(built, jobs, store, folder)


@pytest.mark.parametrize("how", SPOILS)
@pytest.mark.parametrize("cache", ["base", "measured"])
def test_a_damaged_cache_of_a_build_is_named_and_made_again(cache, how, own, expected, tmp_path, capsys):
    path = spoil(own / cache, how, seed=len(how))
    assert rebuilt(FolderStore(own), tmp_path / "truth").manifest["files"] == expected.manifest["files"], path
    assert "is damaged: set aside as" in capsys.readouterr().err, path


@pytest.mark.parametrize("how", SPOILS)
def test_a_damaged_counterfactual_is_trained_again_to_the_same_bits(how, own, expected, capsys):
    laboratory = Laboratory(expected, FolderStore(own))
    laboratory.make([REMOVED], 1)
    before = laboratory.read(REMOVED)
    paths = [spoil(own / cache, how, seed=len(how)) for cache in ("counterfactual", "models")]
    assert not laboratory.has(REMOVED), paths
    laboratory.make([REMOVED], 1)
    after = laboratory.read(REMOVED)
    np.testing.assert_array_equal(before.images, after.images)
    np.testing.assert_array_equal(before.losses, after.losses)
    assert "is damaged: set aside as" in capsys.readouterr().err, paths


@pytest.mark.parametrize("how", SPOILS)
def test_a_damaged_derived_problem_is_derived_again(how, own, expected, capsys):
    first = derived(TASK, expected, "self", 2, lambda done, total: None)
    path = spoil(own / "derived", how, seed=len(how))
    again = derived(TASK, expected, "self", 2, lambda done, total: None)
    assert again.problem_sha256 == first.problem_sha256, path
    assert "is damaged: set aside as" in capsys.readouterr().err, path


def without(manifest, name):
    manifest.pop(name)


EDITS = {
    "queries reversed": lambda manifest: manifest["queries"].reverse(),
    "roles exchanged": lambda manifest: manifest["queries"][0].update(role="test"),
    "another seed": lambda manifest: manifest.update(base_seed=manifest["base_seed"] + 1),
    "another plan": lambda manifest: manifest["truth_plan"].update(report=1),
    "another recipe": lambda manifest: manifest["recipe"].update(steps=1),
    "no recipe": lambda manifest: without(manifest, "recipe"),
    "no hash": lambda manifest: without(manifest, "manifest_sha256"),
    "another file's hash": lambda manifest: manifest["files"]["truth-open.safetensors"].update(sha256="0" * 64),
    "another date": lambda manifest: manifest["provenance"].update(built_utc="2020-01-01T00:00:00+00:00"),
}


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("command", ["run", "verify"])
def test_a_manifest_edited_by_hand_is_refused_by_every_command(command, name, own, expected, tdabench, tmp_path):
    folder = shutil.copytree(expected.folder, own / "truth" / TASK.label)
    run_helpers.edit_manifest(folder, EDITS[name], seal=False)
    words = {
        "run": ("run", TASK.name, "--methods", "random", "--results", tmp_path / "results"),
        "verify": ("truth", "verify", TASK.name, "--sample", 0),
    }
    answer = tdabench(*words[command])
    assert answer.code == 2 and "manifest.json" in answer.err and answer.err.count("\n") == 1, answer
    assert not (tmp_path / "results" / "rows").exists()


OF_THE_FIRST_SCHEMA = {
    "queries reversed": lambda manifest: manifest["query_ids"].reverse(),
    "roles exchanged": lambda manifest: manifest["queries"][0].update(role="test"),
    "another seed": lambda manifest: manifest.update(base_seed=1),
    "another recipe": lambda manifest: manifest["recipe"].update(steps=1),
}


@pytest.mark.parametrize("name", OF_THE_FIRST_SCHEMA)
def test_a_shipped_truth_of_the_first_schema_is_refused_with_another_manifest_whose_hash_holds(
    name, tmp_path, monkeypatch, tdabench
):
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path))
    folder = shutil.copytree(SHIPPED / "digits@1", tmp_path / "truth" / "digits@1")
    run_helpers.edit_manifest(folder, OF_THE_FIRST_SCHEMA[name])
    results = tmp_path / "results"
    answer = tdabench("run", "digits", "--methods", "pixel", "--results", results)
    assert answer.code == 2 and "manifest.json is of schema version 1" in answer.err, answer
    assert answer.err.count("\n") == 1 and not (results / "rows").exists()


OF_ANOTHER_TASK = {
    "recipe": lambda manifest: manifest["recipe"].update(steps=1),
    "n_train": lambda manifest: manifest.update(n_train=manifest["n_train"] + 1),
    "truth": lambda manifest: manifest["truth_plan"].update(report=1),
    "groups": lambda manifest: manifest.update(groups={"by": "class"}),
}


@pytest.mark.parametrize("name", OF_ANOTHER_TASK)
def test_a_whole_truth_of_another_task_is_refused(name, own, expected):
    folder = shutil.copytree(expected.folder, own / "truth" / TASK.label)
    assert open_assets(TASK).sha256 == expected.sha256
    run_helpers.edit_manifest(folder, OF_ANOTHER_TASK[name])
    with pytest.raises(CorruptFile, match=f"was built from another {name} than {TASK.label}'s"):
        open_assets(TASK)


@pytest.mark.parametrize("label", LABELS)
def test_what_ships_is_whole(label):
    assets = Assets(SHIPPED / label)
    assets.check_files()
    n, measured = assets.manifest["n_train"], len(assets.query_ids)
    for role in ("open", "report"):
        truth = assets.truth(role)
        assert truth.masks.dtype == bool and truth.masks.shape[1] == n
        assert truth.masks.mean(axis=1) == pytest.approx(0.5, abs=0.02)
        assert truth.outputs.shape[1:3] == (len(truth.masks), measured) and truth.full.shape[1] == measured
        if "regenerated-full.safetensors" not in assets.manifest["files"]:
            continue
        images, full = assets.regenerated(role)
        assert images.shape[1:3] == (len(truth.masks), len(assets.generated_ids)) and images.shape[2:] == full.shape[1:]


@pytest.mark.parametrize("label", LABELS)
def test_rows_that_ship_are_of_the_truth_that_ships(label):
    assets, rows = Assets(SHIPPED / label), load_rows(RESULTS, label)
    assert {row.source.problem_sha256 for row in rows if row.source.problem_sha256} == {assets.problem_sha256}
    assert {row.source.truth_sha256 for row in rows} == {assets.sha256}
