"""A method that another process imports is described as its class would say it."""

from __future__ import annotations

from dataclasses import asdict, fields

import pytest

from tdabench.benchmark.run import described
from tdabench.benchmark.run.code import code_hash
from tdabench.benchmark.run.described import adapter_of, code_of, planning_class
from tdabench.errors import UserError
from tdabench.methods import Sizes
from tdabench.methods.base import CLASSES
from tdabench.methods.registry import listings, method_class, params_hash, params_json, preset_params

from ... import run_helpers

RICH = '''
from dataclasses import dataclass, field

import torch
from tdabench.methods import Estimate, Method, register


@dataclass(frozen=True)
class Params:
    scale: float
    members: tuple = ("pixel", "random:quick")
    layers: tuple = (1, 2)
    late: int = field(default=0, metadata={"later": True})


@register("rich")
class Rich(Method):
    """Of every kind of attribute something."""

    Params = Params
    presets = {"quick": Params(1.0), "paper": Params(2.0, layers=(3,), late=1)}
    search = {"scale": (1.0, 2.0), "layers": ((1,), (2, 3))}
    ablations = {"short": {"layers": [1]}}
    notes = {"quick": "shorter"}
    version = 3
    needs = ("stored-scores",)
    slice_size = 7
    encoders = ("pixels",)

    def estimate(self, sizes):
        return Estimate(forward=sizes.n_items * len(self.params.layers), bytes=sum(sizes.parameters.values()))

    def attribute(self, view, state, queries):
        return torch.zeros(len(queries), len(view.train))
'''
SIZES = Sizes(n_items=11, n_queries=3, n_parameters=9, parameters={"a": 4, "b": 5}, shape=(1, 8, 8))


@pytest.fixture
def both(tmp_path):
    """(the described class, the class itself), of one file."""
    path = tmp_path / "rich.py"
    path.write_text(RICH)
    run_helpers.forget_plugins()
    told = planning_class("rich", listings((path,))["rich"].origin, (path,))
    assert "rich" not in CLASSES
    return told, method_class("rich", (path,))


def test_attributes_parameters_and_hashes_are_the_same(both):
    told, cls = both
    for name in (*described.COPIED, "notes"):
        assert getattr(told, name) == getattr(cls, name), name
    assert [one.name for one in fields(told.Params)] == [one.name for one in fields(cls.Params)]
    assert told.search == cls.search
    for preset in ("quick", "paper", "quick+short", "paper+short", '{"scale": 5.0}'):
        ours, theirs = preset_params(told, preset), preset_params(cls, preset)
        assert (asdict(ours), params_json(ours), params_hash(ours)) == (
            asdict(theirs),
            params_json(theirs),
            params_hash(theirs),
        )
    assert code_of(told) == code_hash(cls)
    assert adapter_of(told) is not None and adapter_of(cls) is None


def test_questions_are_answered_by_the_method(both):
    told, cls = both
    for preset in ("quick", "paper"):
        ours, theirs = preset_params(told, preset), preset_params(cls, preset)
        assert told.reads(ours) == cls.reads(theirs) == ("pixel", "random:quick")
        assert told.encoders_of(ours) == cls.encoders_of(theirs)
        assert told(ours).estimate(SIZES) == cls(theirs).estimate(SIZES)
    with pytest.raises(TypeError, match="only described"):
        told(ours).attribute(None, None, None)


def test_an_edited_file_is_described_anew(both, tmp_path):
    path = tmp_path / "rich.py"
    path.write_text(RICH.replace("version = 3", "version = 4"))
    assert planning_class("rich", str(path), (path,)).version == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('"quick": Params(1.0)', '"quick": 5'), "describes 'rich' in a way that makes no sense"),
        (("return Estimate(", "raise ValueError('no idea')\n        return Estimate("), "no idea"),
        (("return Estimate(", "import time; time.sleep(60)\n        return Estimate("), "does not answer within 0.5 s"),
        (("return Estimate(", "import os; os._exit(3)\n        return Estimate("), "ended the process that imports it"),
    ],
)
def test_what_goes_wrong_there_is_one_line_here(change, said, tmp_path, monkeypatch):
    path = tmp_path / "rich.py"
    path.write_text(RICH.replace(*change))
    with pytest.raises(UserError, match=said):
        estimated(path, monkeypatch)


def estimated(path, monkeypatch):
    """Return what a described method estimates, for which it has half a second once it is imported."""
    told = planning_class("rich", str(path), (path,))
    method = told(preset_params(told, "quick"))
    monkeypatch.setattr(described.Host.ask, "__kwdefaults__", {"within": 0.5})
    return method.estimate(SIZES)


def test_a_method_of_the_package_is_its_class():
    assert planning_class("pixel", listings()["pixel"].origin, ()) is method_class("pixel")
