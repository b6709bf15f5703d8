"""Copies of published datasets that people unpacked, and lists beside rows and answers, whatever is in them."""

from __future__ import annotations

import gzip
import json
import struct
import sys
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tdabench.benchmark.attribution.outputs.folder import REPORT, _asked
from tdabench.benchmark.truth.begun import parse_part
from tdabench.datasets.files import Rows, idx_rows
from tdabench.datasets.published import celeba, coco, emoji
from tdabench.datasets.subsampling import drawn_artworks
from tdabench.leaderboard.rows import listed
from tdabench.store import FolderStore

from .fuzz import damaged, documents, many, parsed

EMOJI = {
    "image": "1f600.png",
    "category": "Smileys & Emotion",
    "subcategory": "face-smiling",
    "has_img_twitter": True,
    "has_img_google": True,
}
CAPTIONS = {
    "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
    "annotations": [{"id": 1, "image_id": 7, "caption": "a cat"}, {"id": 3, "image_id": 2, "caption": "a dog"}],
}
STYLES, COUNTS = ("realism", "ukiyo_e"), {"train": 2}
TABLE = b"name,label,split\na.jpg,realism,train\nb.jpg,ukiyo_e,train\n"
PARTS = b"000001.jpg 0\n000002.jpg 0\n000003.jpg 1\n"
IMAGES, LABELS = struct.pack(">4i", 0x803, 2, 2, 2) + bytes(8), struct.pack(">2i", 0x801, 2) + bytes(2)


def opened(rows: Rows | None) -> None:
    """Ask for every picture, captions beside them, and see that each is something that can be decoded."""
    if rows is not None:
        assert rows.captions is None or [type(text) for text in rows.captions] == [str] * len(rows)
        for i in range(len(rows)):
            picture = parsed(rows.picture, i)
            assert picture is None or isinstance(picture, bytes | np.ndarray)


@given(documents([EMOJI, EMOJI | {"image": "2764.png", "category": "Symbols"}]))
@many
def test_a_list_of_emoji_names_pictures_or_is_refused(tmp_path, data):
    (tmp_path / "emoji.json").write_bytes(data)
    source = emoji._Source(tmp_path, (tmp_path, tmp_path))
    count = parsed(source.__len__)
    for i in range(min(count or 0, 3)):
        assert parsed(source.item, i) is None


@given(documents(CAPTIONS))
@many
def test_captions_of_coco_are_one_a_picture_or_refused(tmp_path, data):
    (tmp_path / "annotations").mkdir(exist_ok=True)
    (tmp_path / "annotations" / "captions_train2017.json").write_bytes(data)
    opened(parsed(coco.rows, tmp_path, "train"))


@example(data=TABLE.replace(b"a.jpg", b"\x00a.jpg"))
@example(data=TABLE.replace(b"a.jpg", b"\x01a.jpg"))
@example(data=TABLE.replace(b"train\n", b"train,more\n"))
@given(damaged(TABLE) | st.lists(st.text(max_size=30), max_size=5).map(lambda rows: TABLE + "\n".join(rows).encode()))
@many
def test_a_table_of_artworks_names_pictures_or_is_refused(tmp_path, data):
    (tmp_path / "ArtBench-10.csv").write_bytes(data)
    opened(parsed(drawn_artworks, tmp_path, "train", STYLES, COUNTS))


@example(data=b"\x01/000001.jpg 0\n\x00/000002.jpg 0\n")
@given(damaged(PARTS) | st.binary(max_size=60).map(lambda more: PARTS + more))
@many
def test_parts_of_celeba_name_pictures_or_are_refused(small_celeba, tmp_path, data):
    (tmp_path / "list_eval_partition.txt").write_bytes(data)
    opened(parsed(celeba.rows, tmp_path, "train"))


@pytest.fixture(scope="module")
def small_celeba() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(celeba.COUNTS, "train", 2)
        yield


def numbers(data: bytes, at: int, number: int) -> bytes:
    """Return an IDX file with another number in its head."""
    return data[: 4 * at] + struct.pack(">I", number) + data[4 * at + 4 :]


SIZES = st.integers(0, 2**32 - 1) | st.integers(0, 3)
HEADS = st.builds(numbers, st.just(IMAGES), st.integers(0, 3), SIZES)


@given(damaged(IMAGES) | HEADS, damaged(LABELS) | st.just(LABELS), st.booleans(), st.booleans(), st.data())
@many
def test_binary_files_are_pictures_and_labels_or_refused(tmp_path, images, labels, packed, broken, drawn):
    for path in tmp_path.iterdir():
        path.unlink()
    for name, data in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)):
        found = gzip.compress(data) if packed else data
        found = drawn.draw(damaged(found)) if broken else found
        (tmp_path / (f"{name}.gz" if packed else name)).write_bytes(found)
    opened(parsed(idx_rows, tmp_path, "train"))


@given(documents({"request_hash": "0" * 64}))
@many
def test_a_report_says_which_request_it_answers_or_none(tmp_path, data):
    (tmp_path / REPORT).write_bytes(data)
    asked = parsed(_asked, tmp_path)
    assert asked is None or repr(asked) == repr(json.loads(data)["request_hash"])


@given(st.text(max_size=12) | st.builds("{}/{}".format, st.integers(), st.integers()) | st.just("9" * 5000 + "/1"))
@many
def test_a_part_is_one_of_as_many_or_refused(text):
    part = parsed(parse_part, text)
    assert part is None or 1 <= part.number <= part.count < sys.maxsize


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A folder of files under a list, and the list's bytes."""
    store = FolderStore(tmp_path_factory.mktemp("listed") / "rows")
    for name in ("a.json", "b/c.json"):
        store.put_json(name, {})
    path, _ = listed.seal_folder(store.root)
    return store, path.read_bytes()


def entries(lines: bytes) -> set[tuple[str, str]]:
    """Return each line's hash, and the path in the folder, which may have been renamed."""
    split = [line.split("  ", 1) for line in lines.decode(errors="replace").splitlines()]
    return {(hashed, path.split("/", 1)[1]) for hashed, path in split}


@given(st.data())
@many
def test_a_list_of_hashes_is_that_of_its_files_or_refused(rows, data):
    store, whole = rows
    found = data.draw(
        damaged(whole) | st.binary(max_size=80) | st.lists(st.sampled_from(whole.splitlines(True))).map(b"".join)
    )
    listed.list_of(store.root).write_bytes(found)
    said = parsed(partial(lambda: listed.check_listed(store, listed.json_keys(store), required=True) or "whole"))
    assert said is None or entries(found) == entries(whole)
