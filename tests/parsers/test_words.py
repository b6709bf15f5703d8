"""Words of the command line: methods, presets, seeds, sizes, metrics, encoders, groups, whatever they say."""

from __future__ import annotations

import json
import math
from dataclasses import fields

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from tdabench.benchmark.attribution.request import parse_memory
from tdabench.benchmark.commands.plan.command import parse_metrics as planned_metrics
from tdabench.benchmark.commands.run import METRICS
from tdabench.benchmark.commands.run import parse_metrics as run_metrics
from tdabench.benchmark.commands.words.options import MEMORY, memory_of, seeds_of, split
from tdabench.benchmark.metrics.removal.similarities import parse_encoders
from tdabench.benchmark.run.plan import MOST, checked_options, parse_entries
from tdabench.benchmark.tasks.find import find_task
from tdabench.datasets.groups import group_items, items_where
from tdabench.methods.registry import Entry, listings, method_class, params_hash, params_json, preset_params
from tdabench.models.encoders.published import NAMES
from tdabench.seeds import derive, digest

from .. import tiny
from .fuzz import ODD_TEXTS, changed, documents, few, many, parsed, scalars, texts, values

KNOWN = listings()
WORDS = st.one_of(texts, st.sampled_from([*ODD_TEXTS, *KNOWN, "quick", "paper", ":", "+", "=", ",", "{", "@1"]))
NAMED = st.lists(WORDS | st.sampled_from(list(KNOWN)), max_size=4).map("".join)
LISTS = st.lists(WORDS | NAMED, max_size=4).map(",".join)


@given(
    st.lists(NAMED | st.builds("{}:{}".format, st.sampled_from(list(KNOWN)), NAMED), max_size=3), st.lists(NAMED), WORDS
)
@many
def test_entries_are_of_known_methods_and_presets_or_refused(names, excluded, preset):
    entries = parsed(parse_entries, names, excluded, preset, KNOWN)
    assert all(KNOWN[entry.method].offers(entry.preset) for entry in entries or ())
    assert len(set(entries or ())) == len(entries or ())


SPECIAL = ["d-trak", "pixel", "random", "mucs", "ensemble"]


@given(st.sampled_from(SPECIAL), st.data())
@few
def test_a_preset_is_parameters_that_make_a_key_or_refused(name, data):
    cls = method_class(name)
    start = params_json(preset_params(cls, "quick"))
    given_json = documents(start).map(lambda text: text.decode(errors="replace"))
    params = parsed(preset_params, cls, data.draw(given_json | NAMED | changed(start).map(json.dumps)))
    if params is not None:
        assert isinstance(params, cls.Params) and params_hash(params)
        again = preset_params(cls, json.dumps(params_json(params)))
        assert params_json(again) == params_json(params)


@given(LISTS | st.lists(st.integers(), min_size=1).map(lambda many: ",".join(map(str, many))))
@many
def test_seeds_are_distinct_whole_numbers_or_refused(text):
    seeds = parsed(seeds_of, text)
    if seeds is not None:
        assert seeds and len(set(seeds)) == len(seeds) and all(0 <= derive("a", seed) < 2**63 for seed in seeds)
        assert seeds_of(",".join(map(str, seeds))) == seeds
        assert all(len(str(seed)) < 100 for seed in seeds)  # for a file is called after each


UNITS = ["", "k", "M", "GB", "gib", "TiB", "b", "x"]
SIZES = st.builds("{}{}{}".format, scalars, st.sampled_from(["", " ", "\t"]), st.sampled_from(UNITS)) | WORDS


@given(SIZES | st.floats(0, 1e6).map("{:.3f}GB".format) | st.integers(0).map(str))
@many
def test_a_size_is_a_finite_number_of_gib_or_refused(text):
    size = parsed(parse_memory, text)
    assert size is None or (0 <= size < math.inf and (size > 0) == (text != ""))


@given(st.floats() | st.sampled_from([0.0, 0.001, 1e9]))
@many
def test_a_limit_in_gib_is_one_a_machine_can_have_or_refused(gib):
    found = parsed(memory_of, gib)
    assert found is None or found == 0 or MEMORY[0] <= found <= MEMORY[1]


FLOATS = st.floats() | st.sampled_from([0.0, 1.0, 1e30])


@given(WORDS | st.sampled_from(["cpu", "cpu:0", "meta"]), st.integers(), FLOATS, FLOATS, st.integers(), WORDS)
@example("x" * 5000, 1, 1.0, 1.0, 1, "float32")
@example("cpu", 1, 1.0, 1.0, 1, "x" * 5000)
@many
def test_options_are_within_bounds_or_refused(device, jobs, timeout, memory, micro_batch, precision):
    options = parsed(checked_options, device, jobs, timeout, memory, micro_batch, False, False, precision)
    if options is not None:
        assert 1 <= options.jobs <= MOST and 1 <= options.micro_batch <= MOST and options.memory_bytes
        assert 0 < options.timeout_s < math.inf and options.threads >= 1


@given(LISTS | st.lists(st.sampled_from([*METRICS, "union", "per-query"])).map(",".join))
@many
def test_metrics_are_known_or_refused(text):
    found = parsed(run_metrics, split(text), "auto", -1, True)
    assert found is None or set(found[0]) <= set(METRICS)
    beside = parsed(planned_metrics, split(text))
    assert beside is None or len(set(beside)) == len(beside)


@given(LISTS | st.lists(st.builds("{}={}".format, st.sampled_from(NAMES), WORDS)).map(",".join))
@example(f"clip=,clip={'x' * 5000}")
@many
def test_encoders_are_known_or_refused(text):
    found = parsed(parse_encoders, text)
    assert found is None or set(found) <= set(NAMES)


@given(WORDS | st.builds("{}@{}".format, st.sampled_from(["digits", "digits-tiny"]), WORDS))
@many
def test_a_task_is_known_or_refused(name):
    spec = parsed(find_task, name)
    assert spec is None or name in (spec.name, spec.label, f"{spec.name}@")


@given(
    st.dictionaries(WORDS | st.just("classes"), st.lists(WORDS | st.sampled_from(["0", "1"]), max_size=3), max_size=2)
)
@many
def test_items_of_groups_are_there_or_refused(where):
    data = tiny.dataset(6)
    ids = parsed(items_where, data, where)
    assert ids is None or torch.isin(ids, torch.arange(6)).all()
    for by, names in where.items():
        groups = parsed(group_items, data, by, names)
        assert groups is None or (len(groups.assignment) == 6 and len(set(groups.names)) == len(groups))


@given(values)
@example({"\ud801": None, "\ud800\udc00": None})
@many
def test_a_digest_is_of_json_alone(value):
    try:
        found = digest(value)
    except ValueError:  # a number that is not finite, a lone surrogate
        return
    assert found == digest(json.loads(json.dumps(value)))


def test_the_presets_that_are_changed_are_read():
    for name in SPECIAL:
        cls = method_class(name)
        assert preset_params(cls, json.dumps(params_json(cls.presets["quick"]))) == cls.presets["quick"]
        assert fields(cls.Params) is not None


@pytest.mark.parametrize("entry", ["pixel", "pixel:distance"])
def test_an_entry_is_read(entry):
    method, _, preset = entry.partition(":")
    assert parse_entries([entry], [], "quick", KNOWN) == [Entry(method, preset or "quick")]
