"""Ground truth: what is split and masked, what is measured on retrained models, and how it is kept and checked."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from tdabench.benchmark.metrics import scores as scoring
from tdabench.benchmark.tasks.checks import check_task
from tdabench.benchmark.tasks.find import assets_folder, find_task
from tdabench.benchmark.truth import build as truth
from tdabench.benchmark.truth import retraining
from tdabench.benchmark.truth.retraining import Members, Retraining, retrained
from tdabench.datasets.find import load_dataset
from tdabench.datasets.truth import Assets, whole_assets, write_assets
from tdabench.errors import CorruptFile, UserError
from tdabench.models.draws import Draws, Law
from tdabench.models.problem import read_problem
from tdabench.models.sampling import sample
from tdabench.models.training import train
from tdabench.seeds import derive
from tdabench.store import FolderStore

from ... import run_helpers, tiny

tiny_home, home = run_helpers.tiny_home, run_helpers.home
TASK = find_task("digits-tiny")


@pytest.fixture(scope="module")
def data():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def parts(data):
    return truth.split(TASK, data)


@pytest.fixture(scope="module")
def train_set(data, parts):
    return data.select(parts.train)


@pytest.fixture
def assets(home):
    return Assets(assets_folder(TASK))


@pytest.fixture
def problem(assets):
    return read_problem(assets.folder)


@pytest.fixture
def copied(assets, tmp_path):
    """The assets in a folder that a test may spoil."""
    return shutil.copytree(assets.folder, tmp_path / "assets")


def counts(classes):
    return torch.bincount(classes, minlength=10)


# split and masks


def test_split_is_exact_disjoint_and_has_every_class(data, parts):
    assert [len(ids) for ids in (parts.train, parts.dev, parts.test)] == [TASK.n_train, 2, 3]
    together = torch.cat([parts.train, parts.dev, parts.test])
    assert len(together.unique()) == len(together)
    expected = counts(data.classes) * TASK.n_train / len(data)
    assert (counts(data.classes[parts.train]) - expected).abs().max() <= 2


def test_split_depends_on_the_tasks_name_and_version_alone(data, parts):
    again = truth.split(replace(TASK, title="other", truth=replace(TASK.truth, report=3)), data)
    assert torch.equal(again.train, parts.train) and torch.equal(again.test, parts.test)
    assert not torch.equal(truth.split(replace(TASK, version=2), data).train, parts.train)


def test_a_task_about_a_part_of_its_dataset_trains_and_holds_out_only_from_it(data):
    few = replace(TASK, n_train=300, where={"classes": ("1", "7")})
    parts = truth.split(few, data)
    chosen = torch.cat([parts.train, parts.dev, parts.test])
    assert len(parts.train) == 300 and len(chosen.unique()) == len(chosen)
    assert set(data.classes[chosen].tolist()) == {1, 7}
    everything = {"classes": tuple(map(str, range(10)))}
    assert torch.equal(truth.split(replace(TASK, where=everything), data).train, truth.split(TASK, data).train)
    with pytest.raises(UserError, match=r"has 361 images of the kind that it is about"):
        check_task(replace(few, n_train=361), data)


@pytest.mark.parametrize("role", ["open", "report"])
def test_masks_hold_half_of_every_class(role, train_set):
    for mask in truth.masks(TASK, train_set.classes, role):
        half = counts(train_set.classes) * TASK.truth.share
        assert (counts(train_set.classes[mask]) - half).abs().max() <= 0.5


def test_no_two_subsets_are_equal_within_or_across_roles(train_set):
    both = torch.cat([truth.masks(TASK, train_set.classes, role) for role in ("open", "report")])
    assert len(both.unique(dim=0)) == TASK.truth.open + TASK.truth.report


def test_more_subsets_leave_the_first_ones_as_they_are(train_set):
    more = replace(TASK, truth=replace(TASK.truth, report=20))
    few, many = (truth.masks(spec, train_set.classes, "report") for spec in (TASK, more))
    assert torch.equal(many[: len(few)], few)


# the plan of retrainings


def test_replicates_of_all_subsets_share_a_seed_that_the_base_model_has_not(train_set):
    runs = truth.plan_runs(TASK, train_set.classes)
    seeds = {role: {run.retraining.seed for run in runs if run.role == role} for role in ("open", "report", "full")}
    assert seeds == {"open": {1}, "report": {1, 2}, "full": {1, 2}}
    assert truth.BASE_SEED == 0


def test_every_subset_is_retrained_once_a_replicate(train_set):
    runs = truth.plan_runs(TASK, train_set.classes)
    cells = [(run.role, run.index, run.retraining.seed) for run in runs]
    plan = TASK.truth
    assert len(set(cells)) == len(cells) == plan.full + plan.open + plan.report * plan.report_replicates
    masks = truth.masks(TASK, train_set.classes, "report")
    for run in runs:
        expected = masks[run.index].nonzero().flatten().tolist() if run.role == "report" else None
        members = run.retraining.members.ids.tolist()
        assert expected is None or members == expected
        assert run.role != "full" or members == list(range(TASK.n_train))


# what is measured


def test_measure_is_the_loss_of_the_raw_network_pair_by_pair(problem):
    queries, model = truth.attributed(problem.queries).pick([0, 5]), problem.model(25)
    found = truth.measure(model, queries, TASK.truth)
    draws = Draws("truth", 16, Law("even"), "item", 0, (1, 8, 8), model.process)
    expected = tiny.plain_losses(model, queries.batch, draws).view(2, 4, 4).mean(-1)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)


def test_bins_go_from_the_cleanest_to_the_noisiest_quarter_of_the_training_law(problem):
    process = problem.model(25).process
    levels, _ = Draws("truth", 16, Law("even"), "item", 0, (1, 8, 8), process).for_ids(["heldout-test-000"])
    steps = process.timesteps(levels).view(4, 4)
    assert [(int(part.min()) // 250, int(part.max()) // 250) for part in steps] == [(i, i) for i in range(4)]


def test_measure_treats_a_query_alike_whoever_is_measured_beside_it(problem):
    queries, model = truth.attributed(problem.queries), problem.model(25)
    together = truth.measure(model, queries, TASK.truth)
    alone = truth.measure(model, queries.pick([7]), TASK.truth)
    np.testing.assert_allclose(alone[0], together[7], rtol=1e-5)


# what the assets hold


def test_stored_outputs_and_images_are_those_of_a_fresh_retraining_bit_for_bit(assets, problem):
    stored, replicate, subset = assets.truth("report"), 1, 3
    members = torch.from_numpy(stored.masks[subset].nonzero()[0])
    model, _ = train(TASK.recipe, problem.train, members, truth.BASE_SEED + 1 + replicate)
    outputs = truth.measure(model, truth.attributed(problem.queries), TASK.truth)
    assert np.array_equal(stored.outputs[replicate, subset], outputs)
    images = truth.regenerate(model, problem).astype(np.float16)
    assert np.array_equal(assets.regenerated("report")[0][replicate, subset], images)


def test_models_trained_on_everything_are_kept_beside_both_roles(assets):
    opened, reported = assets.truth("open"), assets.truth("report")
    assert np.array_equal(opened.full, reported.full)
    images = assets.regenerated("open")[1]
    assert np.array_equal(images, assets.regenerated("report")[1])
    assert opened.full.shape == (2, 10, 4) and images.shape == (2, 7, 1, 8, 8)


def test_regenerated_images_are_samples_of_the_stored_retrained_model(home, assets, problem):
    stored = assets.truth("open")
    one, store = Retraining(Members.of(stored.masks[0]), 1), FolderStore(home)
    assert store.exists(one.key(TASK.recipe, problem.train.fingerprint()))
    model, (images, _) = retrained(one, problem, store), assets.regenerated("open")
    for row, query in enumerate(assets.generated_ids):
        place = problem.queries.ids.index(query)
        image = sample(model, problem.queries.noise[place : place + 1], TASK.recipe.model)[0]
        np.testing.assert_allclose(images[0, 0, row], image.numpy(), atol=2e-3)


def test_generated_queries_are_samples_of_the_base_model(problem):
    generated = problem.queries.where(role="test", kind="generated")
    images = sample(problem.model(25), generated.noise, TASK.recipe.model)
    assert torch.equal(images, generated.x) and generated.x.dtype == torch.float32


def test_target_averages_bins_and_replicates_in_float64(assets):
    stored = assets.truth("report")
    ids = ("generated-test-001", "heldout-test-000")
    columns = [stored.query_ids.index(query) for query in ids]
    assert stored.replicates(ids).dtype == np.float64
    expected = stored.outputs[:, :, columns].astype(np.float64).mean(axis=(0, 3))
    np.testing.assert_allclose(stored.target(ids), expected, rtol=1e-12)


def test_query_ids_are_stable(assets):
    kinds = {"heldout": {"dev": 2, "test": 3}, "generated": {"dev": 2, "test": 3, "control": 2}}
    parts = [(kind, role, i) for kind, roles in kinds.items() for role, n in roles.items() for i in range(n)]
    expected = [f"{kind}-{role}-{i:03d}" for kind, role, i in parts]
    assert [query["id"] for query in assets.manifest["queries"]] == expected
    seeds = {query["id"]: query["source"] for query in assets.manifest["queries"] if query["kind"] == "generated"}
    assert seeds["generated-test-002"] == derive("query", "digits-tiny@1", "test", 2)


def test_a_truth_without_regenerated_queries_has_the_same_losses(home, assets, tmp_path):
    store = FolderStore(home)
    lean = replace(TASK, truth=replace(TASK.truth, regenerated=False))
    built = truth.prepare_base(lean, store)
    jobs = built.jobs(store)
    truth.build_runs(jobs, store, 1)
    made = truth.assemble(built, jobs, store, tmp_path / "lean")
    np.testing.assert_array_equal(made.truth("report").outputs, assets.truth("report").outputs)
    regenerated = {name for name in assets.manifest["files"] if name.startswith("regenerated-")}
    assert regenerated and set(made.manifest["files"]) == set(assets.manifest["files"]) - regenerated
    with pytest.raises(UserError, match="its task plans none"):
        made.regenerated("report")


def test_controls_are_regenerated_and_never_attributed(assets):
    stored = assets.truth("report")
    controls = {query["id"] for query in assets.manifest["queries"] if query["role"] == "control"}
    attributed = {*scoring.query_ids(assets.manifest, "test"), *scoring.query_ids(assets.manifest, "dev")}
    assert controls < set(assets.generated_ids)
    assert attributed == set(stored.query_ids) and not controls & attributed


def test_heldout_queries_are_what_their_source_says(data, parts, problem):
    heldout = problem.queries.where(kind="heldout")
    assert torch.equal(heldout.x, data.images[list(heldout.source)])
    assert not set(heldout.source) & set(parts.train.tolist())


# reading


def test_the_problem_is_read_without_opening_any_truth(copied):
    for role in ("open", "report"):
        (copied / f"truth-{role}.safetensors").unlink()
    assert len(read_problem(copied).train) == TASK.n_train


@pytest.mark.parametrize("name", ["problem", "weights-10", "truth-open", "truth-report-1"])
@pytest.mark.parametrize("spoil", ["edited", "truncated", "missing"])
def test_a_spoilt_file_is_named(name, spoil, copied):
    path = copied / f"{name}.safetensors"
    data = path.read_bytes()
    if spoil == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if spoil == "truncated" else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CorruptFile, match=path.name):
        Assets(copied).arrays(path.name)


def test_bytes_that_match_their_hash_but_are_no_arrays_are_refused(copied):
    import hashlib

    (copied / "truth-open.safetensors").write_bytes(b"x")
    listed = {"sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1}
    run_helpers.edit_manifest(copied, lambda manifest: manifest["files"].update({"truth-open.safetensors": listed}))
    with pytest.raises(CorruptFile, match="not a safetensors file"):
        Assets(copied).truth("open")


UNREADABLE = ['{"schema_version": 3}', '{"schema_version": 2}', "{}", "[]", "null", '{"schema_version": 1', "\xff"]


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_manifest_that_is_none_is_refused(text, copied):
    (copied / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"manifest\.json"):
        Assets(copied)


def test_without_a_manifest_there_is_no_truth(copied):
    (copied / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"manifest\.json is missing"):
        Assets(copied)


def test_an_interrupted_writing_leaves_no_manifest(copied, monkeypatch):
    assets, put = Assets(copied), FolderStore.put

    def fail_late(store, key, data):
        if key.startswith("truth-report"):
            raise KeyboardInterrupt
        return put(store, key, data)

    files = {name: assets.arrays(name) for name in assets.manifest["files"]}
    monkeypatch.setattr(FolderStore, "put", fail_late)
    with pytest.raises(KeyboardInterrupt):
        write_assets(copied, files.items(), assets.manifest)
    assert not (copied / "manifest.json").exists()


@pytest.mark.parametrize("text", ["[]", "null", "{}", "{", '{"files": [1]}', '{"files": null}'])
def test_a_truth_is_written_over_what_is_none(text, assets, tmp_path):
    (tmp_path / "manifest.json").write_text(text)
    files = [("problem.safetensors", {"x": np.arange(3)})]
    assert write_assets(tmp_path, files, assets.manifest).arrays("problem.safetensors")["x"].tolist() == [0, 1, 2]


def test_files_of_a_base_are_part_of_what_is_written_on_it(assets, tmp_path):
    extra = [("extra.safetensors", {"x": np.arange(3)})]
    for _ in range(2):  # the second time over the first
        written = write_assets(tmp_path / "new", extra, assets.manifest, base=assets)
        written.check_files()
        assert set(written.manifest["files"]) == {*assets.manifest["files"], "extra.safetensors"}
    assets.check_files()


def test_assets_that_are_kept_are_whole_or_made_again(copied, capsys):
    store = FolderStore(copied.parent)
    assert whole_assets(store, "nowhere") is None and not capsys.readouterr().err
    assert whole_assets(store, "assets").sha256 == Assets(copied).sha256
    (copied / "weights-10.safetensors").write_bytes(b"")
    assert whole_assets(store, "assets") is None and "is damaged: set aside" in capsys.readouterr().err
    assert not copied.exists()


def test_a_manifest_that_was_edited_is_refused(copied):
    run_helpers.edit_manifest(copied, lambda manifest: manifest["queries"].reverse(), seal=False)
    with pytest.raises(CorruptFile, match=r"manifest\.json was edited"):
        Assets(copied)


def test_without_regenerated_queries_there_are_none_to_return(copied):
    run_helpers.edit_manifest(copied, lambda manifest: manifest["files"].pop("regenerated-full.safetensors"))
    with pytest.raises(UserError, match="no regenerated queries"):
        Assets(copied).regenerated("open")


def test_what_the_training_set_depends_on_is_told_apart_where_it_is_said(assets, copied):
    run_helpers.edit_manifest(copied, lambda manifest: manifest.update(training_sha256="a" * 64))
    assert Assets(copied).training_sha256 == "a" * 64
    run_helpers.edit_manifest(copied, lambda manifest: manifest.pop("training_sha256"))
    assert Assets(copied).training_sha256 == Assets(copied).problem_sha256


def test_images_of_another_revision_are_refused(copied):
    run_helpers.edit_manifest(copied, lambda manifest: manifest["dataset"].update(fingerprint="0" * 64))
    with pytest.raises(CorruptFile, match="not those"):
        read_problem(copied)


# the cache of retrained models


def first_three(n):
    return Members.of(np.arange(n) < 3)


def test_members_are_a_bit_each_and_come_back_ascending():
    mask = np.random.default_rng(0).random(1001) < 0.5
    members = Members.of(torch.from_numpy(mask))
    assert members.ids.tolist() == mask.nonzero()[0].tolist() and len(members.packed) == 126
    assert members == Members.of(mask) != Members.of(~mask)


def test_retrained_models_are_keyed_by_recipe_data_seed_and_members():
    one = Retraining(first_three(4), 1)
    keys = {
        one.key(TASK.recipe, "a" * 64),
        Retraining(Members.of(np.array([1, 1, 0, 1])), 1).key(TASK.recipe, "a" * 64),
        Retraining(first_three(4), 2).key(TASK.recipe, "a" * 64),
        one.key(replace(TASK.recipe, steps=24), "a" * 64),
        one.key(TASK.recipe, "b" * 64),
    }
    assert len(keys) == 5
    assert one.key(TASK.recipe, "a" * 64) == Retraining(first_three(4), 1).key(replace(TASK.recipe), "a" * 64)


def test_a_retrained_model_is_trained_once(problem, tmp_path, monkeypatch):
    short, store = replace(problem, recipe=replace(TASK.recipe, steps=2, checkpoints=())), FolderStore(tmp_path)
    members = first_three(TASK.n_train)
    first = retrained(Retraining(members, 1), short, store)
    monkeypatch.setattr(retraining, "train", None)
    second = retrained(Retraining(members, 1), short, store)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    with pytest.raises(TypeError):
        retrained(Retraining(members, 2), short, store)


def test_building_again_trains_nothing_and_gives_the_same_files(home, assets, tmp_path, monkeypatch):
    for module in (truth, retraining):
        monkeypatch.setattr(module, "train", None)
    store = FolderStore(home)
    built = truth.prepare_base(TASK, store)
    done = []
    jobs = built.jobs(store)
    truth.build_runs(jobs, store, 1, lambda count, total: done.append((count, total)))
    again = truth.assemble(built, jobs, store, tmp_path)
    assert done == [(28, 28)]
    assert again.manifest["files"] == assets.manifest["files"] and again.sha256 == assets.sha256


def test_jobs_are_keyed_by_what_decides_them(home):
    store = FolderStore(home)
    built = truth.prepare_base(TASK, store)
    keys = [job.key for job in built.jobs(store)]
    assert len(set(keys)) == len(keys)
    finer = replace(built, spec=replace(TASK, truth=replace(TASK.truth, draws_per_bin=5)))
    assert not set(keys) & {job.key for job in finer.jobs(store)}
