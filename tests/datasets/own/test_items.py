"""Images of one's own: what is read, resized and left out, and stored once by what they are."""

from __future__ import annotations

import errno
import json
import os
import shutil
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tdabench.datasets.find import load_dataset
from tdabench.datasets.own import items
from tdabench.datasets.own.sources import given
from tdabench.datasets.stored import COLUMNS
from tdabench.errors import CorruptFile, UserError
from tdabench.store import FolderStore

from ...models import folders

N = 5


class Nothing:
    """No conditions, one class."""

    key = "nothing"
    null: dict = {}

    def of(self, i):
        return 0, {}


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "home"))
    return folders.save_images(tmp_path / "pictures", folders.colours(N))


def bring(folder, **changes):
    return items.bring(given(folder), **{"channels": 3, "size": (8, 8), "beside": Nothing(), **changes})


def in_order(own):
    """Return the images in the order of their files' names."""
    return own.data.pixels(own.order)


def test_items_are_the_files_in_the_order_of_their_names(pictures):
    own = bring(pictures)
    torch.testing.assert_close(in_order(own), folders.colours(N), rtol=0, atol=1e-6)
    assert [own.files[i] for i in own.order] == [f"{i:02d}.png" for i in range(N)]
    assert (own.skipped, own.resized, own.converted) == ({}, 0, 0)
    assert load_dataset(own.name).fingerprint() == own.data.fingerprint()


def test_the_same_files_are_read_once_and_equal_content_has_one_name(pictures, tmp_path, monkeypatch):
    first = bring(pictures)
    copied = bring(shutil.copytree(pictures, tmp_path / "elsewhere"))
    assert copied.name == first.name
    monkeypatch.setattr(items, "fit_picture", lambda *a: pytest.fail("read again"))
    assert bring(pictures).name == first.name


def test_a_changed_file_is_another_dataset(pictures):
    first = bring(pictures)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(pictures / "02.png")
    second = bring(pictures)
    assert second.name != first.name and (in_order(second)[2] == -1).all()


def test_what_cannot_be_read_is_left_out_and_named(pictures):
    (pictures / "01.png").write_bytes((pictures / "01.png").read_bytes()[:60])
    (pictures / "03.jpg").write_bytes(b"hello")
    own = bring(pictures)
    assert list(own.skipped) == ["01.png", "03.jpg"] and len(own.data) == N - 1
    kept = [0, 2, 3, 4]
    torch.testing.assert_close(in_order(own), folders.colours(N)[kept], rtol=0, atol=1e-6)


@pytest.mark.parametrize("at", [1, N, N + 1, 2 * N])
@pytest.mark.parametrize("size", [(8, 8), None])
def test_a_disk_that_does_not_give_a_picture_leaves_none_out(pictures, tmp_path, monkeypatch, at, size):
    opened, seen = Image.open, count(1)

    def broken(path):
        if next(seen) == at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return opened(path)

    monkeypatch.setattr(Image, "open", broken)
    with pytest.raises(UserError, match=r"(cannot read 0\d.png of .*pictures|read again).*Input/output error"):
        bring(pictures, size=size)
    assert not list(tmp_path.glob("home/own/own-*")) and len(bring(pictures, size=size).data) == N


def test_a_picture_that_is_damaged_while_it_is_read_is_one_line(pictures, tmp_path, monkeypatch):
    fit, seen = items.fit_picture, count()

    def damaged(*words):
        if next(seen) == N:
            raise SyntaxError("broken PNG file")
        return fit(*words)

    monkeypatch.setattr(items, "fit_picture", damaged)
    with pytest.raises(UserError, match=r"row \d of the source is not what it was when it was read first"):
        bring(pictures)
    assert not list(tmp_path.glob("home/own/own-*")) and len(bring(pictures).data) == N


def test_other_sizes_and_modes_are_made_to_fit(pictures):
    wide = np.zeros((16, 40, 3), np.uint8)
    wide[:, 12:28] = 255  # the middle square
    Image.fromarray(wide).save(pictures / "00.png")
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(pictures / "01.png")
    Image.new("L", (8, 8), 51).save(pictures / "02.png")
    own = bring(pictures)
    found = in_order(own)
    assert own.resized == 1 and own.converted == 2
    assert (found[0, :, :, 1:7] == 1).all()  # resized to 20 x 8, of which the middle 8 columns remain
    assert (found[1] == 1).all() and torch.allclose(found[2], torch.tensor(51 / 127.5 - 1))


def test_without_a_size_the_first_that_can_be_read_decides(pictures):
    (pictures / "00.png").write_bytes(b"hello")
    Image.new("RGB", (6, 4)).save(pictures / "01.png")
    own = bring(pictures, size=None)
    assert own.data.images.shape[1:] == (3, 4, 6) and own.resized == N - 2


def test_a_saved_dataset(pictures, tmp_path):
    import datasets

    files = [str(pictures / f"{i:02d}.png") for i in range(N)]
    table = datasets.Dataset.from_dict({"image": files, "label": [0, 1, 0, 1, 1], "text": list("abcde")})
    table = table.cast_column("image", datasets.Image())
    table.save_to_disk(str(tmp_path / "saved"))
    for source in (table, tmp_path / "saved"):
        found = given(source)
        assert found.captions == tuple("abcde") and found.groups == ("0", "1", "0", "1", "1")
        torch.testing.assert_close(in_order(bring(source)), folders.colours(N), rtol=0, atol=1e-6)


def test_no_item_is_left_out_in_memory(pictures):
    names, images, found = items.in_memory(items.Reading(given(pictures), 3, (8, 8), Nothing()))
    torch.testing.assert_close(images, folders.colours(N), rtol=0, atol=1e-6)
    assert len(names) == len(found) == N


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda folder: [path.write_bytes(b"no") for path in folder.iterdir()], "none of the 5 images .* can be read"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "holds no image files"),
        (shutil.rmtree, "there is no folder"),
        (
            lambda folder: Path(os.fsdecode(bytes(folder) + b"/\xff.png")).write_bytes(b""),
            r"udcff\.png', whose name is",
        ),
        (lambda folder: (folder / "metadata.jsonl").write_text("{"), r"metadata\.jsonl, line 1: not JSON"),
        (lambda folder: (folder / "state.json").write_text("{}"), "cannot be read as a saved dataset"),
    ],
)
def test_no_images_are_one_line_and_nothing_is_stored(pictures, tmp_path, change, match):
    change(pictures)
    with pytest.raises(UserError, match=match) as caught:
        bring(pictures)
    assert "\n" not in str(caught.value)
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file() and not path.name.startswith(".")]


def test_a_table_without_images_is_one_line(pictures):
    import datasets

    with pytest.raises(UserError, match="has no column of images, but text: cast one"):
        given(datasets.Dataset.from_dict({"text": ["a"]}))


def test_captions_come_from_beside(pictures):
    rows = [{"file_name": f"{i:02d}.png", "text": f"t{i}", "label": i} for i in range(N)]
    (pictures / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = given(pictures)
    assert found.captions == ("t0", "t1", "t2", "t3", "t4") and found.groups == tuple("01234")


@pytest.mark.parametrize("sealed", [False, True])
def test_an_edited_name_of_a_file_is_found(pictures, sealed):
    own = bring(pictures)
    store = FolderStore(items.own_folder(own.name))
    edited = store.get_json(COLUMNS)
    edited["groups"]["file"].reverse()
    store.put_json(COLUMNS, edited, sealed)
    for opened in (lambda: bring(pictures), lambda: load_dataset(own.name)):
        with pytest.raises(CorruptFile, match=f"{own.name} .*: delete it and attribute its images again"):
            opened()


def test_another_dataset_under_a_name_is_found(pictures):
    first = bring(pictures)
    Image.new("RGB", (8, 8)).save(pictures / "02.png")
    second = bring(pictures)
    shutil.rmtree(items.own_folder(first.name))
    shutil.copytree(items.own_folder(second.name), items.own_folder(first.name))
    with pytest.raises(CorruptFile, match=f"{first.name} does not hold what its name says"):
        load_dataset(first.name)


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"name": 5}', '{"name": "own-other"}', "", "{"])
def test_a_damaged_note_of_the_name_is_set_aside_and_made_again(pictures, tmp_path, capsys, text):
    first = bring(pictures)
    shutil.copytree(items.own_folder(first.name), items.own_folder("own-other"))
    (note,) = (tmp_path / "home" / "own" / "index").glob("*.json")
    note.write_text(text)
    assert bring(pictures).name == first.name
    assert "is damaged: set aside as" in capsys.readouterr().err
    assert bring(pictures).name == first.name and not capsys.readouterr().err


def test_images_stored_by_earlier_versions_are_stored_again_under_their_name(pictures, tmp_path):
    first = bring(pictures)
    for seal in (tmp_path / "home" / "own").rglob("*.sha256"):
        seal.unlink()
    with pytest.raises(CorruptFile, match=r"has no hash beside it.*: delete it and attribute its images again"):
        load_dataset(first.name)
    assert bring(pictures).name == first.name and len(load_dataset(first.name)) == N
