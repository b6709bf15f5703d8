"""A task, its dataset and a method in one plugin file: found, built, run, verified, in processes of their own."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from tdabench.benchmark.tasks.find import find_task, task_listings, task_names
from tdabench.datasets.find import dataset_listings, dataset_origin, load_dataset
from tdabench.errors import UserError
from tdabench.methods.registry import listings
from tdabench.models.problem import read_problem
from tdabench.plugins import code_files, code_hash, find_module

from ... import run_helpers

tdabench = run_helpers.tdabench

PLUGIN = '''
from dataclasses import replace

import torch
from tdabench.benchmark.tasks import QueryPlan, RemovalPlan, TruthPlan
from tdabench.benchmark.tasks.digits_tiny import TASK as TINY
from tdabench.methods import Card, ImageDataset, Method, dataset, register

from helper import pictures

CARD = Card("dots", "random dots", "made here", "CC0", "1", "none")
TASK = replace(
    TINY,
    name="dots",
    title="Random dots",
    dataset="my-dots",
    n_train=24,
    recipe=replace(TINY.recipe, steps=4, checkpoints=(2,)),
    queries=QueryPlan(dev=1, test=2, controls=1),
    truth=TruthPlan(report=4, open=2, report_replicates=2, open_replicates=1, full=1, bins=2, draws_per_bin=1),
    removal=RemovalPlan(top_share=0.1, seeds=1, per_query=1, per_query_shares=(0.1,)),
)
LARGER = replace(TASK, name="dots-larger", n_train=30)
TASKS = [LARGER, replace(TASK, name="dots-smaller", n_train=20)]


@dataset("my-dots")
def load():
    import helper

    return ImageDataset(CARD, helper.pictures(40), torch.arange(40) % 2)


@register("dotty")
class Dotty(Method):
    """Random scores of a stranger."""

    def attribute(self, view, state, queries):
        from helper import pictures

        assert all((pictures(40) == image).flatten(1).all(1).any() for image in view.train.images)
        return torch.stack([torch.rand(len(view.train), generator=view.rng(query)) for query in queries.ids])
'''
HELPER = """
import torch


def pictures(n):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(3)) * 2 - 1
"""


@pytest.fixture
def plugin(tmp_path):
    run_helpers.forget_plugins()
    (tmp_path / "helper.py").write_text(HELPER)
    (tmp_path / "dots.py").write_text(PLUGIN)
    yield tmp_path / "dots.py"
    run_helpers.forget_plugins()


def test_listing_reads_names_and_imports_nothing(plugin):
    plugin.write_text(PLUGIN + "\nraise ValueError('imported')\n")
    assert set(task_names((plugin,))) - set(task_names()) == {"dots", "dots-larger", "dots-smaller"}
    assert set(dataset_listings((plugin,))) - set(dataset_listings()) == {"my-dots"}
    assert {"cifar10", "digits", "digits_classes"} <= set(dataset_listings())
    assert set(listings((plugin,))) - set(listings()) == {"dotty"}


def test_tasks_and_datasets_of_a_plugin_are_found(plugin):
    assert [find_task(f"dots{end}", (plugin,)).n_train for end in ("", "-larger", "-smaller@1")] == [24, 30, 20]
    data = load_dataset("my-dots", (plugin,))
    assert data.images.shape == (40, 1, 8, 8) and data.card.name == "dots"
    assert dataset_origin("my-dots", (plugin,)) == {"plugin": "dots.py", "code": code_hash(str(plugin))}
    assert dataset_origin("digits", (plugin,)) == {}
    with pytest.raises(UserError, match="unknown task 'dots'"):
        find_task("dots")
    with pytest.raises(UserError, match=r"no dataset 'my-dots'.*--plugin"):
        load_dataset("my-dots")


def test_a_plugins_task_is_built_run_and_verified(plugin, tdabench, tmp_path, monkeypatch):
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "home"))
    run_helpers.uncalibrated(monkeypatch)
    torch.set_num_threads(1)
    own = ("--plugin", plugin)
    assert tdabench("truth", "build", "dots", "--workers", 1, *own).code == 0
    folder = tmp_path / "home" / "truth" / "dots@1"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["dataset"]["name"] == "my-dots" and manifest["dataset"]["code"] == code_hash(str(plugin))
    assert read_problem(folder, (plugin,)).train.images.shape == (24, 1, 8, 8)
    with pytest.raises(UserError, match="no dataset 'my-dots'"):
        read_problem(folder)
    run = ["run", "dots", "--methods", "dotty,pixel", "--results", tmp_path / "results", "--jobs", 1, *own]
    answer = tdabench(*run, "--metrics", "lds,union")
    assert answer.code == 0 and "dotty" in answer.out, answer
    rows = [json.loads(path.read_text()) for path in (tmp_path / "results" / "rows").rglob("*.json")]
    assert [row["status"] for row in rows] == ["ok", "ok"] and all(row["metrics"]["removal"] for row in rows)
    verified = tdabench("truth", "verify", "dots", "--sample", 1, *own)
    assert verified.code == 0 and "equal bits" in verified.out
    for words in (["truth", "info", "dots"], ["truth", "samples", "dots", tmp_path / "a.png"]):
        assert tdabench(*words, *own).code == 0
    shown = tdabench(
        "show", tmp_path / "b.png", "dots", "--methods", "dotty", "--results", tmp_path / "results", "--count", 1, *own
    )
    assert shown.code == 0, shown
    archive = tmp_path / "dots.tar"
    assert tdabench("truth", "export", "dots", archive, *own).code == 0
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "other"))
    assert tdabench("truth", "import", archive, *own).code == 0
    assert "dots: " not in tdabench("plan", "dots", "--methods", "dotty", *own).err


def test_a_listing_shows_what_a_plugin_brings(plugin, tdabench):
    said = tdabench("list", "--plugin", plugin).out
    assert "dots-larger" in said and "my-dots" in said.split("datasets: ")[1] and "dotty" in said


HEAD = "from dataclasses import replace\nfrom tdabench.benchmark.tasks.digits_tiny import TASK as TINY\n"
DATA = "from tdabench.methods import dataset\n"
BAD = {
    "taken-task": (HEAD + 'TASK = replace(TINY, name="digits")', "two tasks are called 'digits'"),
    "taken-dataset": (DATA + '@dataset("digits")\ndef load(): pass', "two datasets are called 'digits'"),
    "twice": (HEAD + 'TASK = replace(TINY, name="x")\nTASKS = [TASK]', "two tasks are called 'x'"),
    "computed-task": (HEAD + 'NAME = "x"\nTASK = replace(TINY, name=NAME)', "a task must be written as"),
    "unnamed-task": (HEAD + "TASK = TINY", "a task must be written as"),
    "odd-task": (HEAD + 'TASK = replace(TINY, name="../x")', "a task must be written as"),
    "computed-dataset": (DATA + 'NAME = "x"\n@dataset(NAME)\ndef load(): pass', "must be a literal string"),
    "odd-dataset": (DATA + '@dataset("a b")\ndef load(): pass', "is no name of a dataset"),
    "nothing": ("x = 1", "registers no method, dataset or task"),
    "no-python": ("def f(:", "is not valid Python"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("words", ["truth build digits-tiny", "list", "run digits-tiny"])
def test_a_bad_plugin_is_one_line(name, words, tdabench, tmp_path, monkeypatch):
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "home"))
    text, said = BAD[name]
    path = tmp_path / f"{name}.py"
    path.write_text(text + "\n")
    answer = tdabench(*words.split(), "--plugin", path)
    assert answer.code == 2 and answer.out == "" and said in answer.err and str(path) in answer.err
    assert answer.err.count("\n") == 1 and not (tmp_path / "home").exists()


def test_names_of_two_plugins_clash(plugin, tdabench, tmp_path):
    (tmp_path / "second.py").write_text(HEAD + 'TASK = replace(TINY, name="dots")\n')
    answer = tdabench("list", "--plugin", plugin, "--plugin", tmp_path / "second.py")
    assert answer.code == 2 and "two tasks are called 'dots'" in answer.err and "second.py" in answer.err


def test_a_plugin_given_twice_counts_once(plugin, tdabench, monkeypatch):
    monkeypatch.chdir(plugin.parent)
    assert tdabench("list", "--plugin", plugin, "--plugin", "dots.py").code == 0


def test_a_task_that_is_none_when_imported_is_one_line(tmp_path):
    path = tmp_path / "none.py"
    path.write_text('TASK = dict(name="none")\n')
    with pytest.raises(UserError, match="its TASK is no TaskSpec called 'none'"):
        find_task("none", (path,))


LOADERS = {
    "raises": ("raise ValueError('no luck')", "does not load: ValueError: no luck"),
    "exits": ("raise SystemExit(0)", "does not load: SystemExit"),
    "returns": ("return [1]", "is a list: its function must return an ImageDataset"),
}


@pytest.mark.parametrize("name", LOADERS)
def test_a_dataset_that_does_not_load_is_one_line(name, tdabench, tmp_path, monkeypatch):
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "home"))
    run_helpers.forget_plugins()
    body, said = LOADERS[name]
    path = tmp_path / "bad.py"
    text = f'{DATA}{HEAD}TASK = replace(TINY, name="bad", dataset="bad")\n@dataset("bad")\ndef load():\n    {body}\n'
    path.write_text(text)
    answer = tdabench("truth", "build", "bad", "--plugin", path)
    assert answer.code == 2 and said in answer.err and answer.err.count("\n") == 1, answer
    assert not list((tmp_path / "home").rglob("*.safetensors"))


def install(folder, monkeypatch, module):
    """Install a module of a folder as a distribution that brings a task, a dataset and a method."""
    info = folder / "dots-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dots\nVersion: 1.0\n")
    groups = [f"[tdabench.{kind}]\ndots = {module}\n" for kind in ("tasks", "datasets", "methods")]
    (info / "entry_points.txt").write_text("".join(groups))
    monkeypatch.syspath_prepend(folder)


def test_installed_modules_bring_tasks_and_datasets(plugin, tmp_path, monkeypatch):
    (tmp_path / "dots_installed.py").write_text(PLUGIN)
    install(tmp_path, monkeypatch, "dots_installed")
    assert "dots" in task_names() and "my-dots" in dataset_listings() and "dotty" in listings()
    assert find_task("dots").n_train == 24 and len(load_dataset("my-dots")) == 40
    found = dataset_origin("my-dots")
    assert found["plugin"] == "dots_installed" and found["code"] == code_hash("dots_installed")


def test_listing_an_installed_module_imports_none_of_the_packages_that_it_is_in(tmp_path, monkeypatch):
    folder = tmp_path / "outer_package" / "inner"
    folder.mkdir(parents=True)
    for package in (folder.parent, folder):
        (package / "__init__.py").write_text("raise SystemExit('imported')")
    (folder / "dots.py").write_text(PLUGIN)
    install(tmp_path, monkeypatch, "outer_package.inner.dots")
    assert "dots" in task_listings() and "my-dots" in dataset_listings() and "dotty" in listings()
    assert code_hash("outer_package.inner.dots") and code_files("outer_package.inner.dots")
    assert not [name for name in sys.modules if name.startswith("outer_package")]
    assert find_module("outer_package.none") is None and find_module("outer_package.inner.dots.none") is None
