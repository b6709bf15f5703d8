"""Emoji from unpacked packages made here: pixels, groups, order, and what may be wrong with a copy."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zlib
from dataclasses import replace
from fractions import Fraction
from http.client import IncompleteRead

import numpy as np
import pytest
import torch
from PIL import Image

from tdabench.datasets import packages
from tdabench.datasets.groups import group_items, items_where
from tdabench.datasets.published import emoji
from tdabench.errors import UserError

LISTED = [("cat", "Faces", "cats"), ("dog", "Faces", "dogs"), ("car", "Things", "cars"), ("bus", "Things", "cars")]


def rgba(name, artist, size=64):
    seed = int(hashlib.sha256(f"{name} {artist}".encode()).hexdigest()[:8], 16)
    return np.random.default_rng(seed).integers(0, 256, (size, size, 4), dtype=np.uint8)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def huge_png():
    """A picture that says it has 60,000 x 60,000 pixels."""
    data = png(rgba("cat", "google"))
    header = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + data[24:29]
    return data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]


def copy(root, listed=LISTED, layout="{artist}/img/{artist}/64"):
    keys = [{"image": f"{name}.png", "category": c, "subcategory": s} for name, c, s in listed]
    drawn = {"has_img_twitter": True, "has_img_google": True}
    skipped = {"image": "no.png", "category": "Faces", "subcategory": "cats", **drawn, "has_img_google": False}
    for artist in emoji.ARTISTS:
        folder = root / layout.format(artist=artist)
        folder.mkdir(parents=True)
        for name, *_ in listed:
            (folder / f"{name}.png").write_bytes(png(rgba(name, artist)))
        (root / artist).mkdir(exist_ok=True)
        (root / artist / "emoji.json").write_text(json.dumps([*({**key, **drawn} for key in keys), skipped]))
    return root


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(emoji, "CARD", replace(emoji.CARD, items=2 * len(LISTED)))


def over_white(pixels):
    """The mean colour of each 2x2 block over white, rounded half up, in exact fractions."""
    found = np.empty((3, 32, 32), np.uint8)
    for c, y, x in np.ndindex(found.shape):
        block = pixels[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].reshape(4, 4).astype(int).tolist()
        exact = sum(Fraction(p[c] * p[3] + 255 * (255 - p[3]), 255) for p in block) / 4
        found[c, y, x] = int(exact + Fraction(1, 2))
    return found


def test_pictures_of_both_artists_are_stored_over_white_at_half_the_size(tmp_path):
    data = emoji.fetch(copy(tmp_path / "copy"))
    assert len(data) == 8 and data.images.shape == (8, 3, 32, 32)
    stored = {image.numpy().tobytes() for image in ((data.pixels(torch.arange(8)) + 1) * 127.5).round().byte()}
    assert over_white(rgba("cat", "twitter")).tobytes() in stored
    assert over_white(rgba("bus", "google")).tobytes() in stored
    assert data.classes.bincount().tolist() == [4, 4] and torch.equal(data.cond["class_labels"][:], data.classes)


def test_layout_and_order_of_the_source_change_neither_ids_nor_groups(tmp_path):
    one = emoji.fetch(copy(tmp_path / "one"))
    other = emoji.fetch(copy(tmp_path / "other", LISTED[::-1], "img-{artist}-64"))
    assert other.fingerprint() == one.fingerprint()
    assert all(torch.equal(one.groups[name], other.groups[name]) for name in one.groups)


def test_items_are_grouped_by_artist_and_subcategory_and_chosen_by_category(tmp_path):
    data = emoji.fetch(copy(tmp_path / "copy"))
    things = items_where(data, {"category": ("Things",)})
    assert len(things) == 4 and len(items_where(data, {"category": ("Things",), "artist": ("Noto",)})) == 2
    groups = group_items(data, "artist_subcategory")
    assert groups.names == tuple(f"{a} {s}" for a in ("Twemoji", "Noto") for s in ("cars", "cats", "dogs"))
    assert groups.assignment.bincount().tolist() == [2, 1, 1, 2, 1, 1]
    assert group_items(data.select(things), "artist_subcategory").names == ("Twemoji cars", "Noto cars")
    assert (data.groups["artist"] == data.classes).all()
    with pytest.raises(UserError, match="unknown group by 'category' of dataset 'emoji': 'Thing': did you mean"):
        items_where(data, {"category": ("Thing",)})


def drop_artist(root):
    (root / "google").rename(root.parent / "elsewhere")


def drop_list(root):
    for artist in emoji.ARTISTS:
        (root / artist / "emoji.json").unlink()


def break_list(root):
    for artist in emoji.ARTISTS:
        (root / artist / "emoji.json").write_text('[{"image": "cat.png"}]')


def set_key(key, value):
    def breaking(root):
        for artist in emoji.ARTISTS:
            path = root / artist / "emoji.json"
            first, *others = json.loads(path.read_text())
            path.write_text(json.dumps([first | {key: value}, *others]))

    return breaking


def nest_list(root):
    for artist in emoji.ARTISTS:
        (root / artist / "emoji.json").write_text("[" * 200_000)


def inflate_picture(root):
    (root / "google/img/google/64/car.png").write_bytes(huge_png())


def drop_last(root):
    for artist in emoji.ARTISTS:
        path = root / artist / "emoji.json"
        path.write_text(json.dumps(json.loads(path.read_text())[1:]))


def break_picture(root):
    (root / "google/img/google/64/car.png").write_bytes(b"no picture")


def shrink_picture(root):
    (root / "google/img/google/64/car.png").write_bytes(png(rgba("car", "google", 32)))


@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (drop_artist, "no folder img/google/64 or img-google-64"),
        (drop_list, "no emoji.json"),
        (break_list, "is no list of emoji"),
        (nest_list, "is no list of emoji"),
        (set_key("image", None), "is no list of emoji.*None is no text"),
        (set_key("category", 3), "is no list of emoji.*3 is no text"),
        (set_key("subcategory", ["cats"]), "is no list of emoji.*cats.* is no text"),
        (inflate_picture, r"car\.png cannot be read as an image.*decompression bomb"),
        (break_picture, r"car\.png cannot be read as an image"),
        (drop_last, "6 pictures where emoji has 8: give both packages whole"),
        (shrink_picture, r"car\.png is 32 x 32 pixels, not 64 x 64"),
    ],
)
def test_a_copy_with_something_wrong_is_refused_and_nothing_is_stored(tmp_path, breaking, message):
    root = copy(tmp_path / "copy")
    breaking(root)
    with pytest.raises(UserError, match=message):
        emoji.fetch(root)
    with pytest.raises(UserError, match="get it with `tdabench data fetch emoji`"):
        emoji.load()


def archive(root):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(root, arcname="package")
    return buffer.getvalue()


def test_packages_are_downloaded_checked_and_unpacked(tmp_path, monkeypatch):
    data = archive(copy(tmp_path / "copy"))
    (tmp_path / "one/-").mkdir(parents=True)
    (tmp_path / "one/-/one-1.0.tgz").write_bytes(data)
    monkeypatch.setattr(packages, "REGISTRY", tmp_path.as_uri())
    with packages.unpacked(None, {"one": hashlib.sha256(data).hexdigest()}, "1.0") as root:
        assert len(list(root.rglob("*.png"))) == 8
    assert not root.exists()
    with pytest.raises(UserError, match="is not what was pinned"), packages.unpacked(None, {"one": "0" * 64}, "1.0"):
        pass
    with pytest.raises(UserError, match=r"cannot be read .* --data"), packages.unpacked(None, {"two": ""}, "1.0"):
        pass
    with pytest.raises(UserError, match="there is no folder"), packages.unpacked(tmp_path / "no", {"one": ""}, "1.0"):
        pass


def test_a_download_that_ends_early_is_one_line(monkeypatch):
    def cut(url, timeout):
        raise IncompleteRead(b"half", 10)

    monkeypatch.setattr(packages.urllib.request, "urlopen", cut)
    with pytest.raises(UserError, match=r"cannot be read .* --data"), packages.unpacked(None, {"one": ""}, "1.0"):
        pass
