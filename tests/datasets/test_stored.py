"""Items on disk: what comes back, in which order, and what is refused."""

from __future__ import annotations

import hashlib
import io
import json
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tdabench.datasets import stored
from tdabench.datasets.base import Card, ImageDataset
from tdabench.datasets.find import store_folder
from tdabench.datasets.stored import COLUMNS, ITEMS, NULL, Item, open_items, spoilt, write_items
from tdabench.errors import CorruptFile, UserError
from tdabench.store import FolderStore

N = 2345  # more than are written at a time
CARD = Card("dots", "dots", "made here", "CC0", "1", "uint8 mapped to [-1, 1]")


def item(i):
    pixels = np.random.default_rng(i).integers(0, 256, (3, 4, 5), dtype=np.uint8)
    cond = {"class_labels": np.array(i % 3), "encoder_hidden_states": np.full((2, 4), i, dtype=np.float32)}
    return Item(pixels, i % 3, cond)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored") / "dots"
    write_items(folder, N, item, lambda done: None)
    return folder


def dataset(folder):
    found = open_items(folder)
    return ImageDataset(CARD, found.images, found.classes, found.cond, hashes=found.hashes)


def order():
    """Return which source row each stored item is, from the items' own hashes."""
    return sorted(range(N), key=lambda i: item(i).hash())


def test_items_come_back_in_the_order_of_their_hashes(folder):
    data, rows = dataset(folder), order()
    assert tuple(data.images.shape) == (N, 3, 4, 5) and len(data) == N and data.shape == (3, 4, 5)
    chosen = torch.tensor([0, N - 1, 7, 7, 1200])
    batch = data.batch(chosen)
    for position, place in enumerate(chosen.tolist()):
        source = item(rows[place])
        expected = torch.from_numpy(source.pixels).float() / 127.5 - 1
        assert torch.equal(batch.x[position], expected) and torch.equal(data.pixels(chosen)[position], expected)
        assert int(data.classes[place]) == int(batch.cond["class_labels"][position]) == source.label
        assert (batch.cond["encoder_hidden_states"][position] == rows[place]).all()
    assert torch.equal(data.images[3:6], data.images[torch.tensor([3, 4, 5])])


def test_the_order_of_the_source_does_not_matter(folder, tmp_path):
    shuffled = np.random.default_rng(0).permutation(N).tolist()
    write_items(tmp_path / "other", N, lambda i: item(shuffled[i]), lambda done: None)
    one, other = dataset(folder), dataset(tmp_path / "other")
    assert one.fingerprint() == other.fingerprint()
    ids = torch.tensor([5, 1, 2000])
    assert torch.equal(one.pixels(ids), other.pixels(ids))
    assert one.select(ids).fingerprint() == other.select(ids).fingerprint() != one.select(ids.flip(0)).fingerprint()


def changed(what):
    def read(i):
        found = item(i)
        if i != 11:
            return found
        if what == "label":
            return Item(found.pixels, found.label + 1, found.cond)
        if what == "pixel":
            return Item(found.pixels ^ np.eye(4, 5, dtype=np.uint8), found.label, found.cond)
        return Item(found.pixels, found.label, {**found.cond, "class_labels": np.array(9)})

    return read


@pytest.mark.parametrize("what", ["label", "pixel", "condition"])
def test_one_changed_item_is_another_dataset(folder, tmp_path, what):
    write_items(tmp_path / "other", N, changed(what), lambda done: None)
    assert dataset(tmp_path / "other").fingerprint() != dataset(folder).fingerprint()


def test_selecting_reads_nothing_and_renumbers(folder):
    data = dataset(folder)
    chosen = torch.arange(N - 1, 0, -2)
    part = data.select(chosen).select(torch.tensor([3, 0]))
    assert part.images.rows is data.images.rows and part.images.index.tolist() == chosen[[3, 0]].tolist()
    assert torch.equal(part.batch(torch.tensor([0, 1])).x, data.pixels(chosen[[3, 0]]))
    assert part.classes.tolist() == data.classes[chosen[[3, 0]]].tolist()


def test_no_items_are_a_batch_of_none(folder):
    data = dataset(folder)
    batch = data.batch(torch.arange(0))
    assert (
        batch.x.shape == (0, 3, 4, 5)
        and batch.cond["class_labels"].shape == (0,)
        and len(data.select(torch.arange(0))) == 0
    )


def test_an_item_is_recognised_by_its_hash(folder):
    data, rows = dataset(folder), order()
    source = item(rows[4])
    parts = hashlib.sha256(f"class {source.label}".encode())
    for name, value in (
        ("pixels", source.pixels),
        ("class_labels", source.cond["class_labels"]),
        ("encoder_hidden_states", source.cond["encoder_hidden_states"]),
    ):
        parts.update(f"{name} {value.dtype.str} {value.shape}".encode() + value.tobytes())
    assert data.item_hashes(torch.tensor([4])) == [parts.hexdigest()]


def test_items_in_memory_are_recognised_by_what_they_hold():
    images, classes = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 0, 1])
    data = ImageDataset(CARD, images, classes)
    twice = ImageDataset(CARD, images[[0, 0, 2, 3]], classes[[0, 1, 0, 1]])
    found, other = data.item_hashes(torch.arange(4)), twice.item_hashes(torch.arange(4))
    assert len(set(found)) == 4 and found[0] == other[0] != other[1] and found[2:] == other[2:]


def test_items_that_are_not_alike_are_one_line(tmp_path):
    odd = Item(np.zeros((3, 4, 4), np.uint8), 0, {})
    like = Item(np.zeros((3, 4, 5), np.uint8), 0, {})
    with pytest.raises(UserError, match=r"pixels of row 2 is uint8 \(3, 4, 4\)"):
        write_items(tmp_path / "x", 3, lambda i: odd if i == 2 else like, lambda done: None)
    with pytest.raises(UserError, match="row 1 of the source and row 0 do not both have class_labels"):
        write_items(tmp_path / "x", 2, lambda i: item(i) if i == 0 else like, lambda done: None)
    with pytest.raises(UserError, match="no rows"):
        write_items(tmp_path / "x", 0, item, lambda done: None)
    assert not (tmp_path / "x").exists()


def test_an_interrupted_store_is_none(tmp_path):
    def stop(done):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_items(tmp_path / "x", 5, item, stop)
    assert not (tmp_path / "x").exists()


def test_what_replaces_stored_images_has_no_hashes_of_theirs(folder):
    data = dataset(folder)
    images = data.pixels(torch.arange(N))
    other = replace(data, images=-images)
    assert other.hashes is None and other.fingerprint() != data.fingerprint()
    assert replace(data, classes=data.classes.flip(0)).fingerprint() != data.fingerprint()
    cond = {name: column[torch.arange(N)] for name, column in data.cond.items()}
    assert replace(data, cond={**cond, "class_labels": cond["class_labels"] + 1}).fingerprint() != data.fingerprint()


def test_a_flipped_byte_is_found_when_it_is_opened(tmp_path):
    write_items(tmp_path / "x", 5, item, lambda done: None)
    path = tmp_path / "x" / "items.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFile, match="not what was stored"):
        open_items(tmp_path / "x")


def test_items_of_many_bytes_are_compared_with_their_hash_when_that_is_asked_for(tmp_path, monkeypatch):
    write_few(tmp_path / "x")
    path = tmp_path / "x" / "items.arrow"
    data = path.read_bytes()
    groups = np.array([i % 2 for i in sorted(range(5), key=lambda i: item(i).hash())])
    assert data.count(groups.tobytes()) == 1  # no item's hash is of these
    path.write_bytes(data.replace(groups.tobytes(), (1 - groups).tobytes()))
    monkeypatch.setattr(stored, "CHECKED", len(data) - 1)
    assert spoilt(open_items(tmp_path / "x"), lambda done, total: None) == 0
    with pytest.raises(CorruptFile, match="not what was stored"):
        open_items(tmp_path / "x", whole=True)


@pytest.mark.parametrize("spoil", ["missing", "truncated", "columns"])
def test_a_broken_store_is_named(tmp_path, spoil):
    write_items(tmp_path / "x", 5, item, lambda done: None)
    path = tmp_path / "x" / ("columns.json" if spoil == "columns" else "items.arrow")
    if spoil == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 20 if spoil == "columns" else 300])
    with pytest.raises(CorruptFile, match=str(tmp_path / "x")):
        open_items(tmp_path / "x")


def write_few(folder, **more):
    """Store five items that are grouped by one thing, and what stands for no condition."""

    def read(i):
        return replace(item(i), groups={"by": i % 2})

    null = {"encoder_hidden_states": torch.zeros(2, 4)}
    write_items(folder, 5, read, lambda done: None, null, group_names={"by": ("ann", "bob")}, **more)


EDITS = {
    "shape": lambda found: found["columns"]["pixels"]["shape"].reverse(),
    "type": lambda found: found["columns"]["pixels"].update(dtype="|i1"),
    "names": lambda found: found["groups"]["by"].reverse(),
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_of_what_columns_are_is_found(tmp_path, what):
    write_few(tmp_path / "x")
    found = json.loads((tmp_path / "x" / COLUMNS).read_text())
    EDITS[what](found)
    FolderStore(tmp_path / "x").put_json(COLUMNS, found)
    with pytest.raises(CorruptFile, match=r"columns\.json is not what was stored\): delete it and fetch again"):
        open_items(tmp_path / "x")


@pytest.mark.parametrize("name", [COLUMNS, NULL])
def test_a_flipped_byte_beside_the_items_is_found(tmp_path, name):
    write_few(tmp_path / "x")
    path = tmp_path / "x" / name
    data = path.read_bytes()
    path.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    with pytest.raises(CorruptFile, match=f"{name} is not what was stored"):
        open_items(tmp_path / "x")


@pytest.mark.parametrize("name", [COLUMNS, NULL])
def test_a_store_without_hashes_is_fetched_again(tmp_path, name):
    write_few(tmp_path / "x")
    (tmp_path / "x" / f"{name}.sha256").unlink()
    with pytest.raises(CorruptFile, match=f"{name} has no hash beside it"):
        open_items(tmp_path / "x")


@pytest.mark.parametrize("dtype", [",u1", ">i8", "<a8", "|O", "<m8", "|i1", 8, None])
def test_types_that_are_not_stored_are_refused_when_it_is_opened(tmp_path, dtype):
    write_few(tmp_path / "x")
    found = json.loads((tmp_path / "x" / COLUMNS).read_text())
    found["columns"]["pixels"]["dtype"] = dtype
    FolderStore(tmp_path / "x").put_json(COLUMNS, found, sealed=True)
    with pytest.raises(CorruptFile, match="pixels has the type"):
        open_items(tmp_path / "x")


def test_types_that_cannot_be_read_are_not_stored(tmp_path):
    odd = replace(item(0), cond={"y": np.array(["a"])})
    with pytest.raises(UserError, match=r"y of row 0 is <U1: give uint8, "):
        write_items(tmp_path / "x", 1, lambda i: odd, lambda done: None)


def left(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("n", [200, N])  # all are written in the end; some before that
def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path, n):
    write_few(tmp_path / "x")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*x.*: File too large; free space") as caught:
            write_items(tmp_path / "x", n, item, lambda done: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == ["x"] and len(open_items(tmp_path / "x").classes) == 5


def test_a_source_that_breaks_meanwhile_is_not_taken_for_a_full_disk(tmp_path):
    seen = set()

    def read(i):
        if i in seen:
            raise OSError(5, "Input/output error")
        seen.add(i)
        return item(i)

    with pytest.raises(UserError, match=r"row \d of the source cannot be read again .*Input/output error"):
        write_items(tmp_path / "x", 5, read, lambda done: None)
    assert not left(tmp_path)


@pytest.mark.parametrize("name", [ITEMS, COLUMNS, f"{COLUMNS}.sha256"])
def test_a_disk_that_does_not_give_a_store_says_nothing_of_damage(tmp_path, monkeypatch, name):
    write_few(tmp_path / "x")
    opened = io.open

    def broken(file, *words, **named):
        if Path(file) == tmp_path / "x" / name:
            raise OSError(5, "Input/output error")
        return opened(file, *words, **named)

    monkeypatch.setattr(io, "open", broken)
    with pytest.raises(UserError, match=r"cannot read .*x.*: Input/output error; check the path") as caught:
        open_items(tmp_path / "x")
    assert not isinstance(caught.value, CorruptFile)


def test_nothing_is_left_of_a_store_that_is_stopped_while_it_is_written(tmp_path):
    write_few(tmp_path / "x")

    def stop(done):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_items(tmp_path / "x", 5, item, stop)
    assert left(tmp_path) == ["x"] and len(open_items(tmp_path / "x").classes) == 5


def test_a_dataset_that_a_kill_left_aside_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path))
    write_few(tmp_path / "datasets" / ".dots-1.former")
    assert len(open_items(store_folder("dots", "1")).classes) == 5 and left(tmp_path / "datasets") == ["dots-1"]
