"""Plugin files as listings read them: by their literals, importing nothing, whatever stands in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdabench.benchmark.tasks.find import check_plugins, task_listings
from tdabench.datasets.find import card_of, dataset_listings
from tdabench.methods.registry import Listing, listings
from tdabench.plugins import code_hash

from .fuzz import damaged, few, parsed, scalars

METHOD = '''from tdabench.methods import Method, register

PRESETS = {{"quick": 1}}


@register({name})
class Mine(Method):
    """What it does.

    And how.
    """

    {field} = {value}
    presets = {presets}

    def attribute(self, view, state, queries):
        raise NotImplementedError
'''
DATASET = (
    "from tdabench.methods import dataset\nCARD = Card({value}, source={value})\n\n@dataset({name})\ndef load(): ...\n"
)
TASK = "TASK = TaskSpec(name={name}, n_train={value})\nTASKS = {value}\n"
LITERALS = st.one_of(
    scalars.map(repr),
    st.sampled_from(
        ["()", "('a',)", "['a', 'b']", "{'a': 1}", "{[]: 1}", "{**{}}", "{1, 2}", "-x", "1 + 2j", "f'{a}'"]
    ),
    st.sampled_from(["int(1)", "NAME", "lambda: 0", "'a' 'b'", "('a')", "b'x'", "...", "{'quick': 1, **PRESETS}"]),
    st.sampled_from([10, 90, 150, 300, 900, 5000, 100_000]).flatmap(
        lambda n: st.sampled_from(["(" * n + ")" * n, "[" * n + "]" * n, "-" * n + "1", "+".join(["1"] * n)])
    ),
)
FIELDS = st.sampled_from([*Listing.__dataclass_fields__, "notes", "search"])
STRINGS = st.sampled_from(
    ['"own"', "'a-b'", '"pixel"', '"digits"', "NAME", "", "5", '"\\n"', '"' + "x" * 300 + '"', "*()"]
)
METHODS = st.builds(METHOD.format, name=STRINGS, field=FIELDS, value=LITERALS, presets=LITERALS)
OTHERS = st.builds(
    lambda form, name, value: form.format(name=name, value=value), st.sampled_from([DATASET, TASK]), STRINGS, LITERALS
)
SOURCES = (METHODS | OTHERS).map(lambda text: text.encode("utf-8", "surrogatepass"))
KINDS = {
    name: type(one.default) for name, one in Listing.__dataclass_fields__.items() if name not in ("name", "origin")
}

pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "own.py"


@given(SOURCES | SOURCES.flatmap(damaged) | st.binary(max_size=80))
@few
def test_a_file_lists_what_is_of_the_right_types_or_is_refused(path, data):
    path.write_bytes(data)
    found = parsed(listings, (path,))
    for listing in (found or {}).values():
        assert {name: type(getattr(listing, name)) for name in KINDS} == KINDS
        assert all(isinstance(preset, str) for preset in listing.presets)


@given(SOURCES | SOURCES.flatmap(damaged) | st.binary(max_size=80))
@few
def test_a_file_brings_something_or_is_refused(path, data):
    path.write_bytes(data)
    parsed(check_plugins, (path,))
    for name, listing in (parsed(dataset_listings, (path,)) or {}).items():
        if listing.origin == str(path):
            assert name.isprintable() and json.dumps(name) and isinstance(card_of(listing), dict)
    for name in parsed(task_listings, (path,)) or {}:
        assert name.isprintable()
    if parsed(check_plugins, (path,)) is not None:
        assert code_hash(str(path))
