"""A hostile archive is one clear line, and nothing of it leaves the folder that it is unpacked in."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tdabench.benchmark.submission.archive import CONTENTS, MANIFEST, write_archive
from tdabench.benchmark.unpacking import unpack
from tdabench.errors import UserError

ODD = "no plain file"
GOOD = {MANIFEST: b"{}", "adapter/mine.py": b"x = 1\n", "rows/a@1/b@1/c-12345678/test-seed0.json": b"{}"}


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: object
) -> tuple[tarfile.TarInfo, bytes]:
    found = tarfile.TarInfo(name)
    found.type, found.size = kind, len(data)
    for field, value in fields.items():
        setattr(found, field, value)
    return found, data


def tar(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    for info, data in members:
        buffer.write(info.tobuf(format) + data + bytes(-len(data) % 512))
    return buffer.getvalue() + bytes(1024)


def packed(folder: Path, data: bytes) -> Path:
    path = folder / "hostile.tar.gz"
    path.write_bytes(gzip.compress(data, 1))
    return path


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    write_archive(tmp_path / "x.tar.gz", GOOD)
    names = unpack(tmp_path / "x.tar.gz", tmp_path / "out", CONTENTS)
    assert names[0] == MANIFEST and {name: (tmp_path / "out" / name).read_bytes() for name in names} == GOOD
    first = (tmp_path / "x.tar.gz").read_bytes()
    write_archive(tmp_path / "x.tar.gz", dict(reversed(GOOD.items())))
    assert (tmp_path / "x.tar.gz").read_bytes() == first


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "climbs": (lambda: tar(member("adapter/../../../evil.py", b"x")), "no name of a submission's file"),
    "is absolute": (lambda: tar(member("/tmp/evil.py", b"x")), "no name of a submission's file"),
    "climbs by its prefix": (lambda: tar(member("../" * 40 + "evil.py", b"x"), format=tarfile.USTAR_FORMAT), "no name"),
    "is hidden": (lambda: tar(member("adapter/.evil.py", b"x")), "no name"),
    "has a line break": (lambda: tar(member("adapter/a\nb.py", b"x")), "no name"),
    "has an escape": (lambda: tar(member("adapter/\x1b[31m.py", b"x")), "no name"),
    "is a symlink": (lambda: tar(member("adapter/a.py", kind=tarfile.SYMTYPE, linkname="/etc/passwd")), ODD),
    "is a hard link": (lambda: tar(member("adapter/a.py", kind=tarfile.LNKTYPE, linkname="/etc/passwd")), ODD),
    "is a device": (lambda: tar(member("adapter/a.py", kind=tarfile.CHRTYPE, devmajor=1)), ODD),
    "is a pipe": (lambda: tar(member("adapter/a.py", kind=tarfile.FIFOTYPE)), ODD),
    "is a folder": (lambda: tar(member("adapter", kind=tarfile.DIRTYPE)), ODD),
    "has an extended header": (lambda: tar(member("x", b"30 path=../../evil\n", kind=tarfile.XHDTYPE)), ODD),
    "has a long name": (lambda: tar(member("a" * 300, b"x")), ODD),
    "comes twice": (lambda: tar(member("adapter/a.py", b"x"), member("adapter/a.py", b"y")), "twice"),
    "is a file and a folder": (
        lambda: tar(member("rows/a.json", b"x"), member("rows/a.json/b.json", b"y")),
        "cannot be",
    ),
    "is too large": (lambda: tar(member("adapter/a.py", b"x" * (2**20 + 1))), "1,048,576 are allowed"),
    "says it is endless": (lambda: tar(member("scores/a.safetensors", size=2**40)), "are allowed"),
    "has a negative size": (lambda: tar(member("scores/a.safetensors", size=-512)), "are allowed"),
    "ends early": (lambda: tar(member("adapter/a.py", b"x" * 600))[:700], "ends in the middle"),
    "has no end": (lambda: tar(member("adapter/a.py", b"x"))[:1024], "ends in the middle"),
    "is no tar": (lambda: b"x" * 2048, "cannot be read"),
    "is empty": (lambda: b"", "ends in the middle"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_a_member_must_not_be(what: str, tmp_path: Path) -> None:
    data, said = HOSTILE[what]
    with pytest.raises(UserError, match=said) as caught:
        unpack(packed(tmp_path, data()), tmp_path / "in" / "out", CONTENTS)
    assert "hostile.tar.gz" in str(caught.value) and str(caught.value).isprintable()
    assert {path.name for path in tmp_path.iterdir()} <= {"hostile.tar.gz", "in"}
    assert not (tmp_path / "in").exists() or {path.name for path in (tmp_path / "in").iterdir()} == {"out"}


def test_a_bomb_is_not_decompressed(tmp_path: Path) -> None:
    """Two hundred megabytes of zeros in a member that may hold one are left alone."""
    info = tarfile.TarInfo("adapter/a.py")
    info.size = 200 * 2**20
    path = packed(tmp_path, info.tobuf(tarfile.GNU_FORMAT) + bytes(info.size))
    assert path.stat().st_size < 2 * 2**20
    with pytest.raises(UserError, match="are allowed"):
        unpack(path, tmp_path / "out", CONTENTS)
    assert not (tmp_path / "out").exists()


def test_many_files_and_many_bytes_are_refused(tmp_path: Path) -> None:
    path = packed(tmp_path, tar(*(member(f"adapter/a{i}.py", b"x") for i in range(CONTENTS.most_files + 1))))
    with pytest.raises(UserError, match="more than 2000 files"):
        unpack(path, tmp_path / "files", CONTENTS)
    path = packed(tmp_path, tar(*(member(f"adapter/a{i}.py", b"x" * 4000) for i in range(3))))
    with pytest.raises(UserError, match="more than 10,000 bytes"):
        unpack(path, tmp_path / "bytes", replace(CONTENTS, most_bytes=10_000))


@pytest.mark.parametrize("data", [b"", b"no gzip", gzip.compress(b"x" * 9000, mtime=0)[:40]])
def test_what_is_no_gzip_is_one_line(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(data)
    with pytest.raises(UserError, match="cannot be read"):
        unpack(tmp_path / "x.tar.gz", tmp_path / "out", CONTENTS)


def test_a_missing_archive_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        unpack(tmp_path / "none.tar.gz", tmp_path / "out", CONTENTS)
