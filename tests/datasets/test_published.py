"""Datasets of the literature, read from tiny local copies of their files, made here."""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tdabench.datasets import hub, known
from tdabench.datasets.base import Card
from tdabench.datasets.find import FOLDERS, card_of, dataset_listings, load_dataset
from tdabench.datasets.folders import image_folder
from tdabench.datasets.known import known_sets, pixel_hash, write_known
from tdabench.datasets.published import (
    artbench2,
    artbench10,
    celeba,
    cifar2,
    cifar2_full,
    cifar10_unlabelled,
    coco,
    fashion_mnist,
)
from tdabench.datasets.stored import open_items
from tdabench.datasets.subsampling import drawn
from tdabench.errors import UserError
from tdabench.plugins import imported

from . import test_hub

home, copy = test_hub.home, test_hub.copy
FETCHED = [name for name, listing in dataset_listings().items() if ".published." in listing.origin]
MODULES = {name: imported(dataset_listings()[name].origin) for name in FETCHED}
COUNTS = {name: module.SOURCE.counts for name, module in MODULES.items() if hasattr(module, "SOURCE")}


def sized(monkeypatch, module, counts=(), **changes):
    """Let a dataset have as many items as the test makes, of any classes."""
    monkeypatch.setattr(module, "SOURCE", replace(module.SOURCE, counts=counts, classes=0, **changes))


def split_parquet(folder, train, test):
    """Write rows (seed of the picture, label) of two splits."""
    for split, rows in (("train", train), ("test", test)):
        test_hub.parquet(folder, [(test_hub.png(i), label) for i, label in rows], name=f"{split}-0.parquet")
    return folder


def seeds_of(data):
    """Return the seed that each item's picture was made from."""
    found = {test_hub.pixels(i).transpose(2, 0, 1).tobytes(): i for i in range(60)}
    images = ((data.pixels(torch.arange(len(data))) + 1) * 127.5).round().byte().numpy()
    return [found[image.tobytes()] for image in images]


def draw(files, monkeypatch, tmp_path, train, heldout):
    """Let the known pixels of CIFAR-10 be those of the test's pictures."""
    hashes = {i: pixel_hash(test_hub.pixels(i).transpose(2, 0, 1)) for i in range(60)}
    monkeypatch.setattr(known, "FOLDER", tmp_path / "known")
    known_sets.cache_clear()
    every = {"train": set(list(hashes.values())[:40]), "test": set(list(hashes.values())[40:])}
    sets = {"cifar2": {hashes[i] for i in train}, "cifar2-heldout": {hashes[i] for i in heldout}}
    write_known("cifar10", {**every, **sets})


@pytest.fixture(autouse=True)
def _known_is_read_again():
    yield
    known_sets.cache_clear()


def test_the_draw_of_cifar2_is_known_by_pixels_whatever_the_order(copy, tmp_path, monkeypatch):
    draw(copy, monkeypatch, tmp_path, train=(1, 4, 7, 10), heldout=(41, 44))
    sized(monkeypatch, cifar2, counts=(4, 2), keep=(1, 2))
    train, test = [(i, i % 3) for i in range(20)], [(i, i % 3) for i in range(40, 50)]
    data = cifar2.fetch(split_parquet(copy, train, test))
    held = data.groups["heldout"].bool()
    seeds = torch.tensor(seeds_of(data))
    assert sorted(seeds[~held].tolist()) == [1, 4, 7, 10] and sorted(seeds[held].tolist()) == [41, 44]
    assert data.cond == {} and data.classes.tolist() == [seed % 3 - 1 for seed in seeds.tolist()]
    before = data.fingerprint()
    assert cifar2.fetch(split_parquet(copy, train[::-1], test[::-1])).fingerprint() == before
    assert cifar2.load().select(held.nonzero().flatten()).groups["heldout"].tolist() == [1, 1]


def test_pictures_of_another_track_are_no_cifar2(copy, tmp_path, monkeypatch):
    draw(copy, monkeypatch, tmp_path, train=(1, 4), heldout=(44,))
    sized(monkeypatch, cifar2, counts=(2, 1), keep=(1, 2))
    with pytest.raises(UserError, match="has 0 rows of 'train' where cifar2 has 2: its pixels are not the original's"):
        cifar2.fetch(split_parquet(copy, [(50, 1), (51, 2)], [(52, 1), (53, 2)]))


def test_one_file_is_not_taken_for_both_parts(copy, monkeypatch):
    sized(monkeypatch, cifar2)
    split_parquet(copy, [(1, 1), (2, 2)], [(3, 1), (4, 2)])
    with pytest.raises(UserError, match="is one file: name a folder with one named train"):
        cifar2.fetch(copy / "train-0.parquet")
    (copy / "test-0.parquet").unlink()
    with pytest.raises(UserError, match="has no parquet file of 'test': name it so, as in test-00000"):
        cifar2.fetch(copy)


@pytest.mark.parametrize("name", COUNTS)
def test_a_sources_counts_are_its_cards(name):
    counts, card = COUNTS[name], MODULES[name].CARD
    assert sum(counts) == card.items and counts[1:] == ((card.heldout,) if card.heldout else ())


def test_parts_that_are_swapped_are_no_dataset(copy, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "SOURCE", replace(fashion_mnist.SOURCE, counts=(6, 3), classes=3))
    for part, n in (("train", 3), ("t10k", 6)):
        idx(copy / f"{part}-images-idx3-ubyte.gz", np.zeros((n, 28, 28), np.uint8))
        idx(copy / f"{part}-labels-idx1-ubyte.gz", np.arange(n, dtype=np.uint8) % 3)
    with pytest.raises(UserError, match="has 3 rows of 'train' where fashion_mnist has 6"):
        fashion_mnist.fetch(copy)


def test_idx_files_without_rows_are_one_line(copy):
    for part in ("train", "t10k"):
        idx(copy / f"{part}-images-idx3-ubyte.gz", np.zeros((0, 28, 28), np.uint8))
        idx(copy / f"{part}-labels-idx1-ubyte.gz", np.zeros(0, np.uint8))
    with pytest.raises(UserError, match="has no rows of 'train'"):
        fashion_mnist.fetch(copy)


def test_what_is_shipped_of_cifar10s_pixels_is_whole():
    sets = known_sets("cifar10")
    counts = {"train": 18_025, "test": 2_000, "cifar2": 5_000, "cifar2-heldout": 1_000, "cifar2_full": 10_000}
    assert {name: len(hashes) for name, hashes in sets.items()} == counts
    assert sets["cifar2"] < sets["cifar2_full"] < sets["train"] and sets["cifar2-heldout"] < sets["test"]


def test_a_test_part_is_held_out_and_all_have_one_label(copy, monkeypatch):
    sized(monkeypatch, cifar10_unlabelled)
    cifar10_unlabelled.fetch(split_parquet(copy, [(i, i % 3) for i in range(9)], [(i, i % 3) for i in range(40, 44)]))
    data = load_dataset("cifar10_unlabelled")
    assert len(data) == 13 and int(data.groups["heldout"].sum()) == 4
    assert data.cond["class_labels"].tolist() == [0] * 13 and sorted(set(data.classes.tolist())) == [0, 1, 2]


def test_automobiles_and_horses_are_numbered(copy, monkeypatch):
    sized(monkeypatch, cifar2_full, keep=(0, 2))
    data = cifar2_full.fetch(test_hub.parquet(copy, [(test_hub.png(i), i % 3) for i in range(9)]))
    assert torch.bincount(data.classes).tolist() == [3, 3]
    assert torch.equal(data.batch(torch.arange(6)).cond["class_labels"], data.classes)


def idx(path, array):
    header = np.array([0x800 + array.ndim, *array.shape], ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))


def fashion(folder):
    for part, n in (("train", 5), ("t10k", 2)):
        grey = np.random.default_rng(n).integers(0, 256, (n, 28, 28), dtype=np.uint8)
        idx(folder / f"{part}-images-idx3-ubyte.gz", grey)
        idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(n, dtype=np.uint8) % 3)
    return folder


def test_fashion_comes_from_idx_files_or_parquet(copy, monkeypatch):
    sized(monkeypatch, fashion_mnist)
    data = fashion_mnist.fetch(fashion(copy))
    grey = np.random.default_rng(5).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    stored = {
        open_items(hub.store_folder("fashion_mnist", data.card.revision)).images.raw(i).tobytes() for i in range(7)
    }
    assert {one.tobytes() for one in grey} < stored and int(data.groups["heldout"].sum()) == 2
    table = copy.parent / "table"
    table.mkdir()
    for split, n in (("train", 5), ("test", 2)):
        rows = np.random.default_rng(n).integers(0, 256, (n, 28, 28), dtype=np.uint8)
        pngs = [test_hub.encoded(Image.fromarray(row)) for row in rows]
        test_hub.parquet(table, list(zip(pngs, [i % 3 for i in range(n)], strict=True)), f"{split}-0.parquet", "image")
    assert fashion_mnist.fetch(table).fingerprint() == data.fingerprint()


@pytest.mark.parametrize("spoil", ["truncated", "body", "counts", "missing"])
def test_damaged_idx_files_are_one_line(copy, monkeypatch, spoil):
    sized(monkeypatch, fashion_mnist)
    path = fashion(copy) / "train-labels-idx1-ubyte.gz"
    if spoil == "truncated":
        path.write_bytes(path.read_bytes()[:-9])
    elif spoil == "body":
        data = path.read_bytes()
        path.write_bytes(data[:10] + b"\xff" * 8 + data[18:])
    elif spoil == "missing":
        path.unlink()
    else:
        idx(path, np.arange(4, dtype=np.uint8))
    with pytest.raises(UserError, match=r"train-labels|5 images and 4 labels"):
        fashion_mnist.fetch(copy)


def photo(path, i, size=(80, 70), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(test_hub.pixels(i, size)).convert(mode).save(path)


def faces(folder, n=8):
    parts = ["0"] * n + ["1"] * 4 + ["2"]
    names = [f"{i:06d}.png" for i in range(len(parts))]
    for i, name in enumerate(names):
        photo(folder / "img_align_celeba" / name, i, (218, 178))
    lines = [f"{name} {part}\n" for name, part in zip(names, parts, strict=True)]
    (folder / "list_eval_partition.txt").write_text("".join(lines))
    return folder


def test_faces_are_drawn_by_number_and_cut(copy, monkeypatch):
    monkeypatch.setattr(celeba, "COUNTS", {"train": 5, "valid": 2})
    sized(monkeypatch, celeba, counts=(5, 2))
    data = celeba.fetch(faces(copy))
    assert data.shape == (3, 64, 64) and int(data.groups["heldout"].sum()) == 2 and data.cond == {}
    wanted = set()
    for i in [*drawn(8, 5), *(8 + j for j in drawn(4, 2))]:
        picture = Image.open(copy / "img_align_celeba" / f"{i:06d}.png").crop((19, 39, 159, 179))
        wanted.add(np.asarray(picture.resize((64, 64), Image.Resampling.BILINEAR)).transpose(2, 0, 1).tobytes())
    images = open_items(hub.store_folder("celeba", "unpinned")).images
    assert {images.raw(i).tobytes() for i in range(7)} == wanted


def test_the_draw_is_that_of_the_papers_notebook():
    """Of CelebA's validation part, the notebook printed the first five and the last."""
    chosen = drawn(182_637 - 162_770, 1000)
    printed = [167013, 179842, 176165, 167714, 180120]
    assert [162_770 + i for i in chosen[:5]] == printed and 162_770 + chosen[-1] == 178565


def test_artworks_come_by_style(copy, monkeypatch):
    sized(monkeypatch, artbench10)
    for part, n in (("train", 3), ("test", 1)):
        for k, style in enumerate(artbench10.STYLES):
            for i in range(n):
                folder = copy / "artbench-10-imagefolder-split" / part / style
                photo(folder / f"{i}.jpg", 10 * k + i, mode="L" if k else "RGB")
    data = artbench10.fetch(copy)
    assert len(data) == 40 and int(data.groups["heldout"].sum()) == 10 and data.shape == (3, 64, 64)
    assert torch.equal(data.batch(torch.arange(40)).cond["class_labels"], data.classes)
    assert torch.bincount(data.classes).tolist() == [4] * 10


def test_a_style_without_pictures_is_named(copy):
    for style in artbench10.STYLES:
        photo(copy / "train" / style / "0.jpg", 0)
        photo(copy / "test" / style / "0.jpg", 0)
    with pytest.raises(UserError, match=r"train has 10 rows of 'train' where artbench10 has 50,000"):
        artbench10.fetch(copy)
    (copy / "train" / "baroque" / "0.jpg").unlink()
    with pytest.raises(UserError, match=r"train has no pictures of baroque: unpack"):
        artbench10.fetch(copy)


def embed(captions):
    """Stand in for a text encoder: equal captions have equal embeddings."""
    return torch.tensor([[[float(len(caption)), 1.0]] * 3 for caption in captions])


def artworks(folder):
    rows = []
    for k, style in enumerate(["post_impressionism", "ukiyo_e", "baroque"]):
        for i in range(6):
            split = "train" if i < 4 else "test"
            rows.append({"name": f"{style}-{i}.jpg", "label": style, "split": split})
            photo(folder / "artbench-10-imagefolder" / style / f"{style}-{i}.jpg", 10 * k + i)
    with (folder / "ArtBench-10.csv").open("w") as file:
        writer = csv.DictWriter(file, ["name", "label", "split"])
        writer.writeheader()
        writer.writerows(rows)
    return folder


def small_artworks(monkeypatch):
    layout = artbench2.ROWS.func
    rows = lambda folder, split: layout(folder, split, artbench2.STYLES, {"train": 4, "test": 2})  # noqa: E731
    sized(monkeypatch, artbench2, counts=(4, 2), size=(16, 16), layout=rows)


def test_artworks_have_their_styles_prompts(copy, monkeypatch):
    small_artworks(monkeypatch)
    data = artbench2.fetch(artworks(copy), hub.ignore, hub.Encode(embed, {}))
    held = data.groups["heldout"].bool()
    assert torch.bincount(data.classes[~held]).tolist() == [2, 2] and torch.bincount(data.classes[held]).tolist() == [
        1,
        1,
    ]
    lengths = torch.tensor([float(len(f"a {style} painting")) for style in ("post impressionism", "ukiyo e")])
    found = data.batch(torch.arange(6)).cond["encoder_hidden_states"]
    assert torch.equal(found[:, 0, 0], lengths[data.classes]) and found.shape == (6, 3, 2)
    assert torch.equal(data.null["encoder_hidden_states"], embed([""])[0])


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("label,name\nukiyo_e,a.jpg\n", "has no column split"),
        ("", "has no column name and label and split"),
        ("label,split\nukiyo_e,train\n", "has no column name"),
        ("name,label,split\n" + "x" * 200_000 + ",ukiyo_e,train\n", "is no table"),
        ("name,label,split\n,ukiyo_e,train\n", "names 0 pictures of train"),
    ],
)
def test_a_list_of_artworks_that_is_none_is_one_line(copy, monkeypatch, table, words):
    small_artworks(monkeypatch)
    (copy / "ArtBench-10.csv").write_text(table)
    with pytest.raises(UserError, match=rf"ArtBench-10\.csv {words}"):
        artbench2.fetch(copy, hub.ignore, hub.Encode(embed, {}))


def test_artworks_without_their_pictures_are_one_line(copy, monkeypatch):
    small_artworks(monkeypatch)
    with pytest.raises(UserError, match=r"ArtBench-10.csv cannot be read"):
        artbench2.fetch(copy, hub.ignore, hub.Encode(embed, {}))
    next((artworks(copy) / "artbench-10-imagefolder" / "ukiyo_e").glob("*-4.jpg")).unlink()
    next((copy / "artbench-10-imagefolder" / "ukiyo_e").glob("*-5.jpg")).unlink()
    with pytest.raises(UserError, match=r"ukiyo_e-.\.jpg cannot be read"):
        artbench2.fetch(copy, hub.ignore, hub.Encode(embed, {}))


def captioned(folder):
    (folder / "annotations").mkdir()
    for split, n in (("train", 4), ("val", 2)):
        images = [{"id": 7 * i, "file_name": f"{i}.jpg"} for i in range(n)]
        words = [{"id": 100 + i, "image_id": 7 * i, "caption": "x" * (i + 1)} for i in range(n)]
        later = [{"id": 200 + i, "image_id": 7 * i, "caption": "another"} for i in range(n)]
        path = folder / "annotations" / f"captions_{split}2017.json"
        path.write_text(json.dumps({"images": images, "annotations": [*later, *words]}))
        for i in range(n):
            photo(folder / f"{split}2017" / f"{i}.jpg", 10 * n + i)
    return folder


def test_photographs_have_the_vector_of_their_first_caption(copy, monkeypatch):
    sized(monkeypatch, coco)
    data = coco.fetch(captioned(copy), hub.ignore, hub.Encode(embed, {}))
    lengths = data.batch(torch.arange(6)).cond["encoder_hidden_states"][:, 0, 0]
    held = data.groups["heldout"].bool()
    assert sorted(lengths[~held].tolist()) == [1, 2, 3, 4] and sorted(lengths[held].tolist()) == [1, 2]


NAMED = [{"id": 1, "file_name": "a"}]
CAPTIONS = {
    "none": json.dumps({"images": NAMED, "annotations": []}),
    "a name that is a number": json.dumps(
        {"images": [{"id": 1, "file_name": 5}], "annotations": [{"id": 1, "image_id": 1, "caption": "x"}]}
    ),
    "a caption that is a list": json.dumps(
        {"images": NAMED, "annotations": [{"id": 1, "image_id": 1, "caption": ["x"]}]}
    ),
    "too deep": "[" * 100_000,
}


@pytest.mark.parametrize("form", CAPTIONS)
def test_captions_of_another_form_are_one_line(copy, monkeypatch, form):
    sized(monkeypatch, coco)
    path = captioned(copy) / "annotations" / "captions_train2017.json"
    path.write_text(CAPTIONS[form])
    with pytest.raises(UserError, match="no file of captions as COCO has them"):
        coco.fetch(copy, hub.ignore, hub.Encode(embed, {}))


@pytest.mark.parametrize("module", [celeba, artbench10])
def test_what_is_on_no_hub_says_where_it_is_got(module):
    with pytest.raises(UserError, match=f"{module.CARD.name} is on no hub .* --data"):
        module.fetch()
    with pytest.raises(UserError, match=f"get it with `tdabench data fetch {module.CARD.name} --data PATH`"):
        module.load()


def test_what_has_captions_says_that_it_needs_their_encoder():
    with pytest.raises(UserError, match="get it with `tdabench data fetch coco --data PATH --text PATH`"):
        coco.load()


@pytest.mark.parametrize("name", FETCHED)
def test_a_card_is_read_without_an_import(name):
    listing = dataset_listings()[name]
    card = imported(listing.origin).CARD
    assert Card(**card_of(listing)) == card and card.name == name
    assert card.items and card.shape and card.columns and card.download and card.files


def test_every_folder_of_datasets_is_looked_into():
    assert {name for name in dataset_listings() if name in {"digits", "cifar2", "coco"}} == {"digits", "cifar2", "coco"}
    assert all(folder.is_dir() for folder in FOLDERS)


def test_any_folder_of_pictures_is_a_dataset(copy):
    for i, kind in enumerate(["cat", "dog", "cat"]):
        photo(copy / kind / f"{i}.png", i, (8, 8))
    data = image_folder(copy, "pets", labelled=True)
    assert data.shape == (3, 8, 8) and data.classes.tolist() == [0, 0, 1] == data.cond["class_labels"].tolist()
    assert torch.equal(data.images[2], torch.from_numpy(test_hub.pixels(1, (8, 8))).movedim(2, 0) / 127.5 - 1)
    photo(copy / "9.png", 9, (8, 8))
    assert image_folder(copy, "pets").cond == {}
    with pytest.raises(UserError, match="has no labels"):
        image_folder(copy, "pets", labelled=True)


def line_of(name):
    card = card_of(dataset_listings()[name])
    size = " x ".join(map(str, card["shape"]))
    cond = ", ".join(f"`{key}` {list(value)}" for key, value in card.get("cond", {}).items()) or "none"
    held = f"{card['heldout']:,}" if "heldout" in card else "-"
    about = (card["licence"], card.get("download", "none"))
    return f"| {name} | {card['items']:,} | {held} | {size} | {cond} | {' | '.join(about)} |"


def test_the_documents_table_is_that_of_the_cards():
    text = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    shown = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert {line_of(name) for name in (*FETCHED, "digits", "digits_classes")} <= set(shown)
