"""The commands about datasets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tdabench.benchmark.commands.terminal import plain
from tdabench.datasets import known
from tdabench.datasets.find import dataset_listings
from tdabench.datasets.known import known_sets, pixel_hash, write_known
from tdabench.datasets.published import cifar10, emoji, fashion_mnist
from tdabench.store import FolderStore

from ... import run_helpers
from ...datasets import test_emoji, test_hub, test_published

COUNTED = {"emoji": "229", "cifar2-mini": "165", "cifar2": "259", "digits-tiny-groups": "7 + 2 a group"}
tdabench, home, empty = run_helpers.tdabench, test_hub.home, test_hub.copy


@pytest.fixture
def copy(empty):
    return test_hub.parquet(empty, [(test_hub.png(i), i % 3) for i in range(6)])


def test_a_fetched_dataset_is_described(tdabench, copy):
    answer = tdabench("data", "info", "cifar10")
    assert answer.code == 0 and "tdabench data fetch cifar10" in answer.out and cifar10.CARD.revision in answer.out
    answer = tdabench("data", "fetch", "cifar10", "--data", copy)
    assert answer.code == 0 and "6 images here" in answer.out, answer
    answer = tdabench("data", "info", "cifar10")
    assert "6 of 3 x 32 x 32, 3 classes; conditions: class_labels" in answer.out
    assert cifar10.load().fingerprint() in answer.out.replace("\n", "")


def test_what_is_held_out_is_described_once_it_is_here(tdabench, empty, monkeypatch):
    test_published.sized(monkeypatch, fashion_mnist)
    assert tdabench("data", "fetch", "fashion_mnist", "--data", test_published.fashion(empty)).code == 0
    assert "7 of 1 x 28 x 28, 2 of them held out, 3 classes" in tdabench("data", "info", "fashion_mnist").out


def test_a_dataset_that_comes_with_a_package_is_described(tdabench):
    answer = tdabench("data", "info", "digits")
    assert answer.code == 0 and "1,797 of 1 x 8 x 8, 10 classes; conditions: none" in answer.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("info", "cifr10"), "did you mean 'cifar10' or 'cifar2'?"),
        (("fetch", "cifr10"), "did you mean 'cifar10' or 'cifar2'?"),
        (("fetch", "digits"), "needs no fetching"),
        (("fetch", "cifar10", "--data", "nowhere"), "nowhere does not exist: check --data"),
        (("fetch", "coco"), "coco is on no hub that is known here: get a folder with train2017/"),
        (("fetch", "coco", "--data", "nowhere"), "nowhere does not exist: check --data"),
        (("fetch", "coco", "--data", "."), "name the folder of their tokenizer and encoder by --text"),
    ],
)
def test_mistakes_are_one_line(tdabench, words, said, home):
    answer = tdabench("data", *words)
    assert answer.code == 2 and said in answer.err and answer.err.count("\n") == 1 and not answer.out, answer
    assert not list(home.glob("datasets/*"))


def test_two_at_once_do_not_mix(tdabench, copy, home):
    with FolderStore(home).claim("fetch-cifar10") as held:
        assert held
        answer = tdabench("data", "fetch", "cifar10", "--data", copy)
    assert answer.code == 2 and "another process is fetching cifar10" in answer.err


@pytest.fixture
def known_pictures(tmp_path, monkeypatch):
    """Let the known pixels of CIFAR-10 be those of the first six pictures."""
    monkeypatch.setattr(known, "FOLDER", tmp_path / "known")
    known_sets.cache_clear()
    hashes = [pixel_hash(test_hub.pixels(i).transpose(2, 0, 1)) for i in range(6)]
    write_known("cifar10", {"train": set(hashes[:5]), "test": set(hashes[5:])})
    yield
    known_sets.cache_clear()


def source(folder, seeds):
    folder.mkdir(exist_ok=True)
    return test_hub.parquet(folder, [(test_hub.png(i), i % 3) for i in seeds])


def test_stored_pictures_are_told_from_another_track(tdabench, tmp_path, known_pictures):
    right, wrong = source(tmp_path / "right", range(9)), source(tmp_path / "wrong", (0, 1, *range(20, 27)))
    answer = tdabench("data", "fetch", "cifar10", "--data", wrong)
    said = "another track than its card means: 2 of 5 images that are known of it are here"
    assert answer.code == 0 and said in answer.out
    answer = tdabench("data", "verify", "cifar10")
    assert answer.code == 1 and "another track: scores and truths of it are never mixed" in answer.out
    assert "another track" not in tdabench("data", "fetch", "cifar10", "--data", right).out
    answer = tdabench("data", "verify", "cifar10")
    assert answer.code == 0 and "pixels: 5 of 5 images that are known of it are here" in answer.out
    answer = tdabench("data", "fetch", "cifar10", "--data", wrong)
    assert answer.code == 2 and "which is here and stays" in answer.err


@pytest.mark.parametrize(
    ("seeds", "code", "said"),
    [
        (range(5), 0, "as far as it goes: 5 of the 5 pictures"),
        (range(4, -1, -1), 0, "and all 5 known items of cifar10 are among them"),
        ((0, 1), 0, "2 of 5 known items of cifar10 among them"),
        (range(9), 0, "all 5 known items of cifar10 are among them; the other pictures cannot be compared"),
        (range(20, 25), 1, "another track: 0 of the 5 pictures"),
        ((0, 1, 20, 21), 1, "another track: 2 of the 4 pictures"),
    ],
)
def test_a_source_is_told_from_another_track(tdabench, tmp_path, known_pictures, seeds, code, said):
    answer = tdabench("data", "verify", "cifar10", "--data", source(tmp_path / "other", seeds))
    assert answer.code == code and said in answer.out, answer
    assert ("scores and truths of it are never mixed with those of cifar10" in answer.out) == bool(code)


def test_what_is_stored_is_verified(tdabench, copy, home, known_pictures):
    tdabench("data", "fetch", "cifar10", "--data", copy)
    answer = tdabench("data", "verify", "cifar10")
    assert answer.code == 0 and "all 6 items match their hashes" in answer.out and "its card names none" in answer.out
    path = next(home.glob("datasets/cifar10-*/items.arrow"))
    data = path.read_bytes()
    path.write_bytes(data[:2000] + bytes([data[2000] ^ 1]) + data[2001:])
    answer = tdabench("data", "verify", "cifar10")
    assert answer.code == 2 and answer.err.count("\n") == 1 and "delete it and fetch again" in answer.err


def test_items_of_any_size_are_compared_with_their_hash_when_they_are_verified(tdabench, copy, home, monkeypatch):
    tdabench("data", "fetch", "cifar10", "--data", copy)
    monkeypatch.setattr("tdabench.datasets.stored.CHECKED", 0)
    with next(home.glob("datasets/cifar10-*/items.arrow")).open("ab") as file:
        file.write(b"x")
    answer = tdabench("data", "verify", "cifar10")
    assert answer.code == 2 and answer.err.count("\n") == 1 and "items.arrow is not what was stored" in answer.err


def test_another_fingerprint_than_the_cards_is_another_track(tdabench, copy, monkeypatch):
    monkeypatch.setattr(cifar10, "CARD", replace(cifar10.CARD, fingerprint="0" * 64))
    assert "another track than 0000000000000000" in tdabench("data", "fetch", "cifar10", "--data", copy).out
    answer = tdabench("data", "verify", "cifar10")
    assert answer.code == 1 and "another track: scores and truths of it are never mixed" in answer.out


def test_another_track_does_not_replace_what_the_card_means(tdabench, copy, tmp_path, monkeypatch):
    tdabench("data", "fetch", "cifar10", "--data", copy)
    before = cifar10.load().fingerprint()
    monkeypatch.setattr(cifar10, "CARD", replace(cifar10.CARD, fingerprint=before))
    answer = tdabench("data", "fetch", "cifar10", "--data", source(tmp_path / "other", range(7, 12)))
    assert answer.code == 2 and "another track of cifar10 than its card's, which is here and stays" in answer.err
    assert cifar10.load().fingerprint() == before
    assert tdabench("data", "fetch", "cifar10", "--data", copy).code == 0


@pytest.mark.parametrize("name", sorted(name for name in dataset_listings() if not name.startswith("digits")))
def test_a_source_without_pictures_is_one_line_whatever_the_dataset(tdabench, empty, name):
    answer = tdabench("data", "verify", name, "--data", empty)
    assert answer.code == 2 and answer.err.count("\n") == 1 and not answer.out, answer


def test_a_source_of_emoji_is_compared_with_what_is_stored(tdabench, tmp_path, monkeypatch):
    monkeypatch.setattr(emoji, "CARD", replace(emoji.CARD, items=8, fingerprint=""))
    one, other = (test_emoji.copy(tmp_path / name) for name in ("one", "other"))
    assert "fetch it first" in tdabench("data", "verify", "emoji", "--data", one).err
    assert tdabench("data", "fetch", "emoji", "--data", one).code == 0
    answer = tdabench("data", "verify", "emoji", "--data", other)
    assert answer.code == 0 and "8 of the 8 pictures" in answer.out and "are those stored here" in answer.out, answer
    assert "which nothing known here tells from other tracks of emoji" in answer.out and "original" not in answer.out
    path = other / "google/img/google/64/car.png"
    path.write_bytes(test_emoji.png(test_emoji.rgba("another", "google")))
    answer = tdabench("data", "verify", "emoji", "--data", other)
    assert answer.code == 1 and "another track: 7 of the 8 pictures" in answer.out
    monkeypatch.setattr(emoji, "CARD", replace(emoji.CARD, fingerprint=emoji.load().fingerprint()))
    assert "are the original's" in tdabench("data", "verify", "emoji", "--data", other).out
    monkeypatch.setattr(emoji, "CARD", replace(emoji.CARD, fingerprint="0" * 64))
    answer = tdabench("data", "verify", "emoji", "--data", one)
    assert answer.code == 2 and "is another track than emoji: fetch the original first" in answer.err


def test_a_plugins_dataset_needs_no_fetching(tdabench, tmp_path, empty):
    plugin = tmp_path / "mine.py"
    plugin.write_text("from tdabench.methods import dataset\n\n@dataset('mine')\ndef load():\n    ...\n")
    answer = tdabench("data", "verify", "mine", "--plugin", plugin, "--data", empty)
    assert answer.code == 2 and "dataset 'mine' needs no fetching" in answer.err


def test_truths_are_compared_with_the_dataset(tdabench):
    answer = tdabench("data", "verify", "digits")
    assert answer.code == 0 and "truth of digits@1: built on this" in answer.out


def test_datasets_are_listed_with_their_cards(tdabench, copy):
    lines = {line.split("│")[1].strip(): line for line in tdabench("list", "datasets").out.splitlines() if "│" in line}
    assert set(dataset_listings()) <= set(lines)
    assert "50,000" in lines["cifar10"] and "│ no" in lines["cifar10"] and "│ yes" in lines["digits"]
    tdabench("data", "fetch", "cifar10", "--data", copy)
    assert "│ yes" in next(line for line in tdabench("list", "datasets").out.splitlines() if "cifar10 " in line)


def test_tasks_are_listed_with_their_truth(tdabench):
    out = tdabench("list", "tasks").out
    line = next(line for line in out.splitlines() if "digits@1" in line)
    assert all(word in line for word in ("1,500 of digits", "261", "yes"))
    assert "cifar2, cifar2_full: none stated by the authors: for research" in " ".join(out.split())
    answer = tdabench("list", "taks")
    assert answer.code == 2 and "did you mean 'tasks'" in answer.err


@pytest.mark.parametrize("what", ["tasks", "datasets"])
def test_listings_break_no_word_at_80_columns(tdabench, monkeypatch, what):
    found = {}
    for width in (80, 500):
        monkeypatch.setattr(plain, "_width", width)
        found[width] = tdabench("list", what).out
    lines = found[80].splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) < 60
    cells = [line for line in lines if line.startswith("│")]
    assert cells and set(" ".join(cells).split()) <= set(found[500].split())


def test_models_of_groups_are_listed_as_they_are_planned(tdabench):
    lines = [line.split("│") for line in tdabench("list", "tasks").out.splitlines() if line.startswith("│")]
    found = {line[1].strip(): line[3].strip() for line in lines}
    assert {name: found[f"{name}@1"] for name in COUNTED} == COUNTED
