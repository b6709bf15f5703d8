"""Parameters that came later leave the hashes of stored rows as they were."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import tdabench
from tdabench.benchmark.run.plan import Planner
from tdabench.benchmark.tasks.find import find_task
from tdabench.errors import UserError
from tdabench.methods.engines.levels import law_of
from tdabench.methods.mucs import Mucs, Params
from tdabench.methods.registry import Entry, method_class, params_from_json, params_hash, params_json, preset_params

RESULTS = Path(tdabench.__file__).parent / "leaderboard" / "results" / "digits@1"
KEYS = {str(path.relative_to(RESULTS)): json.loads(path.read_text())["key"] for path in RESULTS.rglob("*.json")}
MUCS = {path: key for path, key in KEYS.items() if key["method"] == "mucs"}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
def test_parameters_of_committed_rows_keep_their_hashes(key):
    params = params_from_json(method_class(key["method"]), key["params"])
    assert params_hash(params) == key["params_hash"] and params_json(params) == key["params"]


@pytest.mark.parametrize("key", MUCS.values(), ids=MUCS.keys())
def test_presets_of_mucs_are_what_committed_rows_hold(key):
    params = preset_params(Mucs, key["preset"])
    assert params_hash(params) == key["params_hash"] and params_json(params) == key["params"]


def test_fields_that_came_later_are_left_out_at_their_defaults_only():
    later = [f.name for f in fields(Params) if f.metadata.get("later")]
    assert later and not set(later) & set(params_json(Params()))
    changed = replace(Params(), augment=0.12)
    assert params_json(changed) == {**params_json(Params()), "augment": 0.12}
    assert params_hash(changed) != params_hash(Params())
    assert params_from_json(Mucs, params_json(changed)) == changed


def test_a_cell_is_keyed_by_what_is_hashed():
    planner = Planner(find_task("digits-tiny"), SimpleNamespace())  # keys need no truth
    for preset, params in Mucs.presets.items():
        key = planner._key(Entry("mucs", preset), Mucs, params, "test", 0)
        assert (key.params, key.params_hash) == (params_json(params), params_hash(params))


@pytest.mark.parametrize("portion", [0.0, -0.5, 1.5])
def test_a_portion_that_is_none_is_one_line(portion, view):
    with pytest.raises(UserError, match="above 0 and at most 1"):
        law_of(view, "edm-grid", portion, 10)
    assert law_of(view, "training", portion, 10).kind == "training"
