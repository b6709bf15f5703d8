"""A method that another process imports is described as its class would say it."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from tdabench.benchmark.run import described
from tdabench.benchmark.run.code import code_hash
from tdabench.benchmark.run.described import adapter_of, code_of, planning_class
from tdabench.benchmark.run.results import Results
from tdabench.benchmark.sandbox import enclosure
from tdabench.benchmark.sandbox.enclosure import SUBMISSION, keep_from_methods
from tdabench.benchmark.sandbox.fork_server import temporary_of_process
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
    assert told.code == code_hash(cls)
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
    path, before = tmp_path / "rich.py", code_of(both[0])
    path.write_text(RICH.replace("version = 3", "version = 4"))
    edited = planning_class("rich", str(path), (path,))
    assert edited.version == 4 and code_of(edited) != before


LIES = "import tdabench.benchmark.run.described as d\nd.code_hash = lambda cls: {!r}\n"


@pytest.mark.parametrize("lie", ["x/" + "../" * 9, "", "0123456789ABCDEF", "0123456789abcdef/.."])
def test_a_hash_that_a_method_states_is_one(lie, tmp_path):
    path = tmp_path / "rich.py"
    path.write_text(LIES.format(lie) + RICH)
    with pytest.raises(UserError, match="describes 'rich' in a way that makes no sense"):
        planning_class("rich", str(path), (path,))


def test_no_file_has_anothers_hash_whatever_it_states(tmp_path):
    paths = [tmp_path / "one.py", tmp_path / "two.py"]
    for path in paths:
        path.write_text(f"{LIES.format('0123456789abcdef')}# {path.name}\n{RICH}")
    one, two = (code_of(planning_class("rich", str(path), (path,))) for path in paths)
    assert one != two


def described_with(code, tmp_path):
    """Return what a method says as its notes, having run some lines that set ``found`` when it was imported."""
    path = tmp_path / "rich.py"
    path.write_text(f"{code}\n" + RICH.replace('"shorter"', "repr(found)"))
    return planning_class("rich", str(path), (path,)).notes["quick"]


@pytest.fixture
def submission():
    """Return the folder of a submission that another process looks at."""
    with tempfile.TemporaryDirectory(prefix=SUBMISSION) as folder:
        yield Path(folder)


READS = """
from pathlib import Path
found = []
for place in {places!r}:
    try:
        found.append(Path(place).read_text())
    except PermissionError:
        pass
"""


@pytest.mark.landlock(1)
def test_what_describes_a_method_reads_no_results_submissions_or_temporary_files(tmp_path, submission):
    results = Results(tmp_path / "results").folder
    places = [results / part / "file" for part in ("rows", "cells", "logs", "kept")]
    places += [Path(temporary_of_process(), "host-x", "file"), submission / "file"]
    places += [tmp_path / "submission.tar", tmp_path / "open"]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(place.name)
    keep_from_methods(tmp_path / "submission.tar")
    assert described_with(READS.format(places=list(map(str, places))), tmp_path) == "['open']"


@pytest.mark.landlock(1)
def test_a_link_beside_a_plugin_opens_nothing_that_is_closed(tmp_path):
    secret = Results(tmp_path / "results").folder / "rows" / "secret.py"
    secret.parent.mkdir()
    secret.write_text("secret = 'it'")
    (tmp_path / "helper.py").symlink_to(secret)
    with pytest.raises(UserError, match="PermissionError"):
        described_with("from helper import secret as found", tmp_path)


def test_who_could_not_be_shut_in_answers_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(enclosure, "shut_in", lambda *words: "none")
    monkeypatch.setattr(enclosure, "shelter", lambda: "landlock 6")
    assert described._shut_in((str(tmp_path),), str(tmp_path), ()) == {
        "error": "shut in by none, where landlock 6 was expected: run with --no-isolation"
    }


HALF = """
import os, stat, time
for pipe in range(3, 4096):
    try:
        if stat.S_ISSOCK(os.fstat(pipe).st_mode):
            os.write(pipe, {!r})
    except OSError:
        pass
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("sent", "within", "said"),
    [
        (b"\0\0\0\x64x", 5, "does not answer within 5 s"),
        (b"\x7f\xff\xff\xff", 50, "a message of more than 1,048,576 bytes"),
    ],
)
def test_half_an_answer_holds_nobody_up(sent, within, said, tmp_path, monkeypatch):
    monkeypatch.setattr(described.Host.ask, "__kwdefaults__", {"within": within})
    start = time.monotonic()
    with pytest.raises(UserError, match=said):
        described_with(HALF.format(sent), tmp_path)
    assert time.monotonic() - start < 60


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
