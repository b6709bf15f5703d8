"""Datasets of the hub from local copies of their files: the same schema, made here."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Pictures

from tdabench.datasets import hub
from tdabench.datasets.folders import image_folder
from tdabench.datasets.published import cifar10, emoji, fashion_mnist
from tdabench.errors import UserError
from tdabench.store import remove_tree

NAMES = ["airplane", "automobile", "bird", "cat"]


def read_folder(path):
    return image_folder(path, "mine")


def pixels(i, size=(32, 32)):
    return np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)


def png(i, size=(32, 32), mode="RGB"):
    return encoded(Pictures.fromarray(pixels(i, size)).convert(mode))


def encoded(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return {"bytes": file.getvalue(), "path": "a.png"}


def parquet(folder, rows, name="train-00000-of-00001.parquet", image="img", label="label"):
    features = Features({image: Image(), label: ClassLabel(names=NAMES)})
    Dataset.from_dict({image: [row[0] for row in rows], label: [row[1] for row in rows]}, features).to_parquet(
        str(folder / name)
    )
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cifar10, "SOURCE", replace(cifar10.SOURCE, counts=(), classes=0))
    return tmp_path / "home"


@pytest.fixture
def copy(tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    return folder


def test_a_local_copy_is_stored_once_and_read_from_there(copy):
    parquet(copy, [(png(i), i % 3) for i in range(20)])
    parquet(copy, [(png(100), 0)], name="test-00000-of-00001.parquet")
    data = cifar10.fetch(copy)
    for path in copy.iterdir():
        path.unlink()
    again = cifar10.load()
    assert len(data) == len(again) == 20 and again.fingerprint() == data.fingerprint()
    found = {((image + 1) * 127.5).round().byte().numpy().tobytes() for image in again.pixels(torch.arange(20))}
    assert found == {pixels(i).transpose(2, 0, 1).tobytes() for i in range(20)}
    assert torch.equal(again.batch(torch.arange(20)).cond["class_labels"], again.classes)


def test_rows_in_another_order_and_file_are_the_same_dataset(copy, tmp_path):
    rows = [(png(i), i % 3) for i in range(9)]
    one = cifar10.fetch(parquet(copy, rows)).fingerprint()
    other = tmp_path / "other"
    other.mkdir()
    assert cifar10.fetch(parquet(other, rows[::-1], name="all.parquet") / "all.parquet").fingerprint() == one
    assert cifar10.fetch(parquet(copy, [*rows[:-1], (png(77), 2)])).fingerprint() != one


def test_files_of_another_split_are_left_alone(copy, tmp_path):
    rows = [(png(i), i % 3) for i in range(6)]
    for split, chosen in (("train", rows[:4]), ("test", rows[4:])):
        (copy / split).mkdir()
        parquet(copy / split, chosen, name="0000.parquet")
    assert len(cifar10.fetch(copy)) == 4
    other = tmp_path / "other"
    other.mkdir()
    for name in ("a.parquet", "b.parquet"):
        parquet(other, rows, name=name)
    with pytest.raises(UserError, match="none is named 'train'"):
        cifar10.fetch(other)


def test_a_part_is_not_taken_for_the_whole(copy, monkeypatch):
    monkeypatch.setattr(cifar10, "SOURCE", replace(cifar10.SOURCE, counts=(5,)))
    with pytest.raises(UserError, match="has 4 rows of 'train' where cifar10 has 5"):
        cifar10.fetch(parquet(copy, [(png(i), i % 3) for i in range(4)]))
    assert len(cifar10.fetch(parquet(copy, [(png(i), i % 3) for i in range(5)]))) == 5


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ((0, 0, 1, 1, 2), "has 5 rows of 'train' where cifar10 has 6: give all of them: parquet"),
        ((0, 0, 0, 1, 1, 2), "has 3 rows of class 0 of 'train' where cifar10 has 2: give all"),
        ((0, 0, 0, 1, 1, 1), "has no rows of class 2 in 'train': give all"),
        ((0, 0, 1, 1, 2, 3), "has rows of class 3 in 'train', and cifar10 has 0 to 2: it is another dataset"),
        ((), "has no rows: name parquet files"),
    ],
)
def test_classes_are_of_the_sizes_that_the_source_says(copy, monkeypatch, labels, words):
    monkeypatch.setattr(cifar10, "SOURCE", replace(cifar10.SOURCE, counts=(6,), classes=3))
    with pytest.raises(UserError, match=words):
        cifar10.fetch(parquet(copy, [(png(i), label) for i, label in enumerate(labels)]))
    assert len(cifar10.fetch(parquet(copy, [(png(i), i % 3) for i in range(6)]))) == 6


def test_parquet_files_without_rows_are_left_alone(copy):
    parquet(copy, [(png(i), i % 3) for i in range(4)], name="train-00001-of-00002.parquet")
    assert len(cifar10.fetch(parquet(copy, [], name="train-00000-of-00002.parquet"))) == 4


def test_classes_that_are_kept_are_numbered_in_their_order(copy):
    source = hub.Source("x/y", "1", "train", "img", "label", (32, 32), keep=(2, 0))
    data = hub.fetch(cifar10.CARD, source, parquet(copy, [(png(i), i % 3) for i in range(12)]))
    assert torch.bincount(data.classes).tolist() == [4, 4] and data.cond == {}
    twos = {pixels(i).transpose(2, 0, 1).tobytes() for i in range(12) if i % 3 == 2}
    chosen = (data.classes == 0).nonzero().flatten()
    assert {((image + 1) * 127.5).round().byte().numpy().tobytes() for image in data.pixels(chosen)} == twos


def test_what_was_not_fetched_is_one_line():
    with pytest.raises(UserError, match="tdabench data fetch cifar10"):
        cifar10.load()


OTHER_TYPES = {
    "no label": {"label": [None]},
    "labels of text": {"label": ["cat"]},
    "labels of lists": {"label": [[1]]},
    "numbers for pictures": {"img": [5]},
    "vectors for pictures": {"img": [[1, 2]]},
}


def spoilt(copy, what):
    rows = [(png(i), i % 3) for i in range(4)]
    if what == "columns":
        return parquet(copy, rows, image="picture")
    if what == "size":
        return parquet(copy, [*rows, (png(5, (32, 30)), 0)])
    if what == "mode":
        return parquet(copy, [*rows, (png(5, mode="L"), 0)])
    if what == "corrupt":
        return parquet(copy, [*rows, ({"bytes": png(5)["bytes"][:60], "path": "5.png"}, 0)])
    if what == "empty picture":
        return parquet(copy, [*rows, (None, 0)])
    if what in OTHER_TYPES:
        Dataset.from_dict({"img": [png(0)], "label": [0]} | OTHER_TYPES[what]).to_parquet(str(copy / "train.parquet"))
    if what == "not parquet":
        (copy / "train.parquet").write_bytes(b"no parquet")
    return copy


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("columns", r"has no column img, but picture, label"),
        ("size", r"row 4: img is RGB \(32, 30, 3\)"),
        ("mode", r"row 4: img is L"),
        ("corrupt", r"row 4: img cannot be read as an image"),
        ("empty picture", r"row 4: img is empty"),
        ("no label", r"row 0: label is no class number"),
        ("labels of text", r"row 0: label is no class number"),
        ("labels of lists", r"row 0: label is no class number"),
        ("numbers for pictures", r"cannot be read"),
        ("vectors for pictures", r"cannot be read|img is I"),
        ("not parquet", r"cannot be read"),
        ("empty", r"holds no parquet files"),
    ],
)
def test_a_copy_that_is_none_is_one_line_and_leaves_nothing(copy, what, words, home):
    with pytest.raises(UserError, match=words) as found:
        cifar10.fetch(spoilt(copy, what))
    assert "\n" not in " ".join(str(found.value).split()) and not list((home / "datasets").glob("[!.]*"))


@pytest.mark.parametrize("fetch", [cifar10.fetch, fashion_mnist.fetch, emoji.fetch, read_folder])
def test_folders_deeper_than_python_recurses_are_one_line(copy, fetch):
    at = copy / "deep"
    for _ in range(1500):
        at.mkdir()
        at = at / "d"
    try:
        with pytest.raises(UserError, match=r"holds no|holds neither|has no folder"):
            fetch(copy)
    finally:
        remove_tree(copy / "deep")


def test_a_class_that_no_row_has_is_one_line(copy):
    source = hub.Source("x/y", "1", "train", "img", "label", (32, 32), keep=(0, 2))
    with pytest.raises(UserError, match="no rows of class 2"):
        hub.fetch(cifar10.CARD, source, parquet(copy, [(png(i), i % 2) for i in range(4)]))


def test_a_failed_fetch_keeps_what_was_there(copy):
    before = cifar10.fetch(parquet(copy, [(png(i), 0) for i in range(4)])).fingerprint()
    with pytest.raises(UserError):
        cifar10.fetch(spoilt(copy, "size"))
    assert cifar10.load().fingerprint() == before


def test_without_network_the_way_out_is_said(monkeypatch):
    import datasets

    def fail(*words, **more):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(UserError, match=r"the hub's uoft-cs/cifar10 cannot be read .*--data"):
        cifar10.fetch()


def test_the_hub_is_asked_for_the_pinned_revision(monkeypatch):
    import datasets

    asked = {}

    def answer(path, cache_dir, **words):
        asked.update(words, path=path)
        features = Features({"img": {"bytes": Value("binary"), "path": Value("string")}, "label": Value("int64")})
        return Dataset.from_dict({"img": [png(0)], "label": [0]}, features)

    monkeypatch.setattr(datasets, "load_dataset", answer)
    assert len(cifar10.fetch()) == 1
    assert asked == {"path": "uoft-cs/cifar10", "revision": cifar10.CARD.revision, "split": "train"}
