"""A truth goes through an archive unchanged, and an archive that is none changes nothing."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import resource
import tarfile
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load, save

from tdabench.datasets.truth import Assets, manifest_hash
from tdabench.store import sha256

from ... import run_helpers

tiny_home, home, tdabench = run_helpers.tiny_home, run_helpers.home, run_helpers.tdabench
LABEL = "digits-tiny@1"
MANIFEST = f"{LABEL}/manifest.json"


@pytest.fixture(autouse=True)
def _prepared(home):
    """Every test here starts from the tiny truth."""


def assert_mistake(answer, *words):
    assert answer.code == 2 and answer.err.startswith("error: ") and answer.err.count("\n") == 1, answer
    for word in words:
        assert str(word) in answer.err


@pytest.fixture
def archive(tdabench, tmp_path):
    assert tdabench("truth", "export", "digits-tiny", tmp_path / "truth.tar").code == 0
    return tmp_path / "truth.tar"


@pytest.fixture
def elsewhere(archive, tmp_path, monkeypatch):
    """A home without any truth, to import into."""
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "elsewhere"))
    return tmp_path / "elsewhere" / "truth" / LABEL


def test_a_truth_goes_through_an_archive_unchanged(archive, elsewhere, home, tdabench):
    assert tdabench("truth", "import", archive).code == 0
    names = sorted(path.name for path in elsewhere.iterdir())
    assert names == sorted(path.name for path in (home / "truth" / LABEL).iterdir())
    for name in names:
        assert (elsewhere / name).read_bytes() == (home / "truth" / LABEL / name).read_bytes()
    answer = tdabench("truth", "info", "digits-tiny")
    assert answer.code == 0
    assert Assets(elsewhere).sha256[:16] in answer.out and "10 report subsets x 2, 6 open x 1" in answer.out


def rewrite(archive, change):
    """Write the archive again with the files that ``change`` makes of {name: bytes}."""
    with tarfile.open(archive) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
    with tarfile.open(archive, "w") as tar:
        for name, data in change(files).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def without_hashes(files):
    return files | {MANIFEST: json.dumps(json.loads(files[MANIFEST]) | {"files": {}}).encode()}


SPOILT = {
    "one bit": lambda path: rewrite(path, lambda files: {name: data[:-1] + b"?" for name, data in files.items()}),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "a picture": lambda path: path.write_bytes(b"\x89PNG" * 999),
    "missing": lambda path: path.unlink(),
    "one file less": lambda path: rewrite(path, lambda files: dict(list(files.items())[:-1])),
    "no hashes": lambda path: rewrite(path, without_hashes),
    "list of files": lambda path: rewrite(path, lambda files: files | {MANIFEST: b'{"files": []}'}),
    "other task": lambda path: rewrite(
        path, lambda files: {name.replace("digits-tiny", "digits"): data for name, data in files.items()}
    ),
    "unknown task": lambda path: rewrite(
        path, lambda files: {name.replace("digits", "digitz"): data for name, data in files.items()}
    ),
}


def edited(files, change):
    """Return the files with a change of the manifest, whose hash holds."""
    manifest = json.loads(files[MANIFEST])
    change(manifest)
    return files | {MANIFEST: json.dumps(manifest | {"manifest_sha256": manifest_hash(manifest)}).encode()}


OUTPUTS = np.ones((2, 10, 4), np.float32)


def with_file(name, **arrays):
    """Return what puts a file of arrays into a truth, in another's place or as one more, with hashes that hold."""

    def change(files):
        data = save(arrays)
        listed = {"sha256": sha256(data), "bytes": len(data)}
        return edited(files | {f"{LABEL}/{name}": data}, lambda manifest: manifest["files"].update({name: listed}))

    return change


def without(name):
    """Return what takes a file out of a truth, whose manifest does not list it."""

    def change(files):
        left = {path: data for path, data in files.items() if path != f"{LABEL}/{name}"}
        return edited(left, lambda manifest: manifest["files"].pop(name))

    return change


def with_array(value, place="truth-report-0.safetensors", key="outputs"):
    """Return what puts a number into an array, with hashes that hold."""

    def change(files):
        arrays = {name: np.array(array) for name, array in load(files[f"{LABEL}/{place}"]).items()}
        arrays[key].flat[1] = value
        return with_file(place, **arrays)(files)

    return change


def spoilt(change):
    return lambda path: rewrite(path, lambda files: edited(files, change))


SPOILT |= {
    "another schema": spoilt(lambda manifest: manifest.update(schema_version=3)),
    "schema true": spoilt(lambda manifest: manifest.update(schema_version=True)),
    "no recipe": spoilt(lambda manifest: manifest.pop("recipe")),
    "an empty recipe": spoilt(lambda manifest: manifest.update(recipe={})),
    "another recipe": spoilt(lambda manifest: manifest["recipe"].update(steps=1)),
    "queries of another type": spoilt(lambda manifest: manifest.update(queries=[1])),
    "dataset of another type": spoilt(lambda manifest: manifest.update(dataset=[])),
    "queries less": spoilt(lambda manifest: manifest["queries"].pop(0)),
    "edited by hand": lambda path: rewrite(
        path, lambda files: files | {MANIFEST: files[MANIFEST].replace(b'"base_seed": 0', b'"base_seed": 1')}
    ),
    "nested deeply": lambda path: rewrite(path, lambda files: files | {MANIFEST: b"[" * 100_000 + b"]" * 100_000}),
    "no JSON": lambda path: rewrite(path, lambda files: files | {MANIFEST: b"\xff\xfe"}),
    "a replicate less": lambda path: rewrite(path, without("truth-report-1.safetensors")),
    "labels of fewer subsets": lambda path: rewrite(path, with_file("truth-open-0.safetensors", outputs=OUTPUTS)),
    "labels and more": lambda path: rewrite(
        path, with_file("truth-report-0.safetensors", outputs=np.ones((10, 10, 4), np.float32), more=OUTPUTS)
    ),
    "NaN": lambda path: rewrite(path, with_array(np.nan)),
    "infinity": lambda path: rewrite(path, with_array(-np.inf, "truth-full.safetensors")),
    "NaN in a weight": lambda path: rewrite(path, with_nan_weight),
}


def with_nan_weight(files):
    name = next(name for name in files if "weights-" in name).removeprefix(f"{LABEL}/")
    arrays = load(files[f"{LABEL}/{name}"])
    key = min(key for key, array in arrays.items() if array.dtype.kind == "f" and array.size > 1)
    return with_array(np.nan, name, key)(files)


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_archive_is_refused_whole(name, archive, elsewhere, tdabench):
    SPOILT[name](archive)
    assert_mistake(tdabench("truth", "import", archive), "digitz" if name == "unknown task" else archive)
    assert not elsewhere.exists()


def test_a_refused_archive_leaves_the_truth_that_is_there(archive, elsewhere, tdabench):
    assert tdabench("truth", "import", archive).code == 0
    SPOILT["one bit"](archive)
    assert_mistake(tdabench("truth", "import", archive), archive)
    assert tdabench("truth", "info", "digits-tiny").code == 0


# what was there


def other_truth(files):
    """Return a truth of other losses, whose manifest says so."""
    return edited(files, lambda manifest: manifest.update(base_seed=manifest["base_seed"] + 7))


@pytest.mark.parametrize(("module", "read"), [(np, "fromfile"), (hashlib, "file_digest")])
def test_a_disk_that_does_not_give_what_was_unpacked_is_no_fault_of_the_archive(
    module, read, archive, elsewhere, tdabench, monkeypatch
):
    def broken(*words, **named):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(module, read, broken)
        answer = tdabench("truth", "import", archive)
    assert_mistake(answer, "cannot read", elsewhere.parent, "Input/output error")
    assert archive.name not in answer.err and not elsewhere.exists()
    assert tdabench("truth", "import", archive).code == 0


def test_the_same_truth_again_is_no_change(archive, elsewhere, tdabench):
    assert tdabench("truth", "import", archive).code == 0
    before = {path: path.stat().st_mtime_ns for path in elsewhere.iterdir()}
    answer = tdabench("truth", "import", archive)
    assert answer.code == 0 and "is here already" in answer.out
    assert {path: path.stat().st_mtime_ns for path in elsewhere.iterdir()} == before


def test_another_truth_is_put_in_place_only_when_told_and_sets_the_first_aside(archive, elsewhere, tdabench):
    assert tdabench("truth", "import", archive).code == 0
    first = Assets(elsewhere)
    rewrite(archive, other_truth)
    assert_mistake(tdabench("truth", "import", archive), archive, "--replace", first.sha256[:16])
    assert Assets(elsewhere).sha256 == first.sha256
    answer = tdabench("truth", "import", archive, "--replace")
    assert answer.code == 0, answer
    aside = elsewhere.with_name(f"{LABEL}.replaced-{first.sha256[:16]}")
    assert Assets(aside).sha256 == first.sha256 != Assets(elsewhere).sha256 and aside.name in answer.out
    assert {path.name for path in elsewhere.parent.iterdir() if not path.name.startswith(".")} == {LABEL, aside.name}


def test_a_truth_that_is_damaged_here_is_not_called_the_same(archive, elsewhere, tdabench):
    assert tdabench("truth", "import", archive).code == 0
    path = elsewhere / "truth-report.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert_mistake(tdabench("truth", "import", archive), "damaged", "--replace")
    assert tdabench("truth", "import", archive, "--replace").code == 0
    assert tdabench("truth", "verify", "digits-tiny", "--sample", 0).code == 0


# archives that attack


def header(name, size=0, kind=tarfile.REGTYPE, **fields):
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    for field, value in fields.items():
        setattr(member, field, value)
    return member.tobuf(tarfile.GNU_FORMAT)


def appended(path, data):
    """Put members behind those of an archive, before its end."""
    with tarfile.open(path) as tar:
        end = max(m.offset_data + -(-m.size // 512) * 512 for m in tar.getmembers())
    path.write_bytes(path.read_bytes()[:end] + data + bytes(1024))


def sparse(path, size):
    """Write an archive of one member of zeros, which takes no room on a disk."""
    with path.open("wb") as file:
        file.write(header(f"{LABEL}/truth-open.safetensors", size))
        file.truncate(512 + size + 1024)


def bomb(path):
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(header(f"{LABEL}/truth-open.safetensors", 300 * 2**20))
        for _ in range(300):
            file.write(bytes(2**20))
    assert 300 * 2**20 / path.stat().st_size > 900


ATTACKS = {
    "20 GiB of zeros": (lambda path: sparse(path, 20 * 2**30), "are allowed"),
    "a gzip of 1000 : 1": (bomb, "100 times the bytes"),
    "a sparse member": (lambda path: appended(path, header(f"{LABEL}/a.safetensors", kind=b"S")), "no plain file"),
    "a climb": (lambda path: appended(path, header(f"{LABEL}/../../a.safetensors")), "no name of a truth's file"),
    "an absolute path": (lambda path: appended(path, header("/tmp/a.safetensors")), "no name of a truth's file"),
    "a symlink": (
        lambda path: appended(path, header(f"{LABEL}/a.safetensors", kind=tarfile.SYMTYPE, linkname="/etc")),
        "no plain file",
    ),
    "a hard link": (
        lambda path: appended(path, header(f"{LABEL}/a.safetensors", kind=tarfile.LNKTYPE, linkname="/etc/passwd")),
        "no plain file",
    ),
    "a device": (lambda path: appended(path, header(f"{LABEL}/a.safetensors", kind=tarfile.CHRTYPE)), "no plain file"),
    "a member twice": (lambda path: appended(path, header(MANIFEST)), "twice"),
    "two truths": (lambda path: appended(path, header("digits@1/manifest.json")), "no exported truth"),
    "more than is listed": (lambda path: appended(path, header(f"{LABEL}/a.safetensors")), "lists (a.safetensors)"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_one_line_and_little_memory(name, archive, elsewhere, tdabench):
    write, said = ATTACKS[name]
    write(archive)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert_mistake(tdabench("truth", "import", archive), archive, said)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB
    assert not elsewhere.exists() and not (elsewhere.parent / ".import").exists()


def test_a_file_that_the_plan_has_not_is_refused_by_its_name(archive, elsewhere, tdabench):
    rewrite(archive, with_file("extra.safetensors", x=OUTPUTS))
    assert_mistake(tdabench("truth", "import", archive), archive, "plans (extra.safetensors)")
    assert not elsewhere.exists()


def test_a_large_array_is_looked_through_in_little_memory(archive, elsewhere, tdabench):
    weights, large = "weights-0.safetensors", 48 * 2**20
    rewrite(archive, with_file(weights, w=np.append(np.zeros(large // 4 - 1, np.float32), np.float32(np.nan))))
    tracemalloc.start()
    try:
        assert_mistake(tdabench("truth", "import", archive), f"{weights} has w that is NaN")
        assert tracemalloc.get_traced_memory()[1] < large / 2
    finally:
        tracemalloc.stop()


def test_a_compressed_archive_is_read(archive, elsewhere, tdabench):
    archive.write_bytes(gzip.compress(archive.read_bytes()))
    assert tdabench("truth", "import", archive).code == 0
    assert tdabench("truth", "info", "digits-tiny").code == 0
