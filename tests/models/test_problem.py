"""Datasets found by name: what is missing is told apart from what is broken."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

import tdabench.datasets
from tdabench.datasets.find import load_dataset
from tdabench.errors import UserError

from .. import run_helpers

tiny_home = run_helpers.tiny_home


def test_an_unknown_dataset_is_one_line():
    with pytest.raises(UserError, match=r"no dataset 'digitz': add datasets/digitz\.py"):
        load_dataset("digitz")


@pytest.mark.parametrize("line", ["import no_such_package", "from sklearn.datasets import no_such_name"])
def test_a_dataset_that_does_not_import_is_not_called_missing(line, tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text(line + "\n")
    monkeypatch.setattr(tdabench.datasets, "__path__", [*tdabench.datasets.__path__, str(tmp_path)])
    with pytest.raises(UserError, match=r"dataset 'broken' does not load: .*no_such") as caught:
        load_dataset("broken")
    assert "add datasets" not in str(caught.value)


def test_a_package_that_is_missing_when_loading_is_named(monkeypatch):
    broken = ModuleType("tdabench.datasets.lacking")
    broken.load = lambda: __import__("no_such_package")
    monkeypatch.setitem(sys.modules, broken.__name__, broken)
    with pytest.raises(UserError, match="does not load: No module named 'no_such_package'"):
        load_dataset("lacking")


def test_the_weights_of_a_problem_lead_to_no_truth(tiny_home, monkeypatch):
    from tdabench.datasets.truth import Assets
    from tdabench.models.problem import read_problem

    monkeypatch.setenv("TDABENCH_HOME", str(tiny_home))
    problem = read_problem(run_helpers.assets().folder)
    for weights in (problem.weights, problem.raw):
        assert not any(isinstance(value, Assets) for value in vars(weights).values())
    assert 0 in problem.weights and 10 in problem.weights and 11 not in problem.weights
