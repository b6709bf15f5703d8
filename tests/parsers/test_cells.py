"""What a cell, the process that describes a method and other processes leave behind or send, whatever it is."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tdabench.benchmark.run import described
from tdabench.benchmark.run.described import COPIED, Host, planning_class
from tdabench.benchmark.run.record import Record
from tdabench.benchmark.run.runner import parse_event
from tdabench.datasets.stored import COLUMNS, Item, open_items, write_items
from tdabench.methods import Sizes
from tdabench.methods.base import Method
from tdabench.methods.registry import params_hash, params_json
from tdabench.store import FolderStore

from .fuzz import damaged, documents, few, many, parsed

SIZES = Sizes(n_items=11, n_queries=3, n_parameters=9, parameters={"a": 4}, shape=(1, 8, 8))
PART = slice(0, 2)
SAID = {
    **{name: getattr(Method, name) for name in COPIED},
    "version": 2,
    "code": "0123456789abcdef",
    "parameters": [{"name": "scale", "later": False}, {"name": "late", "later": True, "default": [1]}],
    "presets": {"quick": {"scale": 1.0}, "paper": {"scale": 2.0, "late": [2, 3]}},
    "search": {"scale": [1.0, 2.0]},
    "ablations": {"short": {"scale": 0.5}},
    "notes": {"quick": "shorter"},
}


class Sent:
    """A connection over which one answer comes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def send(self, question: bytes, within: float) -> None:
        json.loads(question)

    def receive(self, within: float) -> bytes:
        return self.data


@pytest.fixture(scope="module")
def answering():
    """Return a function from what is sent to a host that gets it as the answer, and has nothing to end."""

    def host(data: bytes) -> Host:
        made = Host.__new__(Host)
        made.classes, made._named, made._connection, made._process = {}, "mine.py", Sent(data), None
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(described, "kill_cell", lambda process, server: None)
        patch.setattr(described, "_host", lambda plugins, isolated: described._HOSTS["answering"])
        for name in ("send", "receive"):
            patch.setattr(described, name, getattr(Sent, name))
        yield host


def describing(host: Host) -> type[Method]:
    described._HOSTS["answering"] = host
    return planning_class("mine", "mine.py", ())


def answers(value: object) -> st.SearchStrategy[bytes]:
    return documents({"answer": value})


@given(answers(SAID) | documents({"error": "no idea"}))
@example(data=b'{"error": ""}')
@many
def test_a_method_is_described_in_its_types_or_refused(answering, data):
    cls = parsed(describing, answering(data))
    if cls is not None:
        assert {name: type(getattr(cls, name)) for name in COPIED} == {n: type(getattr(Method, n)) for n in COPIED}
        for params in cls.presets.values():
            assert params_hash(params) and json.loads(json.dumps(params_json(params))) == params_json(params)


@given(answers(["pixel", "random:quick"]), st.sampled_from(["reads", "encoders_of"]))
@many
def test_what_a_method_reads_is_names_or_refused(answering, data, question):
    cls = describing(answering(json.dumps({"answer": SAID}).encode()))
    cls.host._connection = Sent(data)
    found = parsed(getattr(cls, question), cls.presets["quick"])
    assert found is None or all(isinstance(name, str) for name in found)


@given(answers({"forward": 10, "trained": 0, "bytes": 5}) | answers(None))
@many
def test_an_estimate_is_counts_or_refused(answering, data):
    cls = describing(answering(json.dumps({"answer": SAID}).encode()))
    cls.host._connection = Sent(data)
    found = parsed(cls(cls.presets["quick"]).estimate, SIZES)
    assert found is None or all(type(count) is int for count in asdict(found).values())


@given(documents(["fit", 1, 2]))
@many
def test_an_event_is_a_line_with_counts_or_nothing(data):
    found = parse_event(data)
    assert found is None or (found[0].isprintable() and len(found[0]) <= 201 and 0 <= found[1] <= found[2])


@pytest.fixture
def record(tmp_path) -> Record:
    record = Record(tmp_path / "record")
    record.store.put_json("fit.json", {"fit": {"seconds": 1.0}, "diagnostics": {}}, sealed=True)
    record.store.put_json("spec.json", {"query_ids": ["a", "b"]}, sealed=True)
    record.put(PART, np.zeros((2, 3)), {"attribute": {"seconds": 1.0}, "diagnostics": {}})
    return record


NAMES = ["fit.json", "spec.json", "slice-00000-00002.json", "slice-00000-00002.safetensors"]
SCORES = b"<\0\0\0\0\0\0\0" + b'{"scores":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}}'.ljust(64) + bytes(12)


@given(st.sampled_from(NAMES), st.booleans(), st.data())
@few
def test_what_is_wrong_with_a_record_is_said(record, name, sealed, data):
    store = record.store
    before, seal = store.path(name).read_bytes(), store.path(f"{name}.sha256")
    sealed_before = seal.exists()
    spoilt = damaged(before) if name.endswith("s") else documents(json.loads(before))
    after = data.draw(spoilt)
    (store.keep if sealed else store.put)(name, after)
    said = record.damage()
    assert said is None or said.strip()
    if said is None and parsed(record.matrix) is not None:
        assert record.matrix().shape == (2, 3) and record.scores_hash()
    (store.keep if sealed_before else store.put)(name, before)
    if not sealed_before:
        seal.unlink(missing_ok=True)


HERE = {"host": "here", "machine": "m", "boot": "b", "pids": "pid:[1]"}
CLAIM = {**HERE, "pid": 1, "ticks": 1, "started": 1.0, "time": 1.0, "token": "a"}


@given(documents(CLAIM))
@many
def test_any_claim_is_held_or_lapses(tmp_path, data):
    store = FolderStore(tmp_path)
    (tmp_path / ".run.claim").write_bytes(data)
    said = store.holder("run")
    assert said is None or said.isprintable()
    with store.claim("run", ttl=5) as held:
        assert held in (True, False)


@given(documents(CLAIM))
@many
def test_a_claim_is_let_go_whatever_became_of_it(tmp_path, data):
    store = FolderStore(tmp_path)
    (tmp_path / ".run.claim").unlink(missing_ok=True)
    with store.claim("run") as held:
        assert held
        (tmp_path / ".run.claim").write_bytes(data)


@pytest.fixture(scope="module")
def items(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stored") / "items"
    made = [Item(np.full((1, 2, 2), i, np.uint8), i % 2, {"y": np.array([i])}, {"by": i}) for i in range(3)]
    write_items(folder, len(made), made.__getitem__, lambda done: None, source={"skipped": {}})
    return folder


@given(st.data())
@many
def test_a_stored_dataset_is_opened_or_refused(items, data):
    path = items / COLUMNS
    before = path.read_bytes()
    try:
        FolderStore(items).keep(COLUMNS, data.draw(documents(json.loads(before))))
        stored = parsed(open_items, items)
        if stored is not None:
            assert stored.images[:].shape[0] == len(stored.classes) == 3
            assert all(len(column[:]) == 3 for column in stored.cond.values())
    finally:
        FolderStore(items).keep(COLUMNS, before)
