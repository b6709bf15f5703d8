"""A submission's archive, a gzipped tar of plain files; reading one trusts nothing and has declared limits.

Only plain files come out of it: a header of any other kind is refused unread, so that links, devices and extended
headers have no effect, and no more is decompressed than the limits allow.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from ...errors import UserError, brief
from ...store import FolderStore

MANIFEST = "submission.json"
LIMITS = {"submission.json": 2**20, ".py": 2**20, ".json": 8 * 2**20, ".safetensors": 256 * 2**20}  # bytes of a file
MOST_FILES = 2000
MOST_BYTES = 2**30
PART = r"[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,99}"
NAME = re.compile(
    rf"{re.escape(MANIFEST)}|adapter(/{PART})*/{PART}\.py|rows(/{PART})+\.json|scores(/{PART})+\.safetensors"
)
BLOCK = tarfile.BLOCKSIZE
CHUNK = 2**20


def write_archive(archive: Path, files: Mapping[str, bytes]) -> None:
    """Write files by name, whole or not at all; equal files give equal bytes."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in sorted(files, key=lambda name: (name != MANIFEST, name)):
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            tar.addfile(member, io.BytesIO(files[name]))
    FolderStore(archive.parent).put(archive.name, buffer.getvalue())


def unpack(archive: Path, folder: Path) -> list[str]:
    """Write an archive's files below ``folder``, which must be empty, and return their names.

    Raises UserError for what is no such archive, holds anything but plain files under the names of a submission, or is
    larger than the limits.
    """
    try:
        with gzip.open(archive) as stream:
            return _unpack(archive, stream, folder)
    except (OSError, EOFError, zlib.error, tarfile.TarError, UnicodeDecodeError) as error:
        raise UserError(f"{archive} cannot be read as a .tar.gz ({brief(str(error))}): pack it again") from error


def _unpack(archive: Path, stream: IO[bytes] | gzip.GzipFile, folder: Path) -> list[str]:
    names: list[str] = []
    total = 0
    while (header := _exactly(stream, BLOCK)) != bytes(BLOCK):
        member = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
        total += BLOCK + member.size
        refused = _refusal(member, names) or (f"holds more than {MOST_BYTES:,} bytes" if total > MOST_BYTES else None)
        if refused:
            raise UserError(f"{archive} {refused}: pack it with `tdabench submit pack`")
        names.append(member.name)
        _write(stream, folder / member.name, member.size)
    return names


def _refusal(member: tarfile.TarInfo, names: list[str]) -> str | None:
    """Return why a member is refused, given the names that came before it."""
    name = repr(brief(member.name))
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        return f"holds {name}, which is no plain file but of the tar type {member.type!r}"
    if not NAME.fullmatch(member.name):
        return f"holds {name}, which is no name of a submission's file"
    if member.name in names:
        return f"holds {name} twice"
    limit = LIMITS.get(member.name) or LIMITS[Path(member.name).suffix]
    if not 0 <= member.size <= limit:
        return f"holds {name} of {member.size:,} bytes, where {limit:,} are allowed"
    return f"holds more than {MOST_FILES} files" if len(names) >= MOST_FILES else None


def _write(stream: IO[bytes] | gzip.GzipFile, path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        for start in range(0, size, CHUNK):
            file.write(_exactly(stream, min(CHUNK, size - start)))
    _exactly(stream, -size % BLOCK)


def _exactly(stream: IO[bytes] | gzip.GzipFile, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("it ends in the middle of a file")
    return data
